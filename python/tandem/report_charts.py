"""The report's drawings: plain SVG, written by hand so that the same figures give the same bytes.

Colours are CSS classes of report_style.css.
"""

import math
from html import escape

WIDTH, HEIGHT = 440, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 34
MAX_POINTS = 160


def fixed(value):
    """A coordinate: short, and the same on every machine."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


def thin(points):
    """At most MAX_POINTS means of neighbours."""
    size = max(1, math.ceil(len(points) / MAX_POINTS))
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def nice_ticks(low, high, count=4):
    """Round numbers that cover [low, high]."""
    if high <= low:
        high = low + max(abs(low), 1e-3) * 0.1
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first = math.floor(low / step)
    return [round(i * step, 12) for i in range(first, math.ceil(high / step) + 1)]


def tick_text(value):
    return f"{value:g}" if abs(value) < 10000 else f"{value:.0e}".replace("e+0", "e")


class Axes:
    """Maps figures to the drawing."""

    def __init__(self, series, last):
        ys = [y for line in series for _, y in line["points"]]
        self.x_ticks = [t for t in nice_ticks(0, last) if t <= last]
        self.y_ticks = nice_ticks(min(ys), max(ys))
        self.x_range, self.y_range = (0, last), (self.y_ticks[0], self.y_ticks[-1])

    def x(self, value):
        low, high = self.x_range
        return LEFT + (value - low) / (high - low or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value):
        low, high = self.y_range
        return HEIGHT - BOTTOM - (value - low) / (high - low or 1) * (HEIGHT - TOP - BOTTOM)


def tick(x, y, anchor, text):
    return f'<text class="tick" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'


def line_chart(series, label, mark=None):
    """series: [{"points": [(x, y)], "class": css class}], drawn in order. x is the step; a dashed
    line stands at the step `mark`."""
    last = max(x for line in series for x, _ in line["points"])
    series = [{**line, "points": thin(line["points"])} for line in series]
    axes, right = Axes(series, last), WIDTH - RIGHT
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for value in axes.y_ticks:
        y = axes.y(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{fixed(y)}" y2="{fixed(y)}"/>'
        )
        parts.append(tick(LEFT - 6, fixed(y + 4), "end", tick_text(value)))
    for value in axes.x_ticks:
        parts.append(tick(fixed(axes.x(value)), HEIGHT - BOTTOM + 16, "middle", tick_text(value)))
    parts.append(tick(right, HEIGHT - 3, "end", "training step"))
    if mark is not None and 0 <= mark <= last:
        x = fixed(axes.x(mark))
        parts.append(f'<line class="stop" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for line in series:
        corners = " ".join(f"{fixed(axes.x(x))},{fixed(axes.y(y))}" for x, y in line["points"])
        parts.append(f'<polyline class="line {line["class"]}" points="{corners}"/>')
    return "".join(parts) + "</svg>"


def heat_map(rows, label, kept=frozenset(), column="head"):
    """rows[layer][head] in [0, 1] or None. Darker is more; the percent stands where it fits. The
    cells (layer, head) of `kept` are framed and say S."""
    heads = max(len(row) for row in rows)
    left, top = 62, 24
    cell = min(64, max(14, (860 - left) // heads))
    tall = min(cell, 34)
    width, height = left + cell * heads + 2, top + tall * len(rows) + 2
    parts = [
        f'<svg viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img" '
        f'aria-label="{escape(label)}">',
        tick(0, 15, "start", column),
    ]
    for head in range(0, heads, 1 if cell >= 24 else 4):
        parts.append(tick(fixed(left + (head + 0.5) * cell), 15, "middle", head))
    for layer, row in enumerate(rows):
        y = top + layer * tall
        parts.append(tick(0, fixed(y + tall / 2 + 4), "start", f"layer {layer}"))
        for head, share in enumerate(row):
            words, box = f"layer {layer}, {column} {head}", (left + head * cell, y, cell, tall)
            keeps = (layer, head) in kept
            parts.append(kept_cell(box, words) if keeps else heat_cell(box, share, words))
    return "".join(parts) + "</svg>"


def kept_cell(box, words):
    x, y, wide, tall = box
    place = f'x="{x + 2}" y="{y + 2}" width="{wide - 4}" height="{tall - 4}" rx="3"'
    middle, base = fixed(x + wide / 2), fixed(y + tall / 2 + 4)
    return (
        f'<g><title>{words}: keeps softmax attention</title><rect class="kept" {place}/>'
        f'<text class="share on-light" x="{middle}" y="{base}" text-anchor="middle">S</text></g>'
    )


def heat_cell(box, share, words):
    """box: x, y, width, height."""
    x, y, wide, tall = box
    if share is None:
        return f"<g><title>{words}: unknown</title></g>"
    opacity = 0.06 + 0.94 * min(max(share, 0.0), 1.0)
    place = f'x="{x + 1}" y="{y + 1}" width="{wide - 2}" height="{tall - 2}" rx="3"'
    drawn = f'<rect class="cell" {place} fill-opacity="{opacity:.3f}"/>'
    if wide >= 40:
        tone = "on-dark" if share > 0.55 else "on-light"
        middle, base = fixed(x + wide / 2), fixed(y + tall / 2 + 4)
        drawn += (
            f'<text class="share {tone}" x="{middle}" y="{base}" text-anchor="middle">'
            f"{100 * share:.0f}</text>"
        )
    return f"<g><title>{words}: {100 * share:.0f} %</title>{drawn}</g>"
