"""The recipe: defaults, TOML, names and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hiddenstate.errors import RecipeError
from hiddenstate.train import Recipe, read_recipe
from hiddenstate.train.recipe import parse_settings

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown key": ({"train.epoch": 3}, "train.epoch", "Did you mean epochs?"),
    "unknown bare name": ({"epoch": 3}, "epoch", "Did you mean epochs?"),
    "unknown section": ({"trainer.epochs": 3}, "trainer", "Did you mean train?"),
    "a section that is a number": ({"train": 3}, "train = 3", "[train]"),
    "a key below a number": ({"train.epochs.most": 3}, "train.epochs", "possible"),
    "text for a number": ({"epochs": "many"}, "'many'", "integer"),
    "too small": ({"epochs": 0}, "train.epochs = 0", "greater"),
    "a share of one": ({"dropout": 1.0}, "train.dropout", "less than 1"),
    "not a number": ({"learning_rate": float("nan")}, "nan", "less"),
    "no task": ({"tasks": []}, "tasks", "at least 1"),
    "a cell nobody knows": ({"cell": "gruu"}, "'gruu'", "'gru'"),
}


def test_bare_and_dotted_names_say_the_same() -> None:
    dotted = read_recipe(None, {"train.epochs": 3, "model.cell": "gru", "split.column": "part"})
    bare = read_recipe(None, {"epochs": 3, "cell": "gru", "column": "part"})
    assert dotted == bare
    assert (dotted.train.epochs, dotted.model.cell, dotted.split.column) == (3, "gru", "part")


def test_none_leaves_the_default() -> None:
    assert read_recipe(None, {"epochs": None, "train.seed": None}) == Recipe()


def test_settings_are_laid_over_a_recipe_which_stays_as_it_was() -> None:
    base = read_recipe(None, {"epochs": 3, "seed": 1})
    changed = read_recipe(base, {"seed": 2})
    assert (base.train.seed, changed.train.seed, changed.train.epochs) == (1, 2, 3)


def test_a_recipe_comes_back_from_toml(tmp_path: Path) -> None:
    recipe = read_recipe(
        None,
        {
            "tasks": ["next_event", 'occurs:Größe, "quoted"'],
            "attributes": [],
            "cell_options": {"reset": "before"},
            "cell": "gru",
            "time_format": "%d.%m.%Y",
            "learning_rate": 1e-4,
        },
    )
    (tmp_path / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    assert read_recipe(tmp_path / "recipe.toml") == recipe
    assert Recipe.model_validate({}).to_toml().count("[") >= 4


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name: str) -> None:
    settings, *words = REFUSED[name]
    with pytest.raises(RecipeError) as caught:
        read_recipe(None, settings)
    assert all(word in str(caught.value) for word in words)
    assert caught.value.exit_code == 2


def test_the_place_of_a_fault_is_named(tmp_path: Path) -> None:
    """A fault of the file is told of the file, one of the flags is not."""
    path = tmp_path / "mine.toml"
    path.write_text("[train]\nseed = -1\n")
    with pytest.raises(RecipeError, match=r"mine\.toml: train\.seed"):
        read_recipe(path, {"epochs": 3})
    path.write_text("[train]\nseed = 1\n")
    with pytest.raises(RecipeError, match=r"The settings: train\.epochs"):
        read_recipe(path, {"epochs": 0})


def test_values_of_settings_are_toml_or_text() -> None:
    read = parse_settings(
        ["a=3", "b=0.5", "c=true", 'd=["x", "y"]', "e=plain text", "f=2=3", "g=", "h = 1"]
    )
    assert read == {
        "a": 3,
        "b": 0.5,
        "c": True,
        "d": ["x", "y"],
        "e": "plain text",
        "f": "2=3",
        "g": "",
        "h": 1,
    }


@pytest.mark.parametrize("pair", ["epochs", "=3", " = 3", ""])
def test_a_setting_needs_a_name_and_a_value(pair: str) -> None:
    with pytest.raises(RecipeError, match="KEY=VALUE"):
        parse_settings([pair])


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().train.epochs = 4
