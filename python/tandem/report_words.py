"""How the report writes numbers and wraps sections."""

from html import escape

from tandem.report_inputs import number

MINUS, NO_BREAK = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"


def percent(value):
    value = number(value)
    return "–" if value is None else f"{100 * value:.0f}{NO_BREAK}%".replace("-", MINUS)


def figure(value, digits=3):
    value = number(value)
    return "–" if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def duration(seconds):
    if not seconds:
        return "–"
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


def bar(share, marks=()):
    """A bar of a share in [0, 1], its percent beside it, and marks at other shares."""
    share = number(share)
    width = 0 if share is None else 100 * min(max(share, 0.0), 1.0)
    lines = "".join(f'<span class="mark" style="left:{100 * m:.1f}%"></span>' for m in marks)
    return (
        f'<div class="bar"><span class="track"><span class="fill" style="width:{width:.1f}%">'
        f"</span>{lines}</span><b>{percent(share)}</b></div>"
    )
