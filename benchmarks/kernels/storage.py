"""Item 10: what weights in 16 and 8 bits do to a model's scores and to the time of an evaluation.

A model is fitted to the sepsis log's training cases and scored on its test cases with its weights
held in each way.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import hiddenstate
from benchmarks.kernels.clock import interleaved
from benchmarks.kernels.measure import Row
from benchmarks.kernels.plan import Setting
from hiddenstate.job.model import Model
from hiddenstate.kernels.native import STORAGES
from hiddenstate.schema import EventLog

FOLDER = "ppm_chrono_80_20"
CELLS = ("gru", "lstm")


def rows(setting: Setting) -> Iterator[Row]:
    """Yield a row for each cell."""
    data = Path(os.environ.get("HIDDENSTATE_DATA") or "missing") / FOLDER
    known, unseen = data / "sepsis_80.csv", data / "sepsis_20.csv"
    for cell in CELLS[:1] if setting.quick else CELLS:
        row = Row(f"{cell}, sepsis")
        if not known.exists():
            row.wrong[STORAGES[0]] = f"not measured: HIDDENSTATE_DATA holds no {FOLDER}"
            yield row
            continue
        with tempfile.TemporaryDirectory() as folder:
            epochs = {"epochs": 2} if setting.quick else {}
            hiddenstate.fit(known, out=f"{folder}/run", cell=cell, **epochs)
            models = {each: hiddenstate.load(f"{folder}/run", weights=each) for each in STORAGES}
        log = models[STORAGES[0]].read(unseen)
        for name, model in models.items():
            scores = model.evaluate(log, bootstrap=10)
            for metric in ("accuracy", "log_loss"):
                row.check(f"{metric}, {name}", [scores[metric]])
        calls = {name: partial(_predict, model, log) for name, model in models.items()}
        row.samples = interleaved(calls, setting.seconds)
        yield row


def _predict(model: Model, log: EventLog) -> None:
    for _ in model.runtime.predict(log):
        pass
