"""Laws of what is read once: with another recipe it is what that recipe would have prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hiddenstate.job.families import FAMILIES as ALL
from hiddenstate.job.families import family_of
from hiddenstate.train import read_recipe
from tests.unit.family_sources import FAMILIES
from tests.unit.small_fits import small_log

TASKS = [*FAMILIES, "next_event", "problem:even_pairs:length=4-9"]
OTHERS: dict[str, dict[str, Any]] = {
    "attention": {"cell": "attention", "embedding_size": 2, "layers": 2},
    "elman": {"cell": "elman", "layers": 2, "pool": "max"},
}


def test_every_family_is_tried() -> None:
    assert {family_of([task]).name for task in TASKS} == {family.name for family in ALL}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("task", TASKS)
def test_another_recipe_gives_what_it_would_have_prepared(
    task: str, other: str, tmp_path: Path
) -> None:
    name, content, _, own = FAMILIES.get(task, ("", "", "", {}))
    source: Any = task
    if name:
        source = tmp_path / name
        source.write_text(content)
    elif task == "next_event":
        source = small_log()
    named = {f"model.{name}": value for name, value in OTHERS[other].items()}
    one = read_recipe(None, {"tasks": [task], "model.hidden_size": 8, **own})
    two = read_recipe(one, {**named, "text.window": 7, "train.seed": 3})
    ready, told = (family_of([task]).prepare(source, each, lambda _: None) for each in (one, two))
    changed = ready.with_recipe(two)
    assert changed.spec.to_json() == told.spec.to_json() != ready.spec.to_json()
    shapes = [
        {name: weight.shape for name, weight in each.build().state_dict().items()}
        for each in (changed, told)
    ]
    assert shapes[0] == shapes[1]
    assert changed.identity() == told.identity() == ready.identity()
