"""Lines, histograms and upright bars over one axis."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

import numpy as np

from hiddenstate.charts.axis import Axis, Floats
from hiddenstate.charts.colours import NAMED, SERIES
from hiddenstate.charts.picture import Picture
from hiddenstate.charts.plot import Plot, across, down, grid, places, rounded

# A line of more points is drawn by the extremes of as many groups of neighbours.
MOST_POINTS = 600
# Up to here each point of a line has a dot.
MOST_DOTS = 40


def look(picture: Picture) -> dict[str, str]:
    """Return the CSS classes of each series: its colour, its dash, whether it is drawn thin."""
    taken = {NAMED[name] for name in picture.series if name in NAMED}
    free = iter([k for k in range(SERIES) if k not in taken] + list(range(SERIES, 1000)))
    looks = {}
    for name in picture.series:
        if name in picture.aside:
            looks[name] = f"aside d{1 + picture.aside.index(name) % 3}"
            continue
        k = NAMED[name] if name in NAMED else next(free)
        looks[name] = f"s{k % SERIES} d{k // SERIES % 4}"
    return looks


def legend(picture: Picture) -> str:
    """Return names beside samples of their lines; nothing for a single series."""
    if len(picture.series) < 2 or picture.kind == "heat":
        return ""
    sample = "M9 3h.01" if picture.kind == "scatter" else "M1 3H17"
    kind = "dot" if picture.kind == "scatter" else "line"
    names = "".join(
        f'<li><svg class="sample" viewBox="0 0 18 6" aria-hidden="true">'
        f'<path class="{kind} {look}" d="{sample}"/></svg>{html.escape(name)}</li>'
        for name, look in look(picture).items()
    )
    return f'<ul class="legend">{names}</ul>'


def lines(picture: Picture) -> Plot:
    """Return a line for each series."""
    size = max((len(each) for each in picture.series.values()), default=0)
    x = np.arange(size, dtype=float) if picture.x is None else np.asarray(picture.x, float)
    x_axis = Axis.around(x, log=picture.log_x, margin=0.02 if size <= MOST_DOTS else 0.0)
    y_axis = _y_axis(picture)
    marks = [grid(None if picture.columns else x_axis, y_axis), *_shade(picture, x_axis)]
    for name, classes in look(picture).items():
        values = np.asarray(picture.series[name], float)
        at, y = x_axis.place(x[: len(values)]), y_axis.place(values)
        if name in picture.spread:
            around = np.asarray(picture.spread[name], float)
            ends = y_axis.place(values - around), y_axis.place(values + around)
            marks.append(f'<path class="line thin {classes}" d="{_bars(at, *ends)}"/>')
        marks.append(f'<path class="line {classes}" d="{path(*_thinned(at, y))}"/>')
        if len(values) <= MOST_DOTS and name not in picture.aside:
            marks.append(f'<path class="dot {classes}" d="{dots(at, y)}"/>')
    ticks = _named(picture.columns, x_axis.place(x)) if picture.columns else places(x_axis)
    return Plot(
        marks="".join(marks),
        x_label=picture.x_label,
        y_label=picture.y_label,
        x_ticks=ticks,
        y_ticks=places(y_axis),
        spoken=spoken(picture),
        data=_data(picture, x, x_axis.place(x)),
        named=bool(picture.columns),
    )


def histogram(picture: Picture) -> Plot:
    """Return the outline of each series' counts over the edges in `x`."""
    size = max((len(each) for each in picture.series.values()), default=0)
    given = picture.x is not None
    edges = np.asarray(picture.x, float) if given else np.arange(size + 1) - 0.5
    x_axis = Axis.around(edges, log=picture.log_x)
    y_axis = _y_axis(picture, zero=True)
    marks = [grid(x_axis, y_axis)]
    at = x_axis.place(edges)
    filled = len(picture.series) == 1
    for name, classes in look(picture).items():
        y = y_axis.place(np.asarray(picture.series[name], float))
        y = np.where(np.isnan(y), 0.0, y)
        steps = "".join(f"V{down(h)}H{across(right)}" for h, right in zip(y, at[1:], strict=True))
        outline = f"M{across(at[0])} {down(0)}{steps}V{down(0)}"
        marks.append(f'<path class="line {"filled " * filled}{classes}" d="{outline}"/>')
    middle = (edges[:-1] + edges[1:]) / 2
    return Plot(
        marks="".join(marks),
        x_label=picture.x_label,
        y_label=picture.y_label,
        x_ticks=places(x_axis),
        y_ticks=places(y_axis),
        spoken=spoken(picture),
        data=_data(picture, middle, x_axis.place(middle)),
    )


def upright(picture: Picture) -> Plot:
    """Return bars from zero upwards or downwards, one for each value."""
    size = max((len(each) for each in picture.series.values()), default=0)
    x = np.arange(size, dtype=float) if picture.x is None else np.asarray(picture.x, float)
    x_axis = Axis(-0.5, max(size, 1) - 0.5)
    y_axis = _y_axis(picture, zero=True)
    zero = 0.0 if y_axis.log else float(y_axis.place(0.0))
    count = len(picture.series)
    marks = [grid(None, y_axis), f'<path class="zero" d="M0 {down(zero)}H1000"/>']
    for k, (name, classes) in enumerate(look(picture).items()):
        y = y_axis.place(np.asarray(picture.series[name], float))
        at = x_axis.place(np.arange(len(y)) - 0.4 + 0.8 * k / count)
        wide = across(0.8 / count / max(size, 1))
        boxes = "".join(
            f"M{across(left)} {down(zero)}V{down(top)}h{wide}V{down(zero)}z"
            for left, top in zip(at, y, strict=True)
            if not np.isnan(top)
        )
        marks.append(f'<path class="box {classes}" d="{boxes}"/>')
    centres = x_axis.place(np.arange(size))
    ticks = (
        _named(picture.columns, centres)
        if picture.columns
        else [(float(x_axis.place(k)), f"{x[k]:g}") for k in _whole(size)]
    )
    return Plot(
        marks="".join(marks),
        x_label=picture.x_label,
        y_label=picture.y_label,
        x_ticks=ticks,
        y_ticks=places(y_axis),
        spoken=spoken(picture),
        data=_data(picture, x, centres),
        named=bool(picture.columns),
    )


def path(x: Floats, y: Floats) -> str:
    """Return an SVG path through the places, broken where one is NaN."""
    parts, open_ = [], False
    for k, (across_, up) in enumerate(zip(x, y, strict=True)):
        if np.isnan(across_) or np.isnan(up):
            open_ = False
            continue
        alone = not open_ and bool(k + 1 == len(y) or np.isnan(y[k + 1]))
        parts.append(f"{'L' if open_ else 'M'}{across(across_)} {down(up)}{'h.01' * alone}")
        open_ = True
    return "".join(parts)


def dots(x: Floats, y: Floats) -> str:
    """Return an SVG path of a line so short at each place that only its round ends are seen."""
    return "".join(
        f"M{across(left)} {down(up)}h.01"
        for left, up in zip(x, y, strict=True)
        if not (np.isnan(left) or np.isnan(up))
    )


def spoken(picture: Picture) -> str:
    """Return in words what the lines show: where they begin and end, how far they reach."""
    told = [f"{picture.title}. {picture.y_label} over {picture.x_label}."]
    for name, each in picture.series.items():
        values = np.asarray(each, float).ravel()
        values = values[np.isfinite(values)]
        if values.size:
            ends = f"from {values[0]:.3g} to {values[-1]:.3g}"
            told.append(f"{name}: {ends}, lowest {values.min():.3g}, highest {values.max():.3g}.")
    return " ".join(told)


def _y_axis(picture: Picture, *, zero: bool = False) -> Axis:
    if picture.bounds is not None:
        return Axis(*picture.bounds, picture.log_y)
    parts = [np.asarray(each, float) for each in picture.series.values()]
    for name, around in picture.spread.items():
        centre = np.asarray(picture.series[name], float)
        parts += [centre - around, centre + around]
    if zero and not picture.log_y:
        axis = Axis.around(np.concatenate([*parts, np.zeros(1)]), margin=0.04)
        below = any((each < 0).any() for each in parts)
        return axis if below else Axis(0.0, axis.high)
    return Axis.around(np.concatenate(parts) if parts else (), log=picture.log_y, margin=0.04)


def _shade(picture: Picture, x_axis: Axis) -> Iterator[str]:
    if picture.beyond is not None:
        left = min(max(float(x_axis.place(picture.beyond)), 0.0), 1.0)
        yield f'<path class="shade" d="M{across(left)} 0H1000V1000H{across(left)}z"/>'


def _bars(at: Floats, low: Floats, high: Floats) -> str:
    low = np.where(np.isnan(low), 0.0, low)  # below a logarithmic axis
    return "".join(
        f"M{across(x)} {down(bottom)}V{down(top)}"
        for x, bottom, top in zip(at, low, high, strict=True)
        if not (np.isnan(x) or np.isnan(top))
    )


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Keep the lowest and highest of each group of neighbours, in their order."""
    if len(y) <= MOST_POINTS:
        return x, y
    kept = []
    for group in np.array_split(np.arange(len(y)), MOST_POINTS // 2):
        own = y[group]
        if np.isnan(own).all():
            kept.append(group[:1])
            continue
        kept.append(np.unique([group[np.nanargmin(own)], group[np.nanargmax(own)]]))
    chosen = np.concatenate(kept)
    return x[chosen], y[chosen]


def _data(picture: Picture, x: Floats, at: Floats) -> dict[str, object]:
    """Return every value, or every so many, by its place."""
    step = -(-len(x) // MOST_POINTS) or 1
    names = list(picture.columns[::step]) or [f"{each:.5g}" for each in x[::step].tolist()]
    return {
        "kind": "columns",
        "x": picture.x_label,
        "at": rounded(at[::step]),
        "names": names,
        "series": [[name, rounded(each[::step])] for name, each in picture.series.items()],
    }


def _named(names: Sequence[str], at: Floats) -> list[tuple[float, str]]:
    return [(float(place), name) for place, name in zip(at, names, strict=True)]


def _whole(count: int) -> list[int]:
    """Return a few of the first count whole numbers."""
    if count <= 0:
        return []
    return [round(value) for value, _ in Axis(0, max(count - 1, 1)).ticks() if value == int(value)]
