"""Item 3: a layer over whole sequences without gradients, by the layer and by NumPy alone."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.kernels import jax_candidates, onnx_candidates
from benchmarks.kernels import torch_candidates as layers
from benchmarks.kernels.measure import Candidate, Row, measured
from benchmarks.kernels.plan import Setting
from benchmarks.kernels.subject import MODULES, Subject
from hiddenstate.kernels import KERNELS, Request, choose

WIDTHS = (32, 64, 128, 256, 512)
BATCH_TIME = ((1, 1000), (32, 128))
LAYER, NUMPY = "hiddenstate", "hiddenstate, NumPy"
BATCH_FIRST, TIME_FIRST = "torch.nn", "torch.nn, time first"
ORT, JAX, KERAS = "ONNX Runtime", "JAX scan", "Keras"


def rows(setting: Setting) -> Iterator[Row]:
    """Yield a row for each cell, shape and width."""
    for kind in MODULES:
        for batch, time in BATCH_TIME:
            for width in WIDTHS[:2] if setting.quick else WIDTHS:
                yield _row(Subject(kind, batch, time, width, width), setting)


def _row(subject: Subject, setting: Setting) -> Row:
    ran, by_numpy = _numpy(subject)
    candidates = {
        LAYER: layers.sequence(subject),
        NUMPY: by_numpy,
        BATCH_FIRST: layers.torch_sequence(subject),
        TIME_FIRST: layers.torch_sequence(subject, batch_first=False),
    }
    if onnx_candidates.HAS_ORT:
        candidates[ORT] = onnx_candidates.sequence(subject, setting.threads)
    if jax_candidates.HAS_JAX:
        candidates[JAX] = jax_candidates.sequence(subject)
    if jax_candidates.HAS_KERAS:
        candidates[KERAS] = jax_candidates.keras_sequence(subject)
    wide = layers.torch_sequence(subject, wide=True)
    row = measured(str(subject), candidates, wide.read(wide.call()), setting, BATCH_FIRST)
    row.facts = {"kernel": subject.layer.last_kernel, "kernel for NumPy": ran}
    least = 1.0 if subject.batch > 1 or subject.hidden_size <= 64 else 0.97
    for ours, what in ((LAYER, "layer"), (NUMPY, "NumPy")):
        row.compare(ours, [BATCH_FIRST, TIME_FIRST], f"{what} × torch.nn", least)
        row.compare(ours, [ORT], f"{what} × ONNX Runtime", least)
    row.compare(LAYER, [JAX], "layer × JAX")
    return row


def _numpy(subject: Subject) -> tuple[str, Candidate]:
    """Return the chosen kernel's name and its run over NumPy arrays."""
    kernel = choose(KERNELS, Request(subject.cell, subject.batch, subject.time))
    cell, params, x = subject.cell, subject.params, subject.x
    return kernel.name, Candidate(
        lambda: kernel.run(cell, params, x, final_state=False).output, lambda output: [output]
    )
