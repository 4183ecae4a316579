"""Which measurements there are, and the environment of the process that each one needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

DEFAULT, TUNED, AVX2 = "default", "malloc tuned", "AVX2"

# Large arrays then stay mapped between calls: without it every call pays for fresh pages.
LARGE_BYTES = str(2**31 - 1)
ENVIRONMENTS = {
    DEFAULT: {},
    TUNED: {
        "MALLOC_MMAP_THRESHOLD_": LARGE_BYTES,
        "MALLOC_TRIM_THRESHOLD_": LARGE_BYTES,
        "MALLOC_TOP_PAD_": str(64 * 2**20),
    },
    # ONNX Runtime has no such switch: it keeps every instruction set that it finds.
    AVX2: {
        "HIDDENSTATE_ISA": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    },
}


class Setting(NamedTuple):
    """What one worker process measures: an item of the list, by a module, in an environment."""

    item: int
    module: str
    variant: str
    threads: int
    quick: bool = False

    @property
    def key(self) -> str:
        """Name of the measurement among the recorded results."""
        return f"{self.item}/{self.module}/{self.variant}/{self.threads}"

    @property
    def seconds(self) -> float:
        """Time spent on each candidate of each case."""
        return 0.05 if self.quick else 0.25

    def environment(self) -> dict[str, str]:
        """Return the variables of the worker: those here and the number of threads."""
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        threads = dict.fromkeys((*names, "HIDDENSTATE_THREADS"), str(self.threads))
        return {**os.environ, **threads, "KERAS_BACKEND": "jax", **ENVIRONMENTS[self.variant]}


TITLES = {
    1: "Training one layer",
    2: "One step",
    3: "Whole sequences without gradients",
    4: "Linear scan",
    5: "Two layers, two directions, ragged rows",
    6: "A fit to the same validation loss",
    7: "With AVX2 alone",
    8: "Serving: 128 entities, embedding 32, GRU-128, 30 classes",
    9: "Every gate in view",
    10: "Weights in 16 and 8 bits",
    11: "One chain for every sum: what it costs",
}


def settings(items: set[int], quick: bool) -> Iterator[Setting]:
    """Yield the measurements of the items, in order."""
    cores = os.cpu_count() or 1
    both = [threads for threads in (1, 2) if threads <= cores]
    plan = (
        (1, "training", (DEFAULT, TUNED), both),
        (2, "steps", (DEFAULT,), both),
        (3, "sequences", (DEFAULT,), both),
        (4, "linear_scan", (DEFAULT, TUNED), both),
        (5, "layers", (DEFAULT,), both),
        (6, "fitting", (DEFAULT,), both[-1:]),
        (7, "training", (AVX2,), both),
        (7, "steps", (AVX2,), both),
        (8, "serving", (DEFAULT,), [1]),
        (9, "tracing", (DEFAULT,), both),
        (10, "storage", (DEFAULT,), [1]),
        (11, "chains", (DEFAULT, AVX2), [1]),
    )
    for item, module, variants, counts in plan:
        if item in items:
            for variant in variants:
                for threads in counts:
                    yield Setting(item, module, variant, threads, quick)
