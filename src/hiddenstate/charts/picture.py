"""What a figure shows, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Picture:
    """What a figure shows, in numbers; `hiddenstate.charts.figure` draws it.

    kind:    lines (one for each of `series`), bars, heat (one array [rows, columns]), scatter
             (arrays [N, 2]) or histogram (bin counts, `x` holds the edges)
    x:       places along the horizontal axis; None counts from 0
    labels:  of the rows of a heat map, or of bars
    circle:  the unit circle is drawn behind (eigenvalues)
    columns: names of the places along the horizontal axis, as the events of a history
    bounds:  lowest and highest value that there can be, of a heat map's colours or the vertical
             axis; those of the numbers where None
    spread:  for lines, how far each may lie above and below, by the name of the series
    aside:   names of series to compare with, drawn thin: floors, ceilings, limits
    beyond:  places from here on are shaded, as lengths past those trained on
    note:    a sentence on how to read it
    """

    kind: Literal["lines", "bars", "heat", "scatter", "histogram"]
    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Floats]
    x: Floats | None = None
    labels: tuple[str, ...] = ()
    log_y: bool = False
    circle: bool = False
    columns: tuple[str, ...] = ()
    bounds: tuple[float, float] | None = None
    log_x: bool = False
    spread: Mapping[str, Floats] = field(default_factory=dict)
    aside: tuple[str, ...] = ()
    beyond: float | None = None
    note: str = ""
