"""How the report writes numbers and wraps sections."""

from html import escape

from tandem.report_inputs import number

COMPONENTS = {  # in the tables' order: who, what it reads
    "softmax": ("Base model", "the original: full softmax attention"),
    "hybrid": ("Hybrid", "window and linear branch together"),
    "window_only": ("Window alone", "linear branch switched off"),
    "linear_only": (
        "Linear branch alone",
        "window switched off; the marks are the verdict's limits",
    ),
    "sinks_only": ("First tokens alone", "sees its first {sinks} tokens only: the scale's zero"),
    "none": ("No attention", "each token on its own"),
}
MINUS, NO_BREAK = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"


def percent(value):
    value = number(value)
    return "–" if value is None else f"{100 * value:.0f}{NO_BREAK}%".replace("-", MINUS)


def signed_percent(value):
    """An error as signed percent: +12 %."""
    value = number(value)
    return "–" if value is None else f"{100 * value:+.0f}{NO_BREAK}%".replace("-", MINUS)


def figure(value, digits=3):
    value = number(value)
    return "–" if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value, digits=3):
    value = number(value)
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", MINUS)


def size(count):
    """Bytes."""
    count = number(count)
    if count is None:
        return "–"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f}{NO_BREAK}{unit}"
    return f"{count:.0f}{NO_BREAK}bytes"


def duration(seconds):
    if not seconds:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def section(title, body, note=""):
    """note is HTML, title is text."""
    lead = f'<p class="note">{note}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{lead}{body}</section>\n"


def missing(what):
    return f'<p class="note">Not available: {escape(what)}.</p>'


def table(head, rows, css=""):
    """head: [(css class, name)]; rows: HTML. Scrolls sideways where the window is narrow."""
    cells = "".join(f'<th class="{kind}">{escape(name)}</th>' for kind, name in head)
    return (
        f'<div class="scroll"><table class="{css}"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def cell(name, content, css="n"):
    """A figure of a table of class `figures`: where the page is narrow, its name stands before it."""
    return f'<td class="{css}" data-name="{escape(name)}">{content}</td>'


def bar(share, marks=()):
    """A bar of a share in [0, 1], its percent beside it, and marks at other shares."""
    share = number(share)
    width = 0 if share is None else 100 * min(max(share, 0.0), 1.0)
    lines = "".join(f'<span class="mark" style="left:{100 * m:.1f}%"></span>' for m in marks)
    return (
        f'<div class="bar"><span class="track"><span class="fill" style="width:{width:.1f}%">'
        f"</span>{lines}</span><b>{percent(share)}</b></div>"
    )
