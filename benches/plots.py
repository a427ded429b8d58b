#!/usr/bin/env python3
"""Plots the output of `load --json FILE`: python3 benches/plots.py FILE.json PLOT.svg

`exchange` and `mostly-idle` give latency against load, `idle` gives memory against connections.
Both axes are logarithmic. Requires only the standard library.
"""

import json
import math
import sys
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 80, 210, 40, 60
COLOURS = ["#666666", "#c0392b", "#2471a3", "#1e8449", "#9a7d0a", "#6c3483"]
# By mode: title, label of x, label of y, and the metrics to plot, each with its stroke.
PLOTS = {
    "exchange": (
        "Latency of an exchange", "pairs in a closed loop", "µs",
        [("p50, µs", ""), ("p99, µs", "6 3")],
    ),
    "mostly-idle": (
        "Latency of an exchange beside idle connections", "idle connections", "µs",
        [("p50, µs", ""), ("p99, µs", "6 3")],
    ),
    "idle": (
        "Memory of an idle connection", "connections", "bytes per connection",
        [("total by counters, B", ""), ("server PSS, B", "6 3")],
    ),
}


def series(report, metrics):
    """Lists (name, colour, stroke, points) for each server and metric with positive values."""
    found = []
    names = [server["server"] for server in report["cases"][0]["servers"]]
    for place, name in enumerate(names):
        for metric, stroke in metrics:
            points = []
            for case in report["cases"]:
                value = case["servers"][place]["median"].get(metric)
                # Differences of memory can be negative, which a logarithmic axis cannot show.
                if value is not None and value > 0 and case["load"] > 0:
                    points.append((case["load"], value))
            if points:
                label = f"{name}, {metric.split(',')[0]}"
                found.append((label, COLOURS[place % len(COLOURS)], stroke, points))
    return found


def decades(values):
    """Returns the powers of ten around all values."""
    low = math.floor(math.log10(min(values)))
    high = math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def text(x, y, content, anchor="middle", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{escape(content)}</text>'


def draw(report):
    if report["mode"] not in PLOTS:
        sys.exit(f"no plot for mode {report['mode']}, only for {', '.join(PLOTS)}")
    title, x_label, y_label, metrics = PLOTS[report["mode"]]
    lines = series(report, metrics)
    if not lines:
        sys.exit("no values to plot in the file")
    x_low, x_high = decades([x for *_, points in lines for x, _ in points])
    y_low, y_high = decades([y for *_, points in lines for _, y in points])

    def place(x, y):
        across = (math.log10(x) - x_low) / (x_high - x_low)
        up = (math.log10(y) - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text((LEFT + WIDTH - RIGHT) / 2, 22, title, extra='font-size="15"'),
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 18, x_label),
        text(18, (TOP + HEIGHT - BOTTOM) / 2, y_label,
             extra=f'transform="rotate(-90 18 {(TOP + HEIGHT - BOTTOM) / 2})"'),
    ]
    for power in range(x_low, x_high + 1):
        x, y = place(10**power, 10**y_low)
        out.append(f'<path d="M{x:.1f} {TOP}V{y:.1f}" stroke="#dddddd"/>')
        out.append(text(x, y + 18, f"{10**power:,}"))
    for power in range(y_low, y_high + 1):
        x, y = place(10**x_low, 10**power)
        out.append(f'<path d="M{x:.1f} {y:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        out.append(text(x - 8, y + 4, f"{10**power:,}", "end"))
    for row, (label, colour, stroke, points) in enumerate(lines):
        style = f'stroke="{colour}" stroke-width="2" fill="none" stroke-dasharray="{stroke}"'
        placed = [place(x, y) for x, y in points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
        out.append(f'<path d="M{path}" {style}/>')
        out.extend(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed)
        x, y = WIDTH - RIGHT + 14, TOP + 10 + 20 * row
        out.append(f'<path d="M{x} {y}h24" {style}/>')
        out.append(text(x + 30, y + 4, label, "start"))
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    with open(sys.argv[1], encoding="utf-8") as file:
        report = json.load(file)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(draw(report))


if __name__ == "__main__":
    main()
