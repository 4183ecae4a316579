"""Every fourth section of the guide, from the first; see guide.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journeys.guide import part, run_section


@pytest.mark.parametrize("title", part(1))
def test_the_commands_of_a_section_run(title: str, guide: Path) -> None:
    run_section(title, guide)
