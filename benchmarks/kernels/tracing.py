"""Item 9: a training step's forward pass with its trace, every gate and state, and without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.kernels.measure import Candidate, Row, measured
from benchmarks.kernels.plan import Setting
from hiddenstate.cells import build
from hiddenstate.nn import Recurrent

SHAPES = ((1, 64, 32, 64), (16, 64, 32, 64), (32, 128, 64, 128), (64, 32, 256, 256))
PLAIN, TRACED = "forward", "forward, traced"
LEAST = 1 / 1.1


def rows(setting: Setting) -> Iterator[Row]:
    """Yield a row for each cell and shape."""
    for kind in ("gru", "elman", "lstm"):
        for shape in SHAPES[:2] if setting.quick else SHAPES:
            yield _row(kind, *shape, setting)


def _row(kind: str, batch: int, time: int, width: int, height: int, setting: Setting) -> Row:
    layer = Recurrent(build(kind, width, height), seed=0)
    drawn = np.random.default_rng(0).standard_normal((batch, time, width), dtype=np.float32)
    x = torch.tensor(drawn, requires_grad=True)
    reference = Recurrent(build(kind, width, height), seed=0, kernel="reference")
    gates = reference.trace(x)[2][0].gates
    truth = [reference.double()(x.double())[0].detach(), *(each.detach() for each in gates)]

    def read(traced: Any) -> list[Any]:
        output, _, (scan,) = traced
        return [output.detach(), *(each.detach() for each in scan.gates)]

    # Without a trace there are no gates to compare; the output is the same call's.
    candidates = {
        PLAIN: Candidate(lambda: layer(x), lambda _: read(layer.trace(x))),
        TRACED: Candidate(lambda: layer.trace(x), read),
    }
    case = f"{kind} {batch}x{time}x{width}x{height}"
    row = measured(case, candidates, truth, setting, TRACED)
    if not row.wrong:
        pairs = zip(row.samples[PLAIN], row.samples[TRACED], strict=True)
        row.check("without / with", [plain / traced for plain, traced in pairs], LEAST)
    return row
