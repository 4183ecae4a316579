"""Heat maps, as images of one pixel for each value that the browser stretches."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import numpy as np

from hiddenstate.charts.axis import Axis, Floats
from hiddenstate.charts.colours import LEVELS, RISING, SIGNED, Bytes, css, scale
from hiddenstate.charts.picture import Picture
from hiddenstate.charts.plot import Plot, places
from hiddenstate.charts.png import png

# More cannot be told apart on a screen, and a report has to stay small.
MOST_ROWS, MOST_COLUMNS = 64, 256
# Above this, names of columns are not written; pointing at one tells them.
MOST_NAMES = 128
# The widest that a cell becomes.
CELL_PIXELS = 48
# Above this, every other name of a row is left out, or more.
MOST_NAMED_ROWS = 32


def heat(picture: Picture, name: str) -> str:
    """Return the heat map of one series, with its colour scale."""
    values = np.asarray(picture.series[name], float)
    shape = values.shape
    labels, columns = picture.labels, picture.columns
    rows = np.unique(np.linspace(0, shape[0] - 1, min(shape[0], MOST_ROWS)).round().astype(int))
    width = -(-shape[1] // MOST_COLUMNS) or 1
    starts = np.arange(0, shape[1], width)
    shown = _block_means(values[rows], width)
    low, high, colours = _scale(picture, values)
    levels = _levels(shown, low, high)
    encoded = base64.b64encode(png(levels, scale(colours))).decode()
    image = (
        f'<image href="data:image/png;base64,{encoded}" width="1000" height="1000" '
        'preserveAspectRatio="none"/>'
    )
    starts_of = [f"{start:g}" for start in _x(picture, shape[1])[starts].tolist()]
    names = [columns[k] for k in starts] if columns else starts_of
    row_names = [labels[k] if labels else str(k) for k in rows]
    plot = Plot(
        marks=image,
        x_label=picture.x_label,
        y_label=picture.y_label,
        x_ticks=_ticks(names, _x(picture, shape[1]), width, bool(columns)),
        y_ticks=_row_ticks(row_names, shape[0], bool(labels)),
        spoken=_spoken(picture, name, values),
        data={
            "kind": "cells",
            "x": picture.x_label,
            "y": picture.y_label,
            "names": names,
            "rows": row_names,
            "low": low,
            "high": high,
            "levels": base64.b64encode(levels.tobytes()).decode(),
        },
        named=bool(columns) and len(names) <= MOST_NAMES,
        style=f"--height:{_height(len(rows), bool(labels))}px",
        most_pixels=len(names) * CELL_PIXELS,
        key=_key(low, high, colours),
    )
    title = f"<h4>{html.escape(name)}</h4>" if len(picture.series) > 1 else ""
    return f"{title}{plot.to_html()}{_told(shape, rows, width, picture)}"


def _x(picture: Picture, count: int) -> Floats:
    return np.arange(count, dtype=float) if picture.x is None else np.asarray(picture.x, float)


def _block_means(values: Floats, width: int) -> Floats:
    """Return the mean of each `width` neighbouring columns, of what is finite in them."""
    starts = np.arange(0, values.shape[1], width)
    if not starts.size:
        return values
    finite = np.isfinite(values)
    sums = np.add.reduceat(np.where(finite, values, 0.0), starts, axis=1)
    counts = np.add.reduceat(finite, starts, axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _scale(picture: Picture, values: Floats) -> tuple[float, float, str]:
    """Return lowest and highest value of the colours, and the colours: signed ones around 0."""
    axis = Axis.around(values) if picture.bounds is None else Axis(*picture.bounds)
    if axis.low < 0 < axis.high:
        most = max(-axis.low, axis.high)
        return -most, most, SIGNED
    return axis.low, axis.high, RISING


def _levels(values: Floats, low: float, high: float) -> Bytes:
    share = np.clip((values - low) / (high - low), 0, 1) * (LEVELS - 1)
    return np.where(np.isnan(share), LEVELS, np.nan_to_num(share).round()).astype(np.uint8)


def _ticks(names: Sequence[str], x: Floats, width: int, named: bool) -> list[tuple[float, str]]:
    count = len(names)
    if named and count <= MOST_NAMES:
        return [((k + 0.5) / count, name) for k, name in enumerate(names)]
    if not x.size or np.any(np.diff(x) <= 0):
        return []
    whole = [k for k, _ in Axis(0, max(x.size - 1, 1)).ticks() if k == int(k) and k < x.size]
    return [((k // width + 0.5) / count, f"{x[int(k)]:g}") for k in whole]


def _row_ticks(names: Sequence[str], rows: int, named: bool) -> list[tuple[float, str]]:
    """Return names, or round numbers, of rows from the top downwards."""
    count = len(names)
    if named:
        step = -(-count // MOST_NAMED_ROWS) or 1
        return [(1 - (k + 0.5) / count, names[k]) for k in range(0, count, step)]
    numbers = [k for k, _ in Axis(0, max(rows - 1, 1)).ticks() if k == int(k) and k < rows]
    return [(1 - (k + 0.5) / rows, f"{k:g}") for k in numbers]


def _height(rows: int, named: bool) -> int:
    return max(min(rows, MOST_NAMED_ROWS) * 22, 60) if named else min(max(rows * 12, 90), 384)


def _key(low: float, high: float, colours: str) -> str:
    ticks = "".join(
        f'<span style="left:{100 * place:.1f}%">{text}</span>'
        for place, text in places(Axis(low, high))
    )
    return f'<div class="key"><i style="background:{css(colours)}"></i>{ticks}</div>'


def _told(shape: tuple[int, ...], rows: Bytes, width: int, picture: Picture) -> str:
    """Return what was left out of a map too large to be shown."""
    told = []
    if len(rows) < shape[0]:
        told.append(f"{len(rows)} of {shape[0]} rows are shown ({picture.y_label}).")
    if width > 1:
        told.append(f"Each column is the mean of {width} neighbours.")
    return f'<p class="note">{html.escape(" ".join(told))}</p>' if told else ""


def _spoken(picture: Picture, name: str, values: Floats) -> str:
    rows, columns = values.shape
    said = f"{picture.title}, {name}: heat map of {rows} rows ({picture.y_label}) and {columns} "
    finite = values[np.isfinite(values)]
    span = f" Values from {finite.min():.3g} to {finite.max():.3g}." if finite.size else ""
    return f"{said}columns ({picture.x_label}).{span} Arrow keys tell single values."
