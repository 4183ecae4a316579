"""Items 1 and 7: forward and backward of one layer through the public layer."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.kernels import jax_candidates, machine
from benchmarks.kernels import torch_candidates as layers
from benchmarks.kernels.measure import Row, measured
from benchmarks.kernels.plan import AVX2, DEFAULT, Setting
from benchmarks.kernels.subject import MODULES, Subject

SHAPES = (
    (1, 64, 32, 64),
    (16, 64, 32, 64),
    (32, 128, 64, 128),
    (32, 35, 200, 200),
    (64, 32, 256, 256),
    (64, 64, 512, 512),
)
OURS, BATCH_FIRST, TIME_FIRST = "hiddenstate", "torch.nn", "torch.nn, time first"
JAX, KERAS = "JAX scan", "Keras"
# Least speed against torch.nn, by shape.
PLAIN = dict(zip(SHAPES, (12.0, 4.5, 2.0, 1.3, 1.3, 1.3)))
TARGETS = {
    "GRU": PLAIN,
    "Elman": {**PLAIN, SHAPES[0]: 7.5},
    "LSTM": dict(zip(SHAPES, (1.4, 1.15, 0.98, 0.98, 0.98, 0.98))),
}
AVX2_TARGETS = {"GRU": 1.0, "Elman": 1.0}
# Least speed against JAX, and least share of the multiply-add peak by hidden size.
JAX_TARGETS = {True: 1.0, False: 0.75}
PEAK_TARGETS = {200: 0.77, 256: 0.82, 512: 0.85}


def rows(setting: Setting) -> Iterator[Row]:
    """Yield a row for each cell and shape."""
    peak = machine.peak_flops(setting.threads, setting.variant)
    for kind in MODULES:
        for shape in SHAPES[:2] if setting.quick else SHAPES:
            yield _row(Subject(kind, *shape), setting, peak)


def _row(subject: Subject, setting: Setting, peak: float | None) -> Row:
    candidates = {
        OURS: layers.training(subject),
        BATCH_FIRST: layers.torch_training(subject),
        TIME_FIRST: layers.torch_training(subject, batch_first=False),
    }
    # The allocator's thresholds are torch's matter: JAX and Keras are asked without them.
    if jax_candidates.HAS_JAX and setting.variant in (DEFAULT, AVX2):
        candidates[JAX] = jax_candidates.training(subject)
    if jax_candidates.HAS_KERAS and setting.variant == DEFAULT:
        candidates[KERAS] = jax_candidates.keras_training(subject)
    wide = layers.torch_training(subject, wide=True)
    row = measured(str(subject), candidates, wide.read(wide.call()), setting, BATCH_FIRST)
    shape = (subject.batch, subject.time, subject.input_size, subject.hidden_size)
    held = setting.variant == AVX2
    least = AVX2_TARGETS.get(subject.kind) if held else TARGETS[subject.kind][shape]
    row.facts = {"kernel": subject.layer.last_kernel, "peak_flops": peak}
    row.compare(OURS, [BATCH_FIRST, TIME_FIRST], "× torch.nn", least)
    against_jax = JAX_TARGETS[subject.batch >= 16] if setting.variant == DEFAULT else None
    row.compare(OURS, [JAX], "× JAX", against_jax)
    row.compare(OURS, [KERAS], "× Keras")
    if peak is not None:
        share = subject.flops(passes=3) / peak
        for name, what in ((OURS, "share of peak"), (BATCH_FIRST, "torch.nn's share of peak")):
            target = PEAK_TARGETS.get(subject.hidden_size) if name == OURS and not held else None
            row.check(what, [share / each for each in row.samples.get(name, [])], target)
    return row
