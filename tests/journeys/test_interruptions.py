"""A fit that is killed, stopped or diverges: what is left is whole, explained, and goes on."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hiddenstate.models import Losses, SequenceModel
from tests.journeys import logs
from tests.journeys.calling import Called, call
from tests.journeys.test_commands import fingerprint

# Long enough to be met in the middle; each phase has its own checkpoint.
FIT = (
    "fit log.csv --out run --threads 1 --hidden-size 8 --batch-size 4 --patience 99 "
    "--epochs {train} --set train.finish_epochs={finish}"
)
PHASES = {"train": FIT.format(train=15, finish=2), "finish": FIT.format(train=2, finish=15)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text(logs.csv())
    return tmp_path


@pytest.fixture(scope="module", params=PHASES)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Return a phase, its command, and the folder of a fit that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "log.csv").write_text(logs.csv())
    assert call(PHASES[request.param], folder).code == 0
    return request.param, PHASES[request.param], folder / "run"


Whole = tuple[str, str, Path]


def disturbed(command: str, folder: Path, phase: str, sign: signal.Signals) -> Called:
    """Start a fit, send it a signal once it has a checkpoint of the phase, and wait for its end."""
    fit = subprocess.Popen(
        [sys.executable, "-m", "hiddenstate", *shlex.split(command)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoint = folder / "run" / "checkpoint" / f"{phase}.safetensors"
    until = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < until and fit.poll() is None:
        time.sleep(0.002)
    fit.send_signal(sign)
    out, err = fit.communicate(timeout=60)
    return Called(fit.returncode, out, err)


def history(run: Path) -> list[tuple[str, int, float]]:
    """Return the phase, number and loss of every epoch recorded."""
    path = run / "history.jsonl"  # Not there yet where the first epoch was just written.
    lines = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    return [(line["phase"], line["epoch"], line["train_loss"]) for line in lines]


def summary(run: Path) -> dict[str, Any]:
    """Return what is told of the training, but for its time."""
    training = json.loads((run / "metrics.json").read_text())["training"]
    return {name: value for name, value in training.items() if name != "seconds"}


def test_a_killed_fit_goes_on_as_if_nothing_had_been(whole: Whole, folder: Path) -> None:
    phase, command, reference = whole
    killed = disturbed(command, folder, phase, signal.SIGKILL)
    assert killed.code == -signal.SIGKILL
    assert not (folder / "run" / "manifest.json").exists()
    explained = call("evaluate run log.csv", folder)
    assert explained.code == 1
    assert "has not finished" in explained.err
    assert "--resume" in explained.err
    assert len(history(folder / "run")) < len(history(reference))
    assert call(f"{command} --resume", folder).code == 0
    assert fingerprint(folder / "run") == fingerprint(reference)
    assert history(folder / "run") == history(reference)
    assert summary(folder / "run") == summary(reference)


def test_ctrl_c_leaves_a_model_and_a_run_that_can_go_on(folder: Path, whole: Whole) -> None:
    phase, command, reference = whole
    stopped = disturbed(command, folder, phase, signal.SIGINT)
    assert stopped.code == 1
    assert "Stopped by Ctrl-C" in stopped.err
    assert "Traceback" not in stopped.err
    assert summary(folder / "run")["interrupted"]
    assert "stopped by Ctrl-C" in (folder / "run" / "MODEL_CARD.md").read_text()
    assert call("predict run log.csv --out p.csv", folder).code == 0
    assert call(f"{command} --resume", folder).code == 0
    assert fingerprint(folder / "run") == fingerprint(reference)
    assert summary(folder / "run") == summary(reference)


def test_a_finished_run_resumed_stays_what_it_is(whole: Whole) -> None:
    _, command, reference = whole
    before = fingerprint(reference), history(reference), summary(reference)
    assert call(f"{command} --resume", reference.parent).code == 0
    assert (fingerprint(reference), history(reference), summary(reference)) == before


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Make the loss infinite from the 50th batch on."""
    honest = SequenceModel.losses
    calls = iter(range(10_000))

    def losses(self: SequenceModel, *rest: Any) -> Losses:
        lost = honest(self, *rest)
        return lost._replace(sums=lost.sums * (float("inf") if next(calls) > 50 else 1.0))

    monkeypatch.setattr(SequenceModel, "losses", losses)
    return monkeypatch


def test_a_loss_that_is_no_number_is_explained(folder: Path, diverging: pytest.MonkeyPatch) -> None:
    command = PHASES["train"]
    told = call(command, folder)
    assert told.code == 1
    assert "loss or its gradient became" in told.err
    assert "epoch 3" in told.err
    assert "--learning-rate" in told.err
    assert "has not finished" in call("evaluate run log.csv", folder).err
    diverging.undo()
    assert call(f"{command} --resume", folder).code == 0
    assert history(folder / "run")[-1][:2] == ("finish", 2)


def test_a_damaged_checkpoint_is_refused(folder: Path) -> None:
    command = PHASES["finish"].replace("=15", "=1")
    assert call(command, folder).code == 0
    checkpoint = folder / "run" / "checkpoint" / "train.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    told = call(f"{command} --resume", folder)
    assert told.code == 1
    assert "train.safetensors cannot be used" in told.err
    assert "--overwrite" in told.err
    # The model that was there before still is.
    assert call("predict run log.csv", folder).code == 0
