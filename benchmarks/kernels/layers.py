"""Item 5: several layers, both directions and ragged rows, forward and backward.

The rows' lengths are drawn from those of the sepsis log's cases, 3 to 185 events. torch packs them
(sorted, as it likes them best) and pads its output again, hiddenstate takes them as lengths.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.kernels.measure import Candidate, Row, measured
from benchmarks.kernels.plan import Setting
from benchmarks.kernels.subject import MODULES
from benchmarks.kernels.torch_candidates import trained
from hiddenstate.nn import from_torch

OURS, TORCH = "hiddenstate", "torch.nn"
BATCH, INPUT_SIZE, TIME = 32, 32, 64
WIDTHS = (64, 128, 256)
LOG = "ppm_chrono_80_20/sepsis_80.csv"
# Number of layers, both directions, ragged rows.
FORMS = {
    "2 layers": (2, False, False),
    "2 directions": (1, True, False),
    "ragged": (1, False, True),
    "2 layers, 2 directions, ragged": (2, True, True),
}
TARGETS = {"GRU": 1.5, "LSTM": 1.0}


def rows(setting: Setting) -> Iterator[Row]:
    """Yield a row for each cell, form and width."""
    folder = os.environ.get("HIDDENSTATE_DATA")
    log = Path(folder) / LOG if folder else None
    if log is None or not log.exists():
        for form in [name for name, (_, _, ragged) in FORMS.items() if ragged]:
            yield Row(form, wrong={OURS: f"not measured: HIDDENSTATE_DATA holds no {LOG}"})
    for kind in MODULES:
        for form, (count, both, ragged) in FORMS.items():
            if ragged and (log is None or not log.exists()):
                continue
            lengths = _lengths(log) if ragged and log else None
            for width in WIDTHS[:1] if setting.quick else WIDTHS:
                torch.manual_seed(0)
                options = {"num_layers": count, "bidirectional": both, "batch_first": True}
                module = MODULES[kind](INPUT_SIZE, width, **options)
                name = f"{kind} H={width}, {form}"
                yield _row(name, module, lengths, TARGETS.get(kind), setting)


def _lengths(log: Path) -> Any:
    """Draw a batch of lengths [B], the longest first."""
    with log.open(newline="") as file:
        known = [int(row["length"]) for row in csv.DictReader(file)]
    drawn = np.random.default_rng(0).choice(known, BATCH)
    return torch.tensor(np.sort(drawn)[::-1].copy())


def _row(name: str, module: Any, lengths: Any, least: float | None, setting: Setting) -> Row:
    time = TIME if lengths is None else int(lengths[0])
    rng = np.random.default_rng(0)
    width = module.hidden_size * (2 if module.bidirectional else 1)
    x, gradient = (
        torch.tensor(rng.standard_normal((BATCH, time, size), dtype=np.float32))
        for size in (INPUT_SIZE, width)
    )
    wide = _torch(deepcopy(module).double(), lengths, x.double(), gradient.double())
    stack = from_torch(module)
    candidates = {
        OURS: _ours(stack, lengths, x, gradient),
        TORCH: _torch(module, lengths, x, gradient),
    }
    row = measured(name, candidates, wide.read(wide.call()), setting, TORCH)
    row.compare(OURS, [TORCH], "× torch.nn", least)
    kernels = [getattr(each, "last_kernel", None) for each in stack.modules()]
    row.facts = {"kernel": ", ".join(sorted({name for name in kernels if name}))}
    if lengths is not None:
        row.facts["real share of the steps"] = float(lengths.sum()) / (BATCH * time)
    return row


def _ours(stack: Any, lengths: Any, x: Any, gradient: Any) -> Candidate:
    return trained(lambda x: stack(x, lengths)[0], x.clone(), gradient, [*stack.parameters()])


def _torch(module: Any, lengths: Any, x: Any, gradient: Any) -> Candidate:
    def packed(x: Any) -> Any:
        output, _ = module(pack_padded_sequence(x, lengths, batch_first=True))
        return pad_packed_sequence(output, batch_first=True)[0]

    forward = (lambda x: module(x)[0]) if lengths is None else packed
    return trained(forward, x.clone(), gradient, [*module.parameters()])
