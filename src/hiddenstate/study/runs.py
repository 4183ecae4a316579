"""Fits, side by side if asked; each leaves its rows in one file, whole or not at all.

    OUT/fits/KEY.parquet   rows of a finished fit
    OUT/failed/KEY.txt     why a fit could not be made; it is tried again

What is there is not made again, so that after Ctrl-C or kill -9 the same command goes on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any

from hiddenstate.artifact.files import write_atomically
from hiddenstate.errors import HiddenstateError
from hiddenstate.study.plan import Fit

FITS, FAILED = "fits", "failed"


def rows_file(out: Path, fit: Fit) -> Path:
    """Return where the rows of a fit are."""
    return out / FITS / f"{fit.key}.parquet"


def why_failed(out: Path, fit: Fit) -> str | None:
    """Return why a fit could not be made, None if it was, or was not tried."""
    path = out / FAILED / f"{fit.key}.txt"
    return path.read_text(encoding="utf-8") if path.exists() else None


def run_all(
    fits: Sequence[Fit], out: Path, processes: int, observer: Callable[[str], None]
) -> Iterator[Fit]:
    """Make the fits that are not there yet, so many at a time; yield each as it ends.

    One at a time they are made in this process, more in processes of their own, which end with it.
    Ctrl-C raises KeyboardInterrupt; nothing half-written stays behind.
    """
    for folder in (FITS, FAILED):
        (out / folder).mkdir(parents=True, exist_ok=True)
    waiting = [fit for fit in fits if not rows_file(out, fit).exists()]
    done = len(fits) - len(waiting)
    if done:
        observer(f"{done} of {len(fits)} fits are there already.")
    if processes == 1:
        for fit in waiting:
            if not make(fit, out):
                raise KeyboardInterrupt
            yield fit
        return
    context = multiprocessing.get_context("spawn")
    running: dict[Any, tuple[Any, Fit]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                fit = waiting.pop(0)
                process = context.Process(target=make_apart, args=(fit, out), daemon=True)
                process.start()
                running[process.sentinel] = (process, fit)
            for sentinel in connection.wait(list(running)):
                process, fit = running.pop(sentinel)
                process.join()
                yield fit
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.join()


def make_apart(fit: Fit, out: Path) -> None:
    """Make one fit in a process that ends with its parent."""
    # Ctrl-C reaches every process of a terminal; the parent is the one that decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    make(fit, out)


def make(fit: Fit, out: Path) -> bool:
    """Make one fit and write its rows, or why there are none; False where Ctrl-C stopped it."""
    failed = out / FAILED / f"{fit.key}.txt"
    try:
        rows = fitted_rows(fit)
    except HiddenstateError as problem:
        write_atomically(failed, str(problem).encode())
        return True
    failed.unlink(missing_ok=True)
    if rows:
        write_rows(rows, rows_file(out, fit))
    return bool(rows)


def fitted_rows(fit: Fit) -> list[dict[str, Any]]:
    """Fit a model and measure it at every length; no rows where Ctrl-C stopped the fit."""
    from hiddenstate.job.families import family_of
    from hiddenstate.job.fit import fit as run_fit
    from hiddenstate.study.measure import rows_of, training_facts
    from hiddenstate.study.sizes import size_of
    from hiddenstate.train import read_recipe

    recipe = read_recipe(None, fit.settings)
    model = run_fit(fit.source, recipe=recipe)
    if model.interrupted:
        return []
    prepared = family_of(recipe.tasks).prepare(fit.source, recipe, lambda _: None)
    lengths = prepared.feeds()[0].lengths
    size = size_of(prepared.spec, recipe.model.hidden_size, float(lengths.mean()))
    same: Mapping[str, Any] = {
        "cell": fit.cell,
        "seed": fit.seed,
        "hidden_size": size.hidden_size,
        "parameters": size.parameters,
        "flops_per_step": size.flops,
        **training_facts(model),
    }
    return [{**same, **row} for row in rows_of(model, prepared, fit.lengths)]


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows as Parquet, all or nothing."""
    import polars

    from hiddenstate.job.tables import write_table

    counts = dict.fromkeys(("length", "steps", "state_bytes", "path_steps"), polars.Int64)
    names = ("best_loss", "score", "low", "high", "floor", "ceiling")
    times = ("train_s", "infer_us_per_step", "step_us", "in_order", "shuffled")
    numbers = dict.fromkeys((*names, *times), polars.Float64)
    kinds = {**counts, **numbers}
    write_table(polars.DataFrame(rows, schema_overrides=kinds, infer_schema_length=None), path)


def _end_with_parent() -> None:
    """Leave this process once its parent has gone, by kill -9 as well."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
