"""Numbers of sequences and of steps by the command line: fitted, scored, predicted, followed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import hiddenstate
from hiddenstate.job.labels.model import ToldNumber
from tests.journeys import labels
from tests.journeys.calling import call

QUICK = (
    "--epochs 18 --threads 1 --hidden-size 16 --batch-size 8 --dropout 0 "
    "--set train.finish_epochs=0"
)
MACHINES = "--set labels.sequence=machine_id"
CAUSAL = "--set model.bidirectional=false --set model.pool=last"
FILES = {
    "whole.csv": labels.machines(90),
    "more_whole.csv": labels.machines(40, seed=1),
    "steps.csv": labels.machines(60, every_step=True),
    "more_steps.csv": labels.machines(20, seed=1, every_step=True),
    "prices.csv": labels.prices(),
    "more_prices.csv": labels.prices(30, seed=1),
}
RUNS = {
    "whole": f"whole.csv --task regress {MACHINES} {CAUSAL} --set labels.output=point",
    "steps": f"steps.csv --task regress_steps {MACHINES}",
    "normal": f"steps.csv --task regress_steps {MACHINES} --set labels.output=gaussian --epochs 2",
    "prices": "prices.csv --task regress --set labels.label=price",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files and a model of each kind."""
    folder = tmp_path_factory.mktemp("numbers")
    for name, content in FILES.items():
        (folder / name).write_text(content)
    for name, command in RUNS.items():
        done = call(f"fit --out {name} {QUICK} --quiet {command}", folder)
        assert done.code == 0, done.err
    return folder


def scores(name: str, folder: Path) -> dict[str, Any]:
    done = call(f"evaluate {name} more_{RUNS[name].split('.')[0]}.csv --json --quiet", folder)
    assert done.code == 0, done.err
    task: dict[str, Any] = next(iter(json.loads(done.out)["tasks"].values()))
    return task


@pytest.mark.parametrize("name", ["whole", "steps", "prices"])
def test_a_model_learns_and_is_scored_beside_its_floors(name: str, folder: Path) -> None:
    task = scores(name, folder)
    found = {"model": task["model"], **task["floors"]}
    errors = {who: each["metrics"]["absolute_error"]["value"] for who, each in found.items()}
    assert list(errors) == ["model", "mean", "median", "linear"]
    assert errors["model"] < 0.7 * errors["median"]
    if name == "steps":
        assert errors["model"] < 0.6 * errors["linear"]
        assert 0.5 < task["model"]["metrics"]["coverage"]["value"] <= 1
    for each in found.values():
        assert each["metrics"]["rmse"]["value"] >= each["metrics"]["absolute_error"]["value"]
        assert each["by_length"]
    card = (folder / name / "MODEL_CARD.md").read_text()
    assert f"says a number, {'price' if name == 'prices' else 'y'}, of" in card
    assert "root mean squared error" in card
    assert ("without a label are neither learnt nor scored" in card) == (name != "prices")
    assert ("by their logarithm" in card) == (name == "prices")


def test_numbers_are_predicted_as_they_were_scored(folder: Path) -> None:
    """Below 0 too; the table's errors are the scores."""
    done = call("predict whole more_whole.csv --out told.csv --overwrite", folder)
    assert done.code == 0, done.err
    table = pl.read_csv(folder / "told.csv")
    assert table.columns == ["id", "number"]
    assert table["number"].to_numpy().min() < -5
    source = pl.read_csv(folder / "more_whole.csv")
    truth = source.group_by("machine_id", maintain_order=True).first()["y"].to_numpy()
    error = np.abs(table["number"].to_numpy() - truth)
    score = scores("whole", folder)["model"]["metrics"]["absolute_error"]["value"]
    assert np.isclose(np.nanmean(error), score, rtol=1e-6)
    bare = source.drop("y")
    again = hiddenstate.load(folder / "whole").predict(bare)["number"].to_numpy()
    np.testing.assert_allclose(again, table["number"].to_numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", ["steps", "normal"])
def test_a_number_of_every_step_has_quantiles_and_can_be_followed(name: str, folder: Path) -> None:
    model = hiddenstate.load(folder / name)
    table = model.predict(folder / "more_steps.csv")
    quantiles = ["number 0.1", "number 0.5", "number 0.9"]
    assert table.columns == ["id", "step", "number", *quantiles]
    spread = table.select(quantiles).to_numpy()
    assert (np.diff(spread, axis=1) >= 0).all()
    np.testing.assert_allclose(table["number"], table["number 0.5"], atol=1e-9)
    source = pl.read_csv(folder / "more_steps.csv")
    frames = source.filter(pl.col("machine_id") == "m0").select("load", "noise").to_numpy()
    told = list(model.follow(frames))
    assert all(isinstance(each, ToldNumber) for each in told)
    for each, row in zip(told, table.iter_rows(named=True)):
        assert np.isclose(each.number, row["number"], atol=1e-4)
        assert each.quantiles[0.9] >= each.number >= each.quantiles[0.1]


WRONG = {
    "no number to score": ("evaluate whole unknown.csv", ("None", "number")),
    "text among the numbers": ("evaluate whole text.csv", ("'hot'", "row 2")),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_input_to_a_model_is_told(name: str, folder: Path) -> None:
    head, row = "machine_id,time,load,noise,y\n", "m0,0,1.0,2.0,"
    (folder / "unknown.csv").write_text(f"{head}{row}\n")
    (folder / "text.csv").write_text(f"{head}{row}hot\n")
    command, words = WRONG[name]
    code, out, err = call(command, folder)
    assert (code, out) == (1, ""), err
    for word in words:
        assert word in err
