"""Flags, recipes and settings are the same thing said in three ways."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

import pytest
import typer.main

from hiddenstate.cli.main import app
from hiddenstate.train import Recipe, read_recipe
from tests.journeys.calling import call
from tests.journeys.wrong import QUICK

# Flags of `fit` that say where and how to run, and not what.
NO_SETTINGS = {
    *("source", "out", "recipe", "setting", "resume", "overwrite", "json", "quiet", "no_checks")
}
VALUES = {
    "task": ("occurs:close", "tasks", ["occurs:close"]),
    "case": ("a", "input.case", "a"),
    "activity": ("b", "input.activity", "b"),
    "timestamp": ("c", "input.timestamp", "c"),
    "no_timestamp": (None, "input.no_timestamp", True),
    "time_format": ("%d", "input.time_format", "%d"),
    "format_": ("csv", "input.format", "csv"),
    "delimiter": (";", "input.delimiter", ";"),
    "encoding": ("cp1252", "input.encoding", "cp1252"),
    "attributes": ("amount, channel", "input.attributes", ["amount", "channel"]),
    "exclude": ("amount", "input.exclude", ["amount"]),
    "allow_leaks": (None, "input.allow_leaks", True),
    "allow_bad_rows": (None, "input.allow_bad_rows", True),
    "validation": ("0.2", "split.validation", 0.2),
    "test": ("0.3", "split.test", 0.3),
    "test_file": ("t.csv", "split.test_file", "t.csv"),
    "strict": (None, "split.strict", True),
    "split_column": ("part", "split.column", "part"),
    "cell": ("elman", "model.cell", "elman"),
    "hidden_size": ("5", "model.hidden_size", 5),
    "layers": ("2", "model.layers", 2),
    "bidirectional": (None, "model.bidirectional", True),
    "horizon": ("12", "series.horizon", 12),
    "epochs": ("3", "train.epochs", 3),
    "minutes": ("1.5", "train.minutes", 1.5),
    "patience": ("4", "train.patience", 4),
    "learning_rate": ("0.01", "train.learning_rate", 0.01),
    "batch_size": ("7", "train.batch_size", 7),
    "dropout": ("0.5", "train.dropout", 0.5),
    "seed": ("11", "train.seed", 11),
    "threads": ("1", "train.threads", 1),
    "kernel": ("reference", "train.kernel", "reference"),
    "tensorboard": (None, "train.tensorboard", True),
}


def options() -> dict[str, str]:
    """Return the parameters of `fit` that may be recipe settings, with their flags."""
    fit = typer.main.get_command(app).commands["fit"]  # type: ignore[attr-defined]
    return {each.name: each.opts[0] for each in fit.params if each.name not in NO_SETTINGS}


def test_every_flag_is_known_here() -> None:
    assert set(options()) == set(VALUES)


@pytest.mark.parametrize("name", VALUES)
def test_a_flag_sets_the_key_of_the_recipe(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe that a fit is started with is caught just before the work begins."""
    text, key, value = VALUES[name]
    caught: list[Recipe] = []

    class Stopped(Exception):
        pass

    def fit(source: object, *, recipe: Recipe, **rest: object) -> None:
        caught.append(recipe)
        raise Stopped

    monkeypatch.setattr("hiddenstate.job.fit.fit", fit)
    flag = options()[name] + ("" if text is None else f" '{text}'")
    with pytest.raises(Stopped):
        call(f"fit log.csv --out out {flag}", tmp_path)
    assert caught[0] == read_recipe(None, {key: value}) != Recipe()
    # The same in TOML, and by --set.
    (tmp_path / "recipe.toml").write_text(caught[0].to_toml())
    for same in ("--recipe recipe.toml", "--set " + shlex.quote(f"{key}={toml(value)}")):
        with pytest.raises(Stopped):
            call(f"fit log.csv --out out {same}", tmp_path)
        assert caught[-1] == caught[0]


def toml(value: object) -> str:
    """Write a value as TOML."""
    return "true" if value is True else repr(value)


def test_a_flag_wins_over_the_recipe(good: Path) -> None:
    (good / "long.toml").write_text("[train]\nepochs = 900\n[model]\nhidden_size = 4\n")
    done = call(f"fit log.csv --out won --recipe long.toml {QUICK}", good)
    assert done.code == 0, done.err
    saved = tomllib.loads((good / "won" / "recipe.toml").read_text())
    assert saved["train"]["epochs"] == 1
    assert saved["model"]["hidden_size"] == 4
