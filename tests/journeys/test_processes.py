"""Two processes train one model, as one process does, whatever they read."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hiddenstate.job.events.demo import write_log
from hiddenstate.tasks import simulator

SETTINGS = (
    "--epochs 2 --batch-size 8 --hidden-size 8 --threads 1 --dropout 0 --quiet "
    "--set train.input_dropout=0 --set train.finish_epochs=1"
)
TORCHRUN = "torch.distributed.run --standalone --nproc-per-node 2 -m"


def write(folder: Path) -> None:
    """Write a log, a text and a series whose last batch holds fewer windows than processes."""
    write_log(simulator.simulate(60, 0), folder / "log.csv")
    (folder / "text.txt").write_text("to be or not to be, that is the question. " * 12)
    values = [f"{n},{math.sin(n / 3):.4f}\n" for n in range(230)]
    (folder / "load.csv").write_text("hour,load\n" + "".join(values))


def fit(folder: Path, command: str, out: str, start: str) -> subprocess.CompletedProcess[str]:
    words = f"-m {start} hiddenstate fit {command} --out {out} {SETTINGS}".split()
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "command",
    [
        "log.csv",
        "text.txt --task lm --set text.window=8",
        "load.csv --task forecast --horizon 2 --set series.context=8 --no-timestamp --exclude hour",
    ],
    ids=["events", "text", "series"],
)
def test_two_processes_take_the_steps_of_one(command: str, tmp_path: Path) -> None:
    """The same losses and weights up to rounding; one of them writes and speaks."""
    write(tmp_path)
    alone = fit(tmp_path, command, "alone", "")
    together = fit(tmp_path, command, "together", TORCHRUN)
    assert alone.returncode == 0, alone.stderr
    assert together.returncode == 0, together.stderr
    assert together.stdout.count(", test part") == alone.stdout.count(", test part") == 1
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
