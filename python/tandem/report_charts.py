"""The report's drawings: plain SVG, written by hand so that the same figures give the same bytes.

Colours are CSS classes of report_style.css: charts follow the reader's light or dark mode.
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


def log_ticks(low, high):
    """Powers of ten around [low, high], with 2 and 5 between them where they are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    inner = (1, 2, 5) if last - first <= 2 else (1,)
    ticks = [m * 10.0**e for e in range(first, last + 1) for m in inner]
    below = max((t for t in ticks if t <= low), default=ticks[0])
    above = min((t for t in ticks if t >= high), default=ticks[-1])
    return [t for t in ticks if below <= t <= above]


def tick_text(value):
    return f"{value:g}" if abs(value) < 10000 else f"{value:.0e}".replace("e+0", "e")


class Axes:
    """Maps figures to the drawing; y may be logarithmic."""

    def __init__(self, series, log):
        xs = [x for line in series for x, _ in line["points"]]
        ys = [y for line in series for _, y in line["points"]]
        self.log = log and min(ys) > 0
        self.x_ticks = [t for t in nice_ticks(0, max(xs)) if t <= max(xs)]
        self.y_ticks = log_ticks(min(ys), max(ys)) if self.log else nice_ticks(min(ys), max(ys))
        self.x_range = (0, max(xs))
        self.y_range = (self.scale(self.y_ticks[0]), self.scale(self.y_ticks[-1]))

    def scale(self, y):
        return math.log10(y) if self.log else y

    def x(self, value):
        low, high = self.x_range
        return LEFT + (value - low) / (high - low or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value):
        low, high = self.y_range
        share = (self.scale(value) - low) / (high - low or 1)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def line_chart(series, label, log=False):
    """series: [{"points": [(x, y)], "class": css class}], drawn in order. x is the step."""
    axes = Axes(series, log)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
    ]
    for tick in axes.y_ticks:
        y = fixed(axes.y(tick))
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{y}" dy="4" text-anchor="end">{tick_text(tick)}</text>'
        )
    for tick in axes.x_ticks:
        x = fixed(axes.x(tick))
        parts.append(
            f'<text class="tick" x="{x}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick_text(tick)}</text>'
        )
    parts.append(
        f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">training step</text>'
    )
    for line in series:
        coordinates = " ".join(
            f"{fixed(axes.x(x))},{fixed(axes.y(y))}" for x, y in thin(line["points"])
        )
        parts.append(f'<polyline class="line {line["class"]}" points="{coordinates}"/>')
    return "".join(parts) + "</svg>"


def heat_map(rows, label):
    """rows[layer][head] in [0, 1] or None. Darker is more; the share stands in the cell where it fits."""
    heads = max(len(row) for row in rows)
    left, top = 62, 24
    cell = min(64, max(14, (660 - left) // heads))
    tall = min(cell, 34)
    width, height = left + cell * heads + 2, top + tall * len(rows) + 2
    parts = [
        f'<svg class="heat" viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img" '
        f'aria-label="{escape(label)}">'
    ]
    for head in range(heads):
        if cell >= 24 or head % 4 == 0:
            x = fixed(left + (head + 0.5) * cell)
            parts.append(f'<text class="tick" x="{x}" y="15" text-anchor="middle">{head}</text>')
    parts.append('<text class="tick" x="0" y="15">head</text>')
    for layer, row in enumerate(rows):
        y = top + layer * tall
        parts.append(
            f'<text class="tick" x="0" y="{fixed(y + tall / 2)}" dy="4">layer {layer}</text>'
        )
        for head, share in enumerate(row):
            parts.append(heat_cell(left + head * cell, y, cell, tall, share, layer, head))
    return "".join(parts) + "</svg>"


def heat_cell(x, y, cell, tall, share, layer, head):
    known = share is not None
    opacity = f"{0.06 + 0.94 * min(max(share, 0.0), 1.0):.3f}" if known else "0"
    text = f"{100 * share:.0f} %" if known else "unknown"
    title = f"<title>layer {layer}, head {head}: {text}</title>"
    box = f'x="{x + 1}" y="{y + 1}" width="{cell - 2}" height="{tall - 2}" rx="3"'
    drawn = f'<g>{title}<rect class="cell" {box} fill-opacity="{opacity}"/>'
    if cell >= 40:
        tone = "on-dark" if known and share > 0.55 else "on-light"
        middle = fixed(x + cell / 2)
        drawn += (
            f'<text class="share {tone}" x="{middle}" y="{fixed(y + tall / 2)}" dy="4" '
            f'text-anchor="middle">{100 * share:.0f}</text>'
            if known
            else ""
        )
    return drawn + "</g>"
