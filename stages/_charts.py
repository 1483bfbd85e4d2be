"""Hand-made inline SVG for the report: it takes its colours from the page, so it follows light and dark mode."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 960, 330
LEFT, RIGHT, TOP, BOTTOM = 58, 8, 28, 44
SERIES = (("false_tool_call_rate", "false calls", "false"), ("missed_call_rate", "missed calls", "missed"))
_NARROW = 92.0  # widest bar: with few models, wider ones would look like a wall


def percent(rate: float | None) -> str:
    """A rate for people: 51.2 %, and a dash where there was nothing to count."""
    return "-" if rate is None else f"{100 * rate:.1f} %"


def interval(ends: Sequence[float] | None) -> str:
    """An interval of a rate in percent: [45.7, 56.6], or nothing."""
    return "" if ends is None else f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"


def points(difference: float | None, ends: Sequence[float] | None) -> str:
    """A difference of two rates in percentage points with its interval: -57.5 points [-62.6, -52.1], or nothing."""
    if difference is None or ends is None:
        return ""
    return f"{100 * difference:+.1f} points [{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]"


def error_rates(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Grouped bars of both error rates by model, each with its interval."""
    top, step = _scale(metrics)
    floor = HEIGHT - BOTTOM
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(metrics))
    width = min(_NARROW, 0.3 * slot)

    def y(rate: float) -> float:
        return round(floor - (floor - TOP) * rate / top, 1)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(_spoken(metrics))}">'
    ]
    for tick in (step * number for number in range(round(top / step) + 1)):
        kind = "grid" if tick else "axis"
        parts.append(f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 10}" y="{y(tick) + 4:.1f}" text-anchor="end">{100 * tick:g} %</text>'
        )
    for place, (model, fields) in enumerate(metrics.items()):
        middle = LEFT + slot * (place + 0.5)
        name = html.escape(model)
        parts.append(f'<text class="name" x="{middle:.1f}" y="{HEIGHT - 16}" text-anchor="middle">{name}</text>')
        for field, _, tone in SERIES:
            x = middle - width - 4 if tone == "false" else middle + 4
            rate, ends = fields[field], fields[f"{field}_ci"]
            low, high = (y(ends[0]), y(ends[1])) if ends else (floor, floor)
            at = x + width / 2
            if ends:
                parts += [_bar(x, width, y(rate), floor, tone), _whisker(at, low, high)]
            # Above the whisker, so that neither hides the other.
            parts.append(
                f'<text class="value" x="{at:.1f}" y="{high - 8:.1f}" text-anchor="middle">{percent(rate)}</text>'
            )
    return "".join(parts) + "</svg>"


def _bar(x: float, width: float, top: float, floor: float, tone: str) -> str:
    """A bar with round upper corners that stands on the axis."""
    r = min(4.0, floor - top)
    shape = (
        f"M{x:.1f} {floor}V{top + r:.1f}q0 {-r:.1f} {r:.1f} {-r:.1f}h{width - 2 * r:.1f}"
        f"q{r:.1f} 0 {r:.1f} {r:.1f}V{floor}z"
    )
    return f'<path class="bar {tone}" d="{shape}"/>'


def _whisker(x: float, low: float, high: float) -> str:
    return f'<path class="whisker" d="M{x:.1f} {low}V{high}M{x - 6:.1f} {high}h12M{x - 6:.1f} {low}h12"/>'


def _scale(metrics: Mapping[str, Mapping[str, Any]]) -> tuple[float, float]:
    """Top of the axis and distance of its lines: at most five round steps that hold every interval."""
    highest = max((fields[f"{name}_ci"] or (0.0, 0.0))[1] for fields in metrics.values() for name, *_ in SERIES)
    step = next((step for step in (0.01, 0.02, 0.05, 0.1) if highest <= 5 * step), 0.2)
    return min(1.0, step * max(1, math.ceil(highest / step - 1e-9))), step


def _spoken(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The chart in words, for those who do not see it."""
    return "Error rates by model. " + " ".join(
        f"{model}: " + ", ".join(f"{label} {percent(fields[field])}" for field, label, _ in SERIES) + "."
        for model, fields in metrics.items()
    )
