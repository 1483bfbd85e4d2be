"""False against missed calls of several models as one plot, for evaluate/report.html and for stage=report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from stages._metrics import Interval
from stages._sweep_charts import Dot, hues, trade_off

Fields = Mapping[str, Any]
# A model that misses more of the needed calls chooses nothing, and would squeeze the others into a corner.
_SILENT = 0.9


class Plot(NamedTuple):
    """The plot as SVG, and the models that lie beyond it."""

    svg: str
    beyond: list[str]


def plot(models: Mapping[str, Fields], hue: Mapping[str, int] | None = None) -> Plot | None:
    """One point a model, with both its intervals; None where no model has both rates.

    Models that hardly ever call, as a base model does, are beyond the plot, unless all do.
    """
    hue = hue or hues(list(models))
    dots = [_dot(name, fields, hue[name]) for name, fields in models.items() if _measured(fields)]
    near = [dot for dot in dots if dot.missed <= _SILENT] or dots
    return Plot(trade_off(near), [dot.name for dot in dots if dot not in near]) if dots else None


def _measured(fields: Fields) -> bool:
    return None not in (fields["false_tool_call_rate"], fields["missed_call_rate"])


def _dot(name: str, fields: Fields, hue: int) -> Dot:
    false, missed = fields["false_tool_call_rate"], fields["missed_call_rate"]
    ends: tuple[Interval, Interval] = (fields["false_tool_call_rate_ci"], fields["missed_call_rate_ci"])
    return Dot(name, hue, name, false, missed, *ends)
