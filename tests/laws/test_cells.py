"""Every law over every variant of every registered cell."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hiddenstate.cells import Cell
from tests.laws.cell_cases import families, hold, label
from tests.laws.cell_laws import LAWS


@pytest.mark.parametrize("cells", families(), ids=label)
@pytest.mark.parametrize("law", LAWS, ids=label)
def test_law(law: Callable[[Cell], None], cells: list[Cell]) -> None:
    hold(law, cells)
