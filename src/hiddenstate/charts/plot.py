"""The frame of a plot as HTML: grid, ticks and names around what is drawn inside.

What is drawn is an SVG of 1000 by 1000 that is stretched to the space there is, with lines that
keep their width; text stands beside it as HTML, at places in per cent. So the same plot fits a
telephone and a wide screen, and its letters are never scaled.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hiddenstate.charts.axis import Axis, Floats

SIDE = 1000
"""Width and height of the drawing in its own unit."""

# Width in pixels that a name beside its neighbours needs when it is written upwards, and the least
# width of a plot in which page.css shows the names of a class: c everywhere.
NAME_PIXELS = 15
WIDTHS_PIXELS = {"a": 880, "b": 400, "c": 270}
LONGEST_NAME = 22
# Names up to this length are not turned.
SHORT_NAME = 2


@dataclass(frozen=True)
class Plot:
    """A drawing with what stands around it.

    marks:   SVG within SIDE by SIDE, y downwards
    x_ticks: places from left to right, 0 to 1, and their texts; y_ticks from bottom to top
    named:   the texts of x_ticks are names, written upwards
    spoken:  what is to be seen, for those who do not see it
    data:    what page.js reads to tell single values
    style:   CSS of the area that is drawn in
    key:     HTML of a colour scale, above the area
    most_pixels: the widest that the area becomes; 0: as wide as there is space
    """

    marks: str
    x_label: str
    y_label: str
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    spoken: str
    data: Mapping[str, Any]
    named: bool = False
    style: str = ""
    key: str = ""
    most_pixels: int = 0

    def to_html(self) -> str:
        """Return the plot as HTML."""
        left = max((len(text) for _, text in self.y_ticks), default=0)
        below = max((len(text) for _, text in self.x_ticks), default=0)
        turned = self.named and below > SHORT_NAME
        size = f"--left:{min(left, LONGEST_NAME) + 1}ch;--below:{min(below, LONGEST_NAME) * turned}"
        if self.most_pixels:
            size += f";max-width:calc({self.most_pixels}px + var(--left) + .75rem)"
        return (
            f'<div class="plot" style="{size}">'
            f'<div class="above"><span>{html.escape(self.y_label)}</span>{self.key}</div>'
            f'<div class="area" role="img" tabindex="0" aria-label="{html.escape(self.spoken)}"'
            f' style="{self.style}">'
            f'<svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" aria-hidden="true">'
            f"{self.marks}</svg>"
            f"{self._texts(turned)}</div>"
            f'<div class="below"><p class="readout" aria-live="polite"></p>'
            f"<span>{html.escape(self.x_label)}</span></div>"
            f'<script type="application/json">{embedded(self.data)}</script></div>'
        )

    def _texts(self, turned: bool) -> str:
        parts = [
            f'<span class="y" style="bottom:{100 * place:.2f}%">{_name(text)}</span>'
            for place, text in self.y_ticks
        ]
        shown = widths(len(self.x_ticks)) if self.named else [""] * len(self.x_ticks)
        for (place, text), width in zip(self.x_ticks, shown, strict=True):
            if width is not None:
                kind = f"x {'name ' * turned}{width}".strip()
                parts.append(
                    f'<span class="{kind}" style="left:{100 * place:.2f}%">{_name(text)}</span>'
                )
        return "".join(parts)


def widths(count: int) -> list[str | None]:
    """Return for each of count names the class of plots wide enough to show it; None for none.

    >>> widths(4), widths(20)[:5]
    (['c', 'c', 'c', 'c'], ['c', 'b', 'c', 'b', 'c'])
    """
    classes: list[str | None] = [None] * count
    stride = 1
    for name, pixels in WIDTHS_PIXELS.items():
        while count * NAME_PIXELS > pixels * stride:
            stride *= 2
        classes[::stride] = [name] * len(classes[::stride])
    return classes


def grid(x_axis: Axis | None, y_axis: Axis | None) -> str:
    """Return faint lines at the ticks of the axes."""
    vertical = [] if x_axis is None else [place for place, _ in places(x_axis)]
    level = [] if y_axis is None else [place for place, _ in places(y_axis)]
    parts = [f"M{across(place)} 0V{SIDE}" for place in vertical]
    parts += [f"M0 {down(place)}H{SIDE}" for place in level]
    return f'<path class="grid" d="{"".join(parts)}"/>'


def places(axis: Axis) -> list[tuple[float, str]]:
    """Return the ticks of an axis with places from 0 to 1."""
    return [(float(axis.place(value)), text) for value, text in axis.ticks()]


def across(place: float) -> str:
    """Return a place from left to right in the drawing's unit."""
    return f"{place * SIDE:.1f}".removesuffix(".0")


def down(place: float) -> str:
    """Return a place from bottom to top in the drawing's unit, which counts downwards."""
    return across(1 - place)


def rounded(values: ArrayLike, digits: int = 4) -> list[float | None]:
    """Return numbers with few digits, for JSON; None for what is no finite number."""
    flat: Floats = np.asarray(values, float)
    return [float(f"{each:.{digits}g}") if np.isfinite(each) else None for each in flat.tolist()]


def embedded(value: Any) -> str:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _name(text: str) -> str:
    short = text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"
    return html.escape(short)
