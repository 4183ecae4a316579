"""`hiddenstate kernels`: who would run a layer, who refuses and why, and how fast."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hiddenstate import kernels, nn
from hiddenstate.kernels import native
from hiddenstate.nn.fused import TorchKernel
from tests.journeys.calling import call

SMALL = "kernels --input 3 --hidden 4 --batch 2 --time 5 --threads 1"


@pytest.fixture(autouse=True)
def _once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hiddenstate.cli.kernels.BUDGET_S", 0.0)


def asked(flags: str, folder: Path) -> dict[str, Any]:
    done = call(f"{SMALL} {flags} --json", folder)
    assert done.code == 0, done.err
    answer: dict[str, Any] = json.loads(done.out)
    return answer


def names(order: tuple[kernels.Kernel, ...]) -> list[str]:
    return [kernel.name for kernel in order]


@pytest.mark.parametrize("cell", ["gru", "lstm", "elman"])
@pytest.mark.parametrize(
    "flags", ["", "--no-train", "--ragged", "--trace --dtype float64", "--no-train --ragged"]
)
def test_every_kernel_runs_or_says_why_not(cell: str, flags: str, tmp_path: Path) -> None:
    answer = asked(f"--cell {cell} {flags}", tmp_path)
    serving = "--no-train" in flags
    assert [each["kernel"] for each in answer["kernels"]] == names(
        kernels.KERNELS if serving else nn.KERNELS
    )
    assert answer["order"] == f"hiddenstate.{'kernels' if serving else 'nn'}.KERNELS"
    able = [each for each in answer["kernels"] if not each["refusals"]]
    assert [each["runs"] for each in able] == [True] + [False] * (len(able) - 1)
    for each in answer["kernels"]:
        assert (each["median_s"] is None) == bool(each["refusals"])
        assert each in able or not each["runs"]
    assert all(each["median_s"] > 0 for each in able)
    assert answer["train"] == (not serving)
    assert answer["ragged"] == ("--ragged" in flags)
    assert answer["cell"]["cell"] == cell
    assert answer["compiled"] == native.status()


def test_the_table_names_the_order_and_the_reasons(tmp_path: Path) -> None:
    done = call(f"{SMALL} --trace", tmp_path)
    assert done.code == 0
    (shown,) = [line.split() for line in done.out.splitlines() if line.startswith(" reference")]
    assert shown[-1] in ("s", "ms", "µs")
    reasons = TorchKernel().refusals(
        kernels.Request(nn.GRU(3, 4).layers[0].cell, 2, 5, needs_trace=True)
    )
    assert f"torch refuses: {reasons[0]}" in done.out
    assert "hiddenstate.nn.KERNELS" in done.out
    assert native.status() in done.out


def test_without_torch_the_serving_order_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    answer = json.loads(call(f"{SMALL} --json", tmp_path).out)
    assert answer["order"] == "hiddenstate.kernels.KERNELS"
    assert answer["train"] is False
    assert [each["kernel"] for each in answer["kernels"]] == names(kernels.KERNELS)
    assert answer["kernels"][-1]["median_s"] > 0
    training = json.loads(call(f"{SMALL} --train --json", tmp_path).out)
    assert training["kernels"][-1]["refusals"] == ["numpy records no gradients"]
