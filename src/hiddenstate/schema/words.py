"""Text cut into words and marks, and put together again."""

from __future__ import annotations

import re

# Stands on the side where a mark touches its neighbour (the joiner of OpenNMT's tokenizer).
JOINER = "\uffed"
NEWLINE = "\n"

# A word may hold apostrophes, hyphens, and points between digits: don't, twenty-one, 3.5.
_PIECE = re.compile(r"\n|\w+(?:['’\-]\w+|(?<=\d)[.,](?=\d)\w+)*|[^\w\s]")


def cut(text: str) -> list[str]:
    """Return words, marks (all that is neither word nor space) and line ends, in their order.

    A mark carries a JOINER on each side that touches its neighbour, so that `separator` gives the
    text back, but for the kind and number of its spaces. A JOINER in the text counts as a space.

    >>> [piece.replace(JOINER, "_") for piece in cut("Wait,  don't (yet)!")]
    ['Wait', '_,', "don't", '(_', 'yet', '_)_', '_!']
    """
    text = text.replace(JOINER, " ")
    pieces = []
    for match in _PIECE.finditer(text):
        piece, start, end = match.group(), match.start(), match.end()
        if piece != NEWLINE and not (piece[0].isalnum() or piece[0] == "_"):
            if start and not text[start - 1].isspace():
                piece = JOINER + piece
            if end < len(text) and not text[end].isspace():
                piece += JOINER
        pieces.append(piece)
    return pieces


def separator(previous: str | None, piece: str) -> str:
    """Return what stands between a piece and the one before it (None: the text begins)."""
    touch = previous is None or NEWLINE in (previous, piece)
    return "" if touch or str(previous).endswith(JOINER) or piece.startswith(JOINER) else " "


def bare(piece: str) -> str:
    """Return a piece as it stands in the text."""
    return piece.strip(JOINER)
