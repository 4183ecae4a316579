"""One thread a process: the arrays of the tests are small, and threads fight over two cores."""

from __future__ import annotations

import os

# Read when NumPy and torch are first imported, which happens in the test modules.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
