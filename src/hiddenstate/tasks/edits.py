"""How much of one sequence has to be edited to become another."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def edit_distance(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Return how many symbols to insert, delete, replace, or swap with a neighbour, at least.

    Damerau-Levenshtein without restriction: symbols may be edited between a swapped pair (Lowrance
    and Wagner 1975, Journal of the ACM 22(2), section 3).

    >>> edit_distance("ca", "abc")
    2
    """
    width = len(other) + 2
    most = len(one) + len(other)
    # Row and column 0 stand for "no such place", 1 for "before the first symbol".
    d = [[most] * width for _ in range(len(one) + 2)]
    for i in range(len(one) + 1):
        d[i + 1][1] = i
    for j in range(len(other) + 1):
        d[1][j + 1] = j
    last_row: dict[Hashable, int] = {}
    for i, symbol in enumerate(one, start=1):
        last_column = 0
        for j, wanted in enumerate(other, start=1):
            row, column = last_row.get(wanted, 0), last_column
            cost = 1
            if symbol == wanted:
                cost, last_column = 0, j
            d[i + 1][j + 1] = min(
                d[i][j] + cost,
                d[i + 1][j] + 1,
                d[i][j + 1] + 1,
                d[row][column] + (i - row - 1) + 1 + (j - column - 1),
            )
        last_row[symbol] = i
    return d[-1][-1]


def edit_similarity(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """Return 1 - edit_distance / length of the longer one; 1 where both are empty."""
    longer = max(len(one), len(other))
    return 1 - edit_distance(one, other) / longer if longer else 1.0
