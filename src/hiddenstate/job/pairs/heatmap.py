"""An alignment as a heat map: a page that needs no other file, or a picture."""

from __future__ import annotations

from html import escape

from hiddenstate.charts import Picture, document, figure
from hiddenstate.job.pairs.model import Alignment

ENDINGS = (".html", ".svg", ".json")
# Height and width of a cell in pixels; symbols stay readable up to long sentences.
CELL_PIXELS = 26
# Of a picture: height of its letters, their usual width, and what lies around it.
LETTER_PIXELS, WIDTH_PIXELS, MARGIN_PIXELS = 12, 7, 16


def heat_map(alignment: Alignment) -> str:
    """Return the page: source symbols across, target symbols down, the weight in colour."""
    looked = Picture(
        "heat",
        "Where the model looked",
        "source",
        "target",
        {"weight": alignment.weights},
        labels=tuple(map(_visible, alignment.target)),
        columns=tuple(map(_visible, alignment.source)),
        bounds=(0.0, 1.0),
        note="For each symbol that was written, the symbols of the source that it was read from.",
    )
    return document("Where the model looked", figure(looked))


def picture(alignment: Alignment) -> str:
    """Return the heat map as SVG, which pages, papers and slides take in.

    Pointing at a cell tells its weight where the picture stands in a page by itself.
    """
    sources, targets = (
        [_visible(each) for each in side] for side in (alignment.source, alignment.target)
    )
    cell, half, margin = CELL_PIXELS, CELL_PIXELS // 2, MARGIN_PIXELS
    left, top = (
        2 * margin + WIDTH_PIXELS * max(map(len, names), default=0) for names in (targets, sources)
    )
    # Turned by 45 degrees, a name is as high as it reaches to the side.
    top = round(top * 0.75)
    width = left + cell * len(sources) + max(top, margin)
    height = top + cell * len(targets) + margin
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="system-ui, sans-serif" '
        f'font-size="{LETTER_PIXELS}" fill="#1f2937">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for k, name in enumerate(sources):
        x, y = left + cell * k + half, top - 6
        turned = f'transform="rotate(-45 {x} {y})"'
        parts.append(f'<text x="{x}" y="{y}" {turned}>{escape(name)}</text>')
    for k, name in enumerate(targets):
        x, y = left - 8, top + cell * k + half + 4
        parts.append(f'<text x="{x}" y="{y}" text-anchor="end">{escape(name)}</text>')
        for j, weight in enumerate(alignment.weights[k].tolist()):
            corner = f'x="{left + cell * j + 1}" y="{top + cell * k + 1}"'
            parts.append(
                f'<rect {corner} width="{cell - 2}" height="{cell - 2}" rx="3" fill="#1d4ed8" '
                f'fill-opacity="{0.04 + 0.96 * weight:.3f}"><title>{escape(name)} looks at '
                f"{escape(sources[j])}: {weight:.3f}</title></rect>"
            )
    return "\n".join([*parts, "</svg>", ""])


def _visible(symbol: str) -> str:
    """Return a symbol without what XML cannot hold."""
    return "".join(each if each.isprintable() else "\N{OPEN BOX}" for each in symbol)
