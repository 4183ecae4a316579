"""Two processes train one model, as one process does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from hiddenstate.job.events.demo import write_log
from hiddenstate.tasks import simulator

SETTINGS = [
    "--epochs",
    "2",
    "--batch-size",
    "8",
    "--hidden-size",
    "8",
    "--threads",
    "1",
    "--dropout",
    "0",
    "--quiet",
    "--set",
    "train.input_dropout=0",
    "--set",
    "train.finish_epochs=1",
]


def fit(folder: Path, out: str, *start: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", *start, "hiddenstate", "fit", "log.csv", "--out", out, *SETTINGS]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    """The same losses and weights up to rounding; one of them writes and speaks."""
    write_log(simulator.simulate(60, 0), tmp_path / "log.csv")
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    alone, together = fit(tmp_path, "alone"), fit(tmp_path, "together", *torchrun)
    assert alone.returncode == 0, alone.stderr
    assert together.returncode == 0, together.stderr
    assert together.stdout.count("next_event, test part") == 1
    histories = [
        [json.loads(line) for line in (tmp_path / out / "history.jsonl").read_text().splitlines()]
        for out in ("alone", "together")
    ]
    assert len(histories[0]) == len(histories[1]) == 3
    for one, two in zip(*histories, strict=True):
        for name in ("train_loss", "validation_loss", "gradient_norm", "largest_gradient_norm"):
            if one[name] is not None:
                np.testing.assert_allclose(one[name], two[name], rtol=2e-4, err_msg=name)
    weights = [load_file(tmp_path / out / "weights.safetensors") for out in ("alone", "together")]
    for name, value in weights[0].items():
        np.testing.assert_allclose(value, weights[1][name], atol=2e-4, err_msg=name)
