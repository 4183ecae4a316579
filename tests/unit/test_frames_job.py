"""Next frames of binary channels: targets, floors and what is refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from hiddenstate.errors import DataError
from hiddenstate.job.fit import fit
from hiddenstate.job.series.frames import PreparedFrames
from hiddenstate.job.series.prepare import prepare
from hiddenstate.train import read_recipe


def frames(series: int = 12, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    ids = np.repeat([f"piece {k}" for k in range(series)], 20)
    rolls = {f"note {k}": (rng.random(20 * series) < 0.3).astype(int) for k in range(4)}
    return pl.DataFrame({"series": ids, **rolls})


def test_next_frames() -> None:
    settings = {"tasks": ["next_frame"], "hidden_size": 8, "epochs": 2}
    model = fit(frames(), recipe=read_recipe(None, settings))
    task = model.metrics["scores"]["tasks"]["next_frame"]
    assert set(task["floors"]) == {"independent", "markov"}
    assert task["model"]["cases"] == 2
    told = model.predict(frames())
    assert told.height == 12
    chances = told.select(pl.exclude("series")).to_numpy()
    assert ((chances > 0) & (chances < 1)).all()
    again = model.evaluate(frames(), bootstrap=100)
    assert again["events"] == 12 * 19
    with pytest.raises(DataError, match="lacks 1 of 4 channels: note 3"):
        model.predict(frames().drop("note 3"))
    for wrong, match in (
        (2, "values are not 0 or 1, such as 2"),
        (None, "such as a missing value"),
    ):
        spoilt = frames().with_columns(
            pl.when(pl.int_range(pl.len()) == 5)
            .then(wrong)
            .otherwise(pl.col("note 1"))
            .alias("note 1")
        )
        with pytest.raises(DataError, match=match):
            model.evaluate(spoilt)
        with pytest.raises(DataError, match=match):
            prepare(spoilt, read_recipe(None, settings), lambda _: None)


def test_the_target_of_a_frame_is_the_next_one_of_its_series() -> None:
    settings = {"tasks": ["next_frame"], "hidden_size": 8}
    ready = prepare(frames(), read_recipe(None, settings), lambda _: None)
    assert isinstance(ready, PreparedFrames)
    batch = ready.feed(0).batch(np.array([0, 3]))
    values = ready.signal.values.reshape(12, 20, 4)
    np.testing.assert_array_equal(batch.targets[0][1, :-1].numpy(), values[3, 1:])
    assert batch.masks[0].sum(dim=1).tolist() == [19, 19]
    assert not batch.masks[0][:, -1].any()


def test_a_frame_model_starts_from_how_often_channels_are_on() -> None:
    recipe = read_recipe(None, {"tasks": ["next_frame"], "hidden_size": 8})
    ready = prepare(frames(), recipe, lambda _: None)
    assert isinstance(ready, PreparedFrames)
    chances = 1 / (1 + np.exp(-ready.build().heads[0].bias.detach().numpy()))
    begin, end = ready.bounds.rows[0, 0], ready.bounds.rows[8, 1]
    np.testing.assert_allclose(chances, ready.signal.values[begin:end].mean(axis=0), atol=0.05)
