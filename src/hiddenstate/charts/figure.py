"""A picture as a figure in HTML."""

from __future__ import annotations

import html
from dataclasses import replace

import numpy as np

from hiddenstate.charts import lines
from hiddenstate.charts.axis import Axis
from hiddenstate.charts.heat import heat
from hiddenstate.charts.picture import Picture
from hiddenstate.charts.plot import Plot, across, grid, places, rounded

# More bars with names are drawn upright, where pointing at one tells its name.
MOST_BARS = 40
# Maps of more columns take the whole width of a page.
WIDE = 48


def figure(picture: Picture) -> str:
    """Return a figure that page.css lays out and page.js brings to life."""
    if not any(np.size(each) for each in picture.series.values()):
        drawn = '<p class="note">There is nothing to draw.</p>'
    elif picture.kind == "heat":
        drawn = "".join(heat(picture, name) for name in picture.series)
    elif picture.kind == "bars" and 0 < len(picture.labels) <= MOST_BARS:
        drawn = _named_bars(picture)
    else:
        kinds = {"lines": lines.lines, "histogram": lines.histogram, "bars": _upright}
        drawn = kinds.get(picture.kind, _scatter)(picture).to_html()
    note = f'<p class="note">{html.escape(picture.note)}</p>' if picture.note else ""
    return (
        f'<figure class="chart{" wide" * _is_wide(picture)}">'
        f"<figcaption><h3>{html.escape(picture.title)}</h3>{note}</figcaption>"
        f"{lines.legend(picture)}{drawn}</figure>"
    )


def _is_wide(picture: Picture) -> bool:
    columns = max((np.shape(each)[-1] for each in picture.series.values()), default=0)
    return picture.kind == "heat" and columns > WIDE


def _upright(picture: Picture) -> Plot:
    return lines.upright(replace(picture, columns=picture.columns or picture.labels))


def _named_bars(picture: Picture) -> str:
    """Return a line of text for each bar: name, bar, value; so it is a table as well."""
    values = {name: np.asarray(each, float) for name, each in picture.series.items()}
    axis = Axis.around(np.concatenate([*values.values(), np.zeros(1)]), log=False)
    if picture.bounds is not None:
        axis = Axis(*picture.bounds)
    zero = float(axis.place(0.0))
    looks, first, rows = lines.look(picture), next(iter(values)), []
    for k, label in enumerate(picture.labels):
        for name, each in values.items():
            left, right = sorted((zero, float(np.nan_to_num(axis.place(each[k]), nan=zero))))
            size = f"margin-left:{100 * left:.2f}%;width:{100 * (right - left):.2f}%"
            said = f'<span class="unseen">{html.escape(name)}</span>' * (len(values) > 1)
            head = f'<th scope="rowgroup" rowspan="{len(values)}">{html.escape(label)}</th>'
            rows.append(
                f'<tr>{head * (name == first)}<td class="bar">{said}'
                f'<i class="{looks[name]}" style="{size}"></i></td>'
                f"<td>{_signed(each[k])}</td></tr>"
            )
    titles = (
        f'<thead><tr><th scope="col">{html.escape(picture.x_label)}</th><td></td>'
        f'<th scope="col">{html.escape(picture.y_label)}</th></tr></thead>'
    )
    longest = max(map(len, (picture.x_label, *picture.labels)))
    sizes = f"--label:{longest + 1}ch;--zero:{100 * zero:.2f}%"
    return f'<table class="bars" style="{sizes}">{titles}<tbody>{"".join(rows)}</tbody></table>'


def _signed(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def _scatter(picture: Picture) -> Plot:
    """Return points [N, 2]; with the unit circle, both axes have one scale."""
    points = {name: np.asarray(each, float) for name, each in picture.series.items()}
    every = np.concatenate(list(points.values()))
    if picture.circle:
        reach = 1.08 * max(1.0, float(np.abs(every[np.isfinite(every)]).max(initial=0.0)))
        x_axis = y_axis = Axis(-reach, reach)
        radius = across(1 / (2 * reach))
        circle = f'<ellipse class="circle" cx="500" cy="500" rx="{radius}" ry="{radius}"/>'
    else:
        x_axis = Axis.around(every[:, 0], log=picture.log_x, margin=0.05)
        y_axis = Axis.around(every[:, 1], log=picture.log_y, margin=0.05)
        circle = ""
    marks, told = [grid(x_axis, y_axis), circle], []
    for name, classes in lines.look(picture).items():
        x, y = x_axis.place(points[name][:, 0]), y_axis.place(points[name][:, 1])
        marks.append(f'<path class="dot {classes}" d="{lines.dots(x, y)}"/>')
        told.append([name, *map(rounded, (x, y, *points[name].T))])
    return Plot(
        marks="".join(marks),
        x_label=picture.x_label,
        y_label=picture.y_label,
        x_ticks=places(x_axis),
        y_ticks=places(y_axis),
        spoken=_spoken_points(picture),
        data={"kind": "points", "x": picture.x_label, "y": picture.y_label, "series": told},
        style="--height:auto;aspect-ratio:1;max-width:26rem" if picture.circle else "",
    )


def _spoken_points(picture: Picture) -> str:
    told = [f"{picture.title}. {picture.y_label} against {picture.x_label}."]
    for name, each in picture.series.items():
        points = np.asarray(each, float)
        if not len(points):
            continue
        said = f"{name}: {len(points)} points"
        if picture.circle:
            size = np.hypot(points[:, 0], points[:, 1])
            said += (
                f", {int((size > 1).sum())} outside the unit circle, the largest {size.max():.3g}"
            )
        told.append(said + ".")
    return " ".join(told)
