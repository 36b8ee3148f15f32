"""Draws the demo's plot as SVG, by hand: throughput over time, with the moves."""

import math
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 1120, 460
LEFT, RIGHT, TOP, BOTTOM = 76, 28, 96, 62
FONT = "font-family=\"'Inter','Segoe UI','Helvetica Neue',Arial,sans-serif\""
INK, QUIET, GRID, PAPER = "#1d2733", "#66727f", "#e4e9ee", "#ffffff"
BLUE, RED = "#2667c9", "#c8352b"
# One light tint per network, so that it shows where the node was.
TINTS = {"home": "#eef6ee", "fa1": "#eef2fb", "fa2": "#f5effa", "co-located": "#fdf4e7"}


@dataclass
class Mark:
    """A move: seconds from the start, where to, and what it cost."""

    at: float
    target: str
    outage_ms: float
    lost: int


def ticks(top: float, count: int) -> list[float]:
    """Round values from 0 up to the first at or above `top`, about `count` of them."""
    if top <= 0:
        return [0.0, 1.0]
    rough = top / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    return [round(index * step, 10) for index in range(math.ceil(top / step - 1e-9) + 1)]


def draw(rates: list[float], width_s: float, origin: str, marks: list[Mark], title: str, subtitle: str) -> str:
    """The SVG text. `rates` are MB/s of consecutive bins, each `width_s` seconds wide."""
    duration = max(len(rates) * width_s, 1e-9)
    y_values = ticks(max(rates, default=0) * 1.04, 5)
    top = y_values[-1]
    plot_w, plot_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(seconds: float) -> float:
        return LEFT + plot_w * min(max(seconds / duration, 0), 1)

    def y(rate: float) -> float:
        return TOP + plot_h * (1 - rate / top)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
           f'height="{HEIGHT}" role="img" {FONT}>',
           f"<title>{escape(title)}</title>",
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
           f'<text x="{LEFT}" y="34" font-size="19" font-weight="600" fill="{INK}">{escape(title)}</text>',
           f'<text x="{LEFT}" y="56" font-size="13" fill="{QUIET}">{escape(subtitle)}</text>']

    # Where the node was.
    stays = [(0.0, origin)] + [(mark.at, mark.target) for mark in marks]
    for (start, network), end in zip(stays, [at for at, _ in stays[1:]] + [duration]):
        if end <= start:
            continue
        out.append(f'<rect x="{x(start):.1f}" y="{TOP}" width="{x(end) - x(start):.1f}" height="{plot_h}" '
                   f'fill="{TINTS.get(network, "#f4f4f4")}"/>')
        out.append(f'<text x="{(x(start) + x(end)) / 2:.1f}" y="{TOP + plot_h - 10}" font-size="12" '
                   f'text-anchor="middle" fill="{QUIET}">{escape(network)}</text>')

    # Axes.
    for value in y_values:
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
                   f'stroke="{QUIET if value == 0 else GRID}" stroke-width="1"/>')
        out.append(f'<text x="{LEFT - 10}" y="{y(value) + 4:.1f}" font-size="12" text-anchor="end" '
                   f'fill="{QUIET}">{value:g}</text>')
    for value in [tick for tick in ticks(duration, 10) if tick <= duration]:
        out.append(f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP + plot_h}" y2="{TOP + plot_h + 5}" '
                   f'stroke="{QUIET}"/>')
        out.append(f'<text x="{x(value):.1f}" y="{TOP + plot_h + 20}" font-size="12" text-anchor="middle" '
                   f'fill="{QUIET}">{value:g}</text>')
    out.append(f'<text x="{LEFT + plot_w / 2:.1f}" y="{HEIGHT - 16}" font-size="13" text-anchor="middle" '
               f'fill="{INK}">seconds</text>')
    out.append(f'<text transform="translate(22 {TOP + plot_h / 2:.1f}) rotate(-90)" font-size="13" '
               f'text-anchor="middle" fill="{INK}">received, MB/s</text>')

    # Throughput: a step per bin.
    points = []
    for index, rate in enumerate(rates):
        points += [(x(index * width_s), y(rate)), (x((index + 1) * width_s), y(rate))]
    if points:
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        base = f"{points[-1][0]:.1f},{y(0):.1f} {points[0][0]:.1f},{y(0):.1f}"
        out.append(f'<polygon points="{line} {base}" fill="{BLUE}" fill-opacity="0.16"/>')
        out.append(f'<polyline points="{line}" fill="none" stroke="{BLUE}" stroke-width="1.6" '
                   'stroke-linejoin="round"/>')

    # Moves.
    for mark in marks:
        at = x(mark.at)
        anchor, shift = ("end", 4) if at > WIDTH - RIGHT - 130 else ("start", -4)
        out.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 2}" y2="{TOP + plot_h}" stroke="{RED}" '
                   'stroke-width="1.4" stroke-dasharray="4 3"/>')
        out.append(f'<text x="{at + shift:.1f}" y="{TOP - 8}" font-size="12" text-anchor="{anchor}" fill="{RED}">'
                   f'to {escape(mark.target)}: {mark.outage_ms:.0f} ms, {mark.lost} lost</text>')

    # Legend.
    legend_y = 30
    legend_x = WIDTH - RIGHT - 306
    out.append(f'<rect x="{legend_x}" y="{legend_y - 9}" width="22" height="10" fill="{BLUE}" fill-opacity="0.16"/>'
               f'<line x1="{legend_x}" x2="{legend_x + 22}" y1="{legend_y - 9}" y2="{legend_y - 9}" stroke="{BLUE}" '
               'stroke-width="1.8"/>'
               f'<text x="{legend_x + 29}" y="{legend_y}" font-size="12" fill="{INK}">'
               f'TCP download, per {width_s * 1000:.0f} ms</text>'
               f'<line x1="{legend_x + 204}" x2="{legend_x + 226}" y1="{legend_y - 4}" y2="{legend_y - 4}" '
               f'stroke="{RED}" stroke-width="1.4" stroke-dasharray="4 3"/>'
               f'<text x="{legend_x + 233}" y="{legend_y}" font-size="12" fill="{INK}">node moves</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"
