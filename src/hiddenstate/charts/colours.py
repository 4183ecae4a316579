"""Colours that people with any colour vision can tell apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

SERIES = 5
"""How many series differ in colour, those after them in dash as well; page.css holds both."""
NAMED = {"lstm": 0, "elman": 1, "gru": 2, "attention": 3}
"""Memories keep their place among them in every figure."""

LEVELS = 255
"""Levels of a colour scale; the index after the last one is for what has no value."""
# GnBu of ColorBrewer, light to dark: what is nearly nothing is nearly the paper.
RISING = "f7fcf0 e0f3db ccebc5 a8ddb5 7bccc4 4eb3d3 2b8cbe 0868ac 084081"
# RdBu of ColorBrewer, blue for below zero, white for zero, red for above.
SIGNED = "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f"


def scale(colours: str) -> Bytes:
    """Return [LEVELS, 3] bytes of red, green and blue between the given colours."""
    known = np.array([list(bytes.fromhex(each)) for each in colours.split()], float)
    places = np.linspace(0, len(known) - 1, LEVELS)
    channels = [np.interp(places, np.arange(len(known)), channel) for channel in known.T]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def css(colours: str) -> str:
    """Return the scale as a CSS gradient from left to right."""
    return f"linear-gradient(90deg,{','.join(f'#{each}' for each in colours.split())})"
