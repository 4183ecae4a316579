"""The gradient error of truncation: none at the whole length, and smaller the longer the window."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hiddenstate.errors import UsageError
from hiddenstate.job.fit import fit
from hiddenstate.job.truncation import measure
from hiddenstate.models import SequenceModel
from hiddenstate.train import LogFeed
from hiddenstate.train.truncation import gradient, truncation
from tests.laws.test_windows import CELLS, DOCUMENTS, WindowFeed, model, recipe, text
from tests.unit.small_fits import TRACES, feed, prepared, small_recipe


def batches(cell: str) -> list[tuple[SequenceModel, object]]:
    """A language model and a model of event logs, each with sequences of several lengths."""
    language = WindowFeed(text(DOCUMENTS[:-1]), 100, 100)
    (item,) = language.order(recipe(5), None)
    if cell == "attention":
        return [(model(cell), language.batch(item))]
    ready = prepared(small_recipe(cell=cell))
    log: LogFeed = feed(ready)
    batch = log.batch(np.arange(6))
    return [
        (model(cell), language.batch(item)),
        (SequenceModel(ready.spec).double(), replace(batch, numbers=batch.numbers.double())),
    ]


@pytest.mark.parametrize("cell", CELLS)
def test_nothing_is_lost_at_the_whole_length(cell: str) -> None:
    for net, batch in batches(cell):
        longest = int(batch.lengths.max())
        for stride in (None, 1):
            (found,) = truncation(net, batch, [longest], stride)
            assert found.relative_error == pytest.approx(0, abs=1e-12)
            assert found.cosine == pytest.approx(1, abs=1e-12)
            assert found.norm_ratio == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("cell", "stride"), [*((cell, None) for cell in CELLS), ("gru", 1)])
def test_the_error_falls_with_the_window_on_average(cell: str, stride: int | None) -> None:
    errors = np.zeros(5)
    language = WindowFeed(text(DOCUMENTS[2:5]), 100, 100)
    (item,) = language.order(recipe(3), None)
    for seed in range(3):
        net = model(cell)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in net.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator).double() / 3)
        found = truncation(net, language.batch(item), [1, 3, 8, 16, 29], stride)
        errors += [each.relative_error or 0.0 for each in found]
    assert np.all(np.diff(errors) < 0)
    assert errors[0] / 3 > 0.02


def test_stride_one_is_the_gradient_of_exactly_k_steps() -> None:
    """Equal to a graph made by hand: every loss from a state k steps back that is held fixed."""
    net = model("lstm")
    one = WindowFeed(text(["abracadabrabra"], ends=False), 100, 100)
    batch = one.batch(one.order(recipe(1), None)[0])
    lag = 4
    found = gradient(net, batch, lag, 1)
    net.zero_grad()
    total = torch.zeros((), dtype=torch.double)
    for step in range(batch.codes.shape[1]):
        start = max(step - lag + 1, 0)
        state = None
        if start:
            with torch.no_grad():
                _, state = net(batch.codes[:, :start], batch.numbers[:, :start].double())
        outputs, _ = net(
            batch.codes[:, start : step + 1],
            batch.numbers[:, start : step + 1].double(),
            state=state,
        )
        target = batch.targets[0][:, step]
        total = total + torch.nn.functional.cross_entropy(outputs[0][:, -1], target)
    (total / batch.codes.shape[1]).backward()
    for name, weight in net.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, rtol=1e-9, atol=1e-12)


def test_runs_of_both_families_are_measured_and_others_refused(tmp_path: Path) -> None:
    source = tmp_path / "text.txt"
    source.write_text("abracadabra, she said. " * 40)
    small = {"hidden_size": 4, "epochs": 1, "finish_epochs": 0, "threads": 1}
    fit(source, tmp_path / "lm", tasks=["lm"], window=8, **small)
    told: list[str] = []
    report = measure(tmp_path / "lm", source, [2, 50, 900], steps=50, remark=told.append)
    assert [each["steps"] for each in report["lags"]] == [2, 50]
    assert report["lags"][1]["relative_error"] == pytest.approx(0, abs=1e-12)
    assert report["lags"][0]["relative_error"] > 0
    assert "whole gradient" in told[-1]
    log = tmp_path / "log.csv"
    lines = [f"{case},{name}" for case, trace in enumerate(TRACES) for name in trace]
    log.write_text("\n".join(["case,activity", *lines]) + "\n")
    fit(log, tmp_path / "events", no_timestamp=True, **small)
    report = measure(tmp_path / "events", log, [1, 4])
    assert report["longest_steps"] == 4
    assert report["lags"][-1]["relative_error"] == pytest.approx(0, abs=1e-12)
    with pytest.raises(UsageError, match="at least 1 step"):
        measure(tmp_path / "lm", source, [0])
