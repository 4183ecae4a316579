"""One measurement in a process of its own: python -m benchmarks.kernels.worker ROWS SETTING.

The processors are chosen before anything is imported: thread pools size themselves by them.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from benchmarks.kernels.plan import Setting


def main() -> None:
    """Measure what SETTING (JSON) says and write the rows to the file ROWS."""
    out, setting = Path(sys.argv[1]), Setting(**json.loads(sys.argv[2]))
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        # The last ones: interrupts are usually served by the first.
        os.sched_setaffinity(0, cores[-setting.threads :])
    torch = importlib.import_module("torch")
    torch.set_num_threads(setting.threads)
    module = importlib.import_module(f"benchmarks.kernels.{setting.module}")
    rows = []
    for row in module.rows(setting):
        print(f"  {row.summary()}", file=sys.stderr, flush=True)
        rows.append(row.to_json())
    out.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
