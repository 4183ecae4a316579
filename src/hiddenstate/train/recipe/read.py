"""From defaults, a TOML file and flags to a recipe; what is unknown is refused."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hiddenstate.errors import RecipeError, nearest
from hiddenstate.train.recipe.tree import DEFAULTS, Recipe


def read_recipe(
    base: Recipe | str | Path | None = None, settings: Mapping[str, Any] | None = None
) -> Recipe:
    """Read a recipe and lay settings over it.

    base:     a Recipe, or a TOML file
    settings: values by name, dotted ("train.epochs") or bare where only one section has the name
              ("epochs"); None values are skipped

    Below both lie the defaults, which the first task decides. Raises RecipeError for an unreadable
    file, an unknown key or a value out of range.
    """
    tree: dict[str, Any] = {}
    if isinstance(base, Recipe):
        tree = base.model_dump(exclude_unset=True)
    elif base is not None:
        tree = _read_toml(Path(base))
        _validate(tree, str(base))
    for name, value in (settings or {}).items():
        if value is not None:
            _lay(tree, _dotted(name), value)
    asked = tree.get("tasks")
    kind = str(asked[0]).partition(":")[0] if isinstance(asked, list | tuple) and asked else ""
    usual: dict[str, Any] = {}
    for name, value in DEFAULTS.get(kind, {}).items():
        _lay(usual, name, value)
    return _validate(_over(usual, tree), "The settings")


def _over(usual: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one tree over another."""
    merged = {**usual, **tree}
    for name, below in usual.items():
        if isinstance(below, Mapping) and isinstance(above := tree.get(name), Mapping):
            merged[name] = _over(below, above)
    return merged


def _validate(tree: Mapping[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(tree)
    except ValidationError as problem:
        raise _explain(problem, where) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise RecipeError(
            f"The recipe {path} cannot be read ({problem.strerror}).",
            "A TOML file was expected.",
            "Check the path given to --recipe.",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise RecipeError(
            f"The recipe {path} is not valid TOML ({problem}).",
            "A recipe holds sections such as [train] with lines such as epochs = 20.",
            "Mend the line named; the recipe.toml of any run folder is an example.",
        ) from None


def _dotted(name: str) -> str:
    if "." in name or name in Recipe.model_fields:
        return name
    homes = [section for section in Recipe.model_fields if name in _keys([section])]
    return f"{homes[0]}.{name}" if homes else name


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Read KEY=VALUE pairs; a value is TOML where it can be, and text otherwise.

    >>> parse_settings(["train.epochs=3", "model.cell=lstm"])
    {'train.epochs': 3, 'model.cell': 'lstm'}
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise RecipeError(
                f"The setting {pair!r} has no value.",
                "KEY=VALUE was expected, for example train.clip_norm=0.5.",
                "Write the name of the setting, = and its value.",
            )
        try:
            settings[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key.strip()] = text.strip()
    return settings


def _lay(tree: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        inner = tree.setdefault(section, {})
        if not isinstance(inner, dict):
            return  # validation reports that the section is not a table
        tree = inner
    tree[last] = value


def _explain(problem: ValidationError, where: str) -> RecipeError:
    first = problem.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _keys(first["loc"][:-1])
        deeper = [key for name in known for key in _keys([*first["loc"][:-1], name])]
        return RecipeError(
            f"{where}: unknown key {place}.{nearest(str(first['loc'][-1]), [*known, *deeper])}",
            f"Known here: {', '.join(known)}.",
            "Correct or remove the key.",
        )
    if first["type"] == "model_type":
        return RecipeError(
            f"{where}: {place} = {first['input']!r} is not possible.",
            f"{place} is a section.",
            f"Write [{place}], and its settings on the lines below.",
        )
    return RecipeError(
        f"{where}: {place} = {first['input']!r} is not possible.",
        f"{first['msg']}.",
        "Change the value; `hiddenstate fit --help` describes the settings.",
    )


def _keys(location: Sequence[int | str]) -> list[str]:
    section: type[BaseModel] = Recipe
    for part in location:
        inner = section.model_fields[str(part)].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        section = inner
    return list(section.model_fields)
