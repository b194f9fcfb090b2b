"""Two pictures of an analysis as SVG files, readable on light paper and on dark.

Colours stand in the file's own style sheet and change with the reader's scheme; each line has
a dash of its own besides, and its name at its end. All text is escaped.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tunelm.planning.cost_page import assumed, money, number
from tunelm.planning.costs import Curve

WIDTH, HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 170, 44, 48
_POINTS = 160
_DASHES = ("none", "8 4", "2 3", "10 3 2 3", "5 5", "1 4", "12 4", "6 2 1 2")

_STYLE = """<style>
svg{--ink:#1a1a1a;--soft:#6b6b6b;--line:#d9d9d9;--paper:#fff;--good:#00736b;--bad:#b3261e;
--c0:#0062a3;--c1:#b34700;--c2:#00705a;--c3:#8b2c8f;--c4:#7a5c00;--c5:#3f3fbf;--c6:#a3003c;
--c7:#4d4d4d;font:13px system-ui,sans-serif}
@media (prefers-color-scheme:dark){svg{--ink:#f0f0f0;--soft:#a8a8a8;--line:#3a3a3a;--paper:#151515;
--good:#4fc4b4;--bad:#ff8a80;--c0:#6cb8f0;--c1:#ffa766;--c2:#5fd0b0;--c3:#dd96e2;--c4:#e0c050;
--c5:#a5a5ff;--c6:#ff8fb0;--c7:#c4c4c4}}
.paper{fill:var(--paper)}text{fill:var(--ink)}.soft{fill:var(--soft)}.title{font-weight:600}
.grid{stroke:var(--line);stroke-width:1}
.now{stroke:var(--soft);stroke-dasharray:3 3}.zero{stroke:var(--ink)}
path{fill:none;stroke-width:2.2}.good{fill:var(--good)}.bad{fill:var(--bad)}
</style>"""


def cost_plot(analysis: Mapping[str, Any]) -> str | None:
    """Dollars a month by volume, both in powers of ten; None where no cost is known."""
    routes = [r for r in analysis["routes"] if r.get("curve") and not r["control"]]
    volume = assumed(analysis, "volume")
    curves = [(r["name"], _curve(r["curve"])) for r in routes]
    low, high = volume / 100, volume * 100
    xs = [low * (high / low) ** (i / _POINTS) for i in range(_POINTS + 1)]
    known = [usd for _, curve in curves for x in xs if (usd := curve.at(x)) > 0]
    if not known:
        return None
    bottom, top = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    top = max(top, bottom + 1)

    def x_at(value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * math.log(value / low) / math.log(high / low)

    def y_at(usd: float) -> float:
        tens = max(bottom, math.log10(usd)) if usd > 0 else bottom
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (tens - bottom) / (top - bottom)

    unit = analysis["unit"]
    parts = [_text(_LEFT, 22, f"US dollars a month, by {unit}s a month", "title")]
    parts += _grid(bottom, top, low, high, x_at, y_at)
    parts.append(_rule(x_at(volume), _TOP, x_at(volume), HEIGHT - _BOTTOM, "now"))
    parts.append(_text(x_at(volume) + 4, _TOP + 12, f"{number(volume)} {unit}s", "soft"))
    ends = _spread([y_at(curve.at(high)) for _, curve in curves])
    for i, ((name, curve), y) in enumerate(zip(curves, ends, strict=True)):
        points = " L".join(f"{x_at(x):.1f} {y_at(curve.at(x)):.1f}" for x in xs)
        colour, dash = f"var(--c{i % 8})", _DASHES[i % 8]
        parts.append(f'<path d="M{points}" style="stroke:{colour}" stroke-dasharray="{dash}"/>')
        parts.append(
            f'<text x="{WIDTH - _RIGHT + 8}" y="{y + 4:.1f}" style="fill:{colour}">'
            f"{escape(_short(name, 20))}</text>"
        )
    return _svg(HEIGHT, parts, f"Cost a month of {len(curves)} routes by volume")


def tornado(analysis: Mapping[str, Any]) -> str | None:
    """The lead of the cheapest route at both ends of each assumption; None where none matters.

    A bar that crosses the line at 0 flips the answer, and its part beyond it has another colour.
    """
    swings = [
        s
        for s in analysis["sensitivity"]
        if s["lead_low"] is not None and s["lead_high"] is not None
    ]
    if not swings:
        return None
    leads = [s[side] for s in swings for side in ("lead_low", "lead_high")] + [analysis["lead"]]
    least, most = min(0.0, *leads), max(0.0, *leads)
    span = (most - least) or 1.0
    left, right, row = 250, 30, 42
    height = 96 + row * len(swings)

    def x_at(usd: float) -> float:
        return left + (WIDTH - left - right) * (usd - least) / span

    best = str(analysis["cheapest"])
    parts = [
        _text(20, 24, f"What the next route costs more than {_short(best, 30)}, a month", "title"),
        _text(20, 44, "left of the line another route is the cheapest", "soft"),
    ]
    for i, swing in enumerate(swings):
        parts += _bar(swing, 62 + row * i, x_at)
    now = analysis["lead"]
    parts.append(_rule(x_at(0), 54, x_at(0), height - 30, "zero"))
    parts.append(_rule(x_at(now), 54, x_at(now), height - 30, "now"))
    parts.append(_text(x_at(0), height - 12, "$0", "soft", "middle"))
    if abs(x_at(now) - x_at(0)) > 70:
        parts.append(_text(x_at(now), height - 12, f"now {money(now)}", "soft", "middle"))
    return _svg(height, parts, f"What moves the lead of {best}")


def _bar(swing: Mapping[str, Any], y: float, x_at: Any) -> list[str]:
    a, b = sorted((swing["lead_low"], swing["lead_high"]))
    parts = [
        _text(20, y + 12, _short(swing["title"], 34)),
        _text(20, y + 27, f"{number(swing['low'])} to {number(swing['high'])}", "soft"),
    ]
    for start, end, kind in ((min(a, 0.0), min(b, 0.0), "bad"), (max(a, 0.0), max(b, 0.0), "good")):
        if end > start:
            parts.append(
                f'<rect class="{kind}" x="{x_at(start):.1f}" y="{y:.1f}" '
                f'width="{max(1.0, x_at(end) - x_at(start)):.1f}" height="16" rx="2"/>'
            )
    room = x_at(b) < WIDTH - 130
    text = f"{money(swing['lead_low'])} to {money(swing['lead_high'])}"
    x, anchor = (x_at(b) + 6, "start") if room else (WIDTH - 30, "end")
    parts.append(_text(x, y + (12 if room else 29), text, "soft", anchor))
    return parts


def _grid(bottom: int, top: int, low: float, high: float, x_at: Any, y_at: Any) -> list[str]:
    parts: list[str] = []
    step = max(1, math.ceil((top - bottom) / 8))
    for tens in range(bottom, top + 1, step):
        y = y_at(10.0**tens)
        parts.append(_rule(_LEFT, y, WIDTH - _RIGHT, y, "grid"))
        parts.append(_text(_LEFT - 8, y + 4, money(10.0**tens), "soft", "end"))
    for tens in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1):
        x = x_at(10.0**tens)
        parts.append(_rule(x, _TOP, x, HEIGHT - _BOTTOM, "grid"))
        parts.append(_text(x, HEIGHT - _BOTTOM + 18, number(10.0**tens), "soft", "middle"))
    return parts


def _spread(ys: Sequence[float], apart: float = 16) -> list[float]:
    """The same heights, moved so that names at them do not lie on each other."""
    order = sorted(range(len(ys)), key=lambda i: ys[i])
    placed = list(ys)
    for before, after in itertools.pairwise(order):
        placed[after] = max(placed[after], placed[before] + apart)
    over = max(placed, default=0) - (HEIGHT - _BOTTOM)
    return [y - max(0.0, over) for y in placed]


def _curve(fields: Mapping[str, Any]) -> Curve:
    return Curve(**{**fields, "capacity": fields["capacity"] or math.inf})


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _svg(height: int, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="{escape(label)}">{_STYLE}'
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>' + "".join(parts) + "</svg>\n"
    )
