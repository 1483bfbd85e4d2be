"""Inline SVG for reports that hold points or runs against each other: trade-off, one setting's effect, training curves.

Each point keeps one colour in all charts, and the page decides how light it is.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from stages._charts import percent

LEFT, RIGHT, TOP, BOTTOM = 58.0, 24.0, 14.0, 46.0  # right of the last tick there is room for half of "100 %"
_FEW = 8  # so many values of a setting stand side by side; more of them lie where they are on the axis


class Dot(NamedTuple):
    """A point in the charts: the few words beside it, its colour, its whole name, both error rates, their intervals."""

    label: str
    hue: int
    name: str
    false: float
    missed: float
    false_ci: Sequence[float]
    missed_ci: Sequence[float]
    chosen: bool = False


class Curve(NamedTuple):
    """What one point logged of one metric: steps and values."""

    name: str
    hue: int
    steps: Sequence[float]
    values: Sequence[float]
    chosen: bool = False


class Plane:
    """A chart with two axes from 0 or the least value to the greatest one."""

    def __init__(self, size: tuple[int, int], x: tuple[float, float], y: tuple[float, float], spoken: str) -> None:
        self.width, self.height = size
        self._x, self._y = x, y
        self.parts = [
            f'<svg class="chart" viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{html.escape(spoken)}">'
        ]

    def x(self, value: float) -> float:
        low, high = self._x
        return round(LEFT + (self.width - LEFT - RIGHT) * (value - low) / ((high - low) or 1), 1)

    def y(self, value: float) -> float:
        low, high = self._y
        floor = self.height - BOTTOM
        return round(floor - (floor - TOP) * (value - low) / ((high - low) or 1), 1)

    def grid(self, ticks: Iterable[float], write: Callable[[float], str]) -> None:
        """Horizontal lines with what they stand for."""
        for tick in ticks:
            y = self.y(tick)
            self.parts.append(f'<line class="grid" x1="{LEFT}" x2="{self.width - RIGHT}" y1="{y}" y2="{y}"/>')
            self._words("tick", LEFT - 10, y + 4, write(tick), "end")

    def below(self, ticks: Iterable[tuple[float, str]], title: str) -> None:
        """What stands below the horizontal axis."""
        floor = self.height - BOTTOM
        self.parts.append(f'<line class="axis" x1="{LEFT}" x2="{self.width - RIGHT}" y1="{floor}" y2="{floor}"/>')
        for place, text in ticks:
            self._words("tick", self.x(place), floor + 18, text, "middle")
        self._words("tick", (LEFT + self.width - RIGHT) / 2, self.height - 6, title, "middle")

    def line(self, kind: str, places: Iterable[tuple[float, float]], style: str = "", title: str = "") -> None:
        """A line through places in the units of the axes."""
        path = "L".join(f"{self.x(x)} {self.y(y)}" for x, y in places)
        said = f"<title>{html.escape(title)}</title>" if title else ""
        self.parts.append(f'<path class="{kind}" d="M{path}"{style}>{said}</path>')

    def dot(self, kind: str, x: float, y: float, radius: float, style: str = "", title: str = "") -> None:
        said = f"<title>{html.escape(title)}</title>" if title else ""
        place = f'cx="{self.x(x)}" cy="{self.y(y)}" r="{radius}"'
        self.parts.append(f'<circle class="{kind}" {place}{style}>{said}</circle>')

    def labels(self, texts: Mapping[tuple[float, float], str]) -> None:
        """A few words beside each place: above to the right, or where they cover no other words or place."""
        taken = [(self.x(x) - 7, self.y(y) - 7, self.x(x) + 7, self.y(y) + 7) for x, y in texts]
        for (x, y), text in texts.items():
            wide = 7.5 * len(text)
            corners = [(self.x(x) + right, self.y(y) + down) for down in (-20, 8) for right in (9, -9 - wide)]
            boxes = [(left, top, left + wide, top + 13) for left, top in corners]
            inside = [box for box in boxes if box[0] >= 0 and box[2] <= self.width] or boxes
            free = [box for box in inside if not any(_overlap(box, other) for other in taken)]
            left, _, _, floor = box = (free or inside)[0]
            taken.append(box)
            self._words("value", left, floor - 2, text, "start")

    def _words(self, kind: str, x: float, y: float, text: str, anchor: str) -> None:
        at = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
        self.parts.append(f'<text class="{kind}" {at}>{html.escape(text)}</text>')

    def done(self) -> str:
        return "".join(self.parts) + "</svg>"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values from below `low` to above `high`, at most `most` steps apart."""
    rough = (high - low) / most or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def front(dots: Sequence[Dot]) -> list[Dot]:
    """The points that no other one beats in one error without losing in the other, by false calls."""
    kept: list[Dot] = []
    for dot in sorted(dots, key=lambda one: (one.false, one.missed)):
        if not kept or dot.missed < kept[-1].missed:
            kept.append(dot)
    return kept


def trade_off(dots: Sequence[Dot], bounds: tuple[float, float] | None = None) -> str:
    """False against missed calls: every point with both its intervals, the front, and the corner within the bounds,
    of false and of missed calls, where there are any.
    """
    max_false, max_missed = bounds or (0.0, 0.0)
    across = ticks(0.0, max(max_false, *(dot.false_ci[1] for dot in dots)))
    up = ticks(0.0, max(max_missed, *(dot.missed_ci[1] for dot in dots)))
    spoken = "Missed calls against false calls. " + " ".join(
        f"{dot.name}: false {percent(dot.false)}, missed {percent(dot.missed)}." for dot in dots
    )
    plane = Plane((960, 420), (0.0, across[-1]), (0.0, up[-1]), spoken)
    if bounds:
        x, y = plane.x(max_false), plane.y(max_missed)
        plane.parts.append(
            f'<rect class="within" x="{LEFT}" y="{y}" width="{x - LEFT:.1f}" height="{plane.y(0) - y:.1f}">'
            "<title>within both bounds</title></rect>"
        )
    plane.grid(up, _percent)
    plane.below([(tick, _percent(tick)) for tick in across], "false calls")
    steps: list[tuple[float, float]] = []
    for dot in front(dots):  # between two points of the front lies nothing but what the worse of both errors gives
        steps += [(dot.false, steps[-1][1])] if steps else [(dot.false, up[-1])]
        steps.append((dot.false, dot.missed))
    plane.line("front", [*steps, (across[-1], steps[-1][1])])
    for dot in dots:
        plane.line("cross", [(dot.false_ci[0], dot.missed), (dot.false_ci[1], dot.missed)], _hue(dot.hue))
        plane.line("cross", [(dot.false, dot.missed_ci[0]), (dot.false, dot.missed_ci[1])], _hue(dot.hue))
    same: dict[tuple[float, float], list[Dot]] = {}
    for dot in dots:
        same.setdefault((dot.false, dot.missed), []).append(dot)
    for (false, missed), group in same.items():
        chosen = [dot for dot in group if dot.chosen]
        title = f"{'; '.join(dot.name for dot in group)}: false {percent(false)}, missed {percent(missed)}"
        if chosen:
            plane.dot("ring", false, missed, 11)
        plane.dot("dot", false, missed, 6, _hue((chosen or group)[0].hue), title)
    plane.labels({place: ", ".join(dot.label for dot in group) for place, group in same.items()})
    return plane.done()


def dose(key: str, values: Sequence[str], dots: Sequence[Dot]) -> str:
    """Both errors by the value of one setting: each point as a dot, their mean as a line."""
    known = sorted(set(values), key=order)
    numbers = [number for value in known if (number := _number(value)) is not None]
    apart = len(known) <= _FEW or len(numbers) < len(known)
    place = {value: float(known.index(value)) if apart else numbers[known.index(value)] for value in known}
    low, high = min(place.values()), max(place.values())
    room = (high - low) * 0.06 or 1.0
    up = ticks(0.0, max(0.01, *(max(dot.false, dot.missed) for dot in dots)))
    spoken = f"False and missed calls by {key}, means: "
    means: dict[str, list[tuple[float, float]]] = {"false": [], "missed": []}
    for value in known:
        group = [dot for dot, own in zip(dots, values, strict=True) if own == value]
        for tone in means:
            means[tone].append((place[value], sum(getattr(dot, tone) for dot in group) / len(group)))
        spoken += f"{value}: {percent(means['false'][-1][1])} and {percent(means['missed'][-1][1])}; "
    plane = Plane((470, 270), (low - room, high + room), (0.0, up[-1]), spoken)
    plane.grid(up, _percent)
    shown = [(place[value], value) for value in known] if apart else [(tick, f"{tick:g}") for tick in ticks(low, high)]
    plane.below([one for one in shown if low - room <= one[0] <= high + room], key)
    for tone, line in means.items():
        for dot, value in zip(dots, values, strict=True):
            rate = getattr(dot, tone)
            plane.dot(f"faint {tone}", place[value], rate, 4, title=f"{dot.name}: {percent(rate)}")
        if apart:
            plane.line(f"mean {tone}", line)
            for x, y in line:
                plane.dot(tone, x, y, 4.5, title=f"mean {percent(y)}")
    return plane.done()


def curves(label: str, lines: Sequence[Curve], size: tuple[int, int] = (470, 270)) -> str:
    """What was logged while training, a line for each point; that of the recommended one is thick."""
    steps = [step for line in lines for step in line.steps]
    values = [value for line in lines for value in line.values]
    up = ticks(min(values), max(values))
    across = ticks(min(steps), max(steps))
    whose = lines[0].name if len(lines) == 1 else f"{len(lines)} points"
    plane = Plane(size, (min(steps), max(steps)), (up[0], up[-1]), f"{label} while training, of {whose}")
    plane.grid(up, lambda tick: f"{tick:g}")
    plane.below([(tick, f"{tick:g}") for tick in across if min(steps) <= tick <= max(steps)], f"{label}, by step")
    for line in sorted(lines, key=lambda one: one.chosen):
        kind = "curve chosen" if line.chosen else "curve"
        plane.line(kind, list(zip(line.steps, line.values, strict=True)), _hue(line.hue), line.name)
    return plane.done()


def order(value: str) -> tuple[int, float, str]:
    """Numbers by their size, before words."""
    number = _number(value)
    return (1, 0.0, value) if number is None else (0, number, value)


def hues(jobs: Sequence[str]) -> Mapping[str, int]:
    """A colour for each point, as far apart as there are points."""
    return {job: round(20 + 360 * place / len(jobs)) % 360 for place, job in enumerate(jobs)}


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes (left, top, right, bottom) share a place."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _percent(rate: float) -> str:
    return f"{round(100 * rate, 6):g} %"


def _hue(hue: int) -> str:
    return f' style="--h:{hue}"'
