"""Which memory is better at equal cost: the same data, the same order, several seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiddenstate.artifact.files import read_json, write_atomically, write_json
from hiddenstate.errors import TrainingError, UsageError
from hiddenstate.study.plan import Fit, Plan, planned
from hiddenstate.study.runs import rows_file, run_all, why_failed
from hiddenstate.study.sizes import Size, equal_sizes, prepared_once, uneven

if TYPE_CHECKING:
    import polars

PLAN, RESULTS, PAGE = "study.json", "results.parquet", "page.html"


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    rows:   a row for each fit and group of lengths (`study.measure.rows_of`)
    failed: why fits could not be made, by their keys
    """

    plan: Plan
    sizes: Mapping[str, Size]
    rows: polars.DataFrame
    failed: Mapping[str, str]
    published: Sequence[Mapping[str, Any]]

    def scores(self) -> polars.DataFrame:
        """Return mean and spread of the score by length and cell."""
        from hiddenstate.study.statistics import scores

        return scores(self.rows)

    def costs(self) -> polars.DataFrame:
        """Return what each cell costs."""
        from hiddenstate.study.statistics import costs

        return costs(self.rows)

    def differences(self) -> polars.DataFrame:
        """Return which cells differ at which length."""
        from hiddenstate.study.statistics import differences

        return differences(self.rows, self.plan.cells)


def compare(
    source: str | Path,
    out: str | Path,
    *,
    cells: Sequence[str] = ("elman", "lstm", "gru", "attention"),
    lengths: Sequence[int] | None = None,
    seeds: int = 5,
    equal: str = "parameters",
    budget: int | None = None,
    minutes: float | None = None,
    processes: int = 1,
    overwrite: bool = False,
    observer: Callable[[str], None] = lambda _: None,
    **settings: Any,
) -> Comparison:
    """Fit every cell with every seed and score each at every length.

    source:    a problem (problem:parity) or data of any task; see `hiddenstate fit --help`
    lengths:   at which a problem is asked (10, 50, 200 and 800 when not given); of data, those of
               whose groups the scores are shown (all when not given)
    out:       folder for the rows of every fit, results.parquet and page.html; a comparison that
               was begun there goes on
    equal:     parameters, flops or time: what the cells have the same of. Equal time is that of
               `minutes` of training each, at equal parameters
    budget:    parameters or flops; what the first cell has with the recipe's hidden size otherwise
    processes: fits made at the same time, one thread each
    settings:  of every fit, by the names of a recipe; of one cell's with the cell in front,
               {"attention.model.layers": 2}

    Ctrl-C leaves what is done. Raises UsageError for a plan that cannot be made, TrainingError
    where no fit could be made.
    """
    if processes < 1:
        raise UsageError(
            f"{processes} processes were asked for.",
            "Fits are made in one process or more.",
            "Give --processes a positive number.",
        )
    plan = planned(source, cells, lengths, seeds, equal, budget, minutes, settings)
    prepared = prepared_once(plan)
    sizes = equal_sizes(plan, prepared)
    for cell, size in sizes.items():
        observer(
            f"{cell}: hidden size {size.hidden_size}, {size.parameters:,} parameters, "
            f"{size.flops:,} flops a step"
        )
    for remark in uneven(sizes, plan.equal):
        observer(remark)
    folder = Path(out)
    _begin(folder, plan, sizes, overwrite=overwrite)
    data = prepared.identity()
    fits = [
        _fit(plan, cell, seed, sizes[cell], data)
        for seed in range(plan.seeds)
        for cell in plan.cells
    ]
    for done, fit in enumerate(run_all(fits, folder, processes, observer), start=1):
        missing = None if rows_file(folder, fit).exists() else "its process died"
        told = why_failed(folder, fit) or missing or "done"
        observer(f"{fit.cell}, seed {fit.seed}: {told} ({done} in this run)")
    comparison = _collected(plan, sizes, fits, folder, prepared.facts().get("published", ()))
    from hiddenstate.job.tables import write_table
    from hiddenstate.study.page import page

    write_table(comparison.rows, folder / RESULTS)
    write_atomically(folder / PAGE, page(comparison).encode())
    return comparison


def _fit(plan: Plan, cell: str, seed: int, size: Size, data: Mapping[str, Any]) -> Fit:
    more = {"model.hidden_size": size.hidden_size, "train.seed": seed}
    settings = plan.recipe(cell, **more).model_dump(mode="json", exclude_none=True)
    return Fit(plan.source, cell, seed, size.hidden_size, plan.lengths, settings, data)


def _begin(folder: Path, plan: Plan, sizes: Mapping[str, Size], *, overwrite: bool) -> None:
    """Make the folder, or go on in one; UsageError where it is something else.

    Rows are kept by what they depend on: another plan in the same folder adds its own.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(
            f"--out {folder} is a file.", "A folder was expected.", "Choose another name."
        )
    begun = folder.exists() and any(folder.iterdir())
    if begun and not (folder / PLAN).exists():
        raise UsageError(
            f"--out {folder} exists and is no comparison (it has no {PLAN}).",
            "Nothing is overwritten unasked.",
            "Choose another folder.",
        )
    if begun and read_json(folder / PLAN)["source"] != plan.source and not overwrite:
        raise UsageError(
            f"The comparison in {folder} is about {read_json(folder / PLAN)['source']}.",
            f"This one is about {plan.source}.",
            "Choose another folder, or add --overwrite.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    value = {**asdict(plan), "sizes": {cell: asdict(size) for cell, size in sizes.items()}}
    write_json(folder / PLAN, json.loads(json.dumps(value, default=str)))


def _collected(
    plan: Plan,
    sizes: Mapping[str, Size],
    fits: Sequence[Fit],
    folder: Path,
    published: Sequence[Mapping[str, Any]],
) -> Comparison:
    """Put the rows of the fits of this plan together."""
    import polars

    made = [rows_file(folder, fit) for fit in fits if rows_file(folder, fit).exists()]
    failed = {
        fit.key: why_failed(folder, fit) or "its process died"
        for fit in fits
        if not rows_file(folder, fit).exists()
    }
    if not made:
        raise TrainingError(
            f"None of the {len(fits)} fits could be made: {next(iter(failed.values()), '')}",
            "A comparison needs some that end.",
            "Change the settings as the message says.",
        )
    rows = polars.concat([polars.read_parquet(path) for path in made])
    return Comparison(plan, sizes, rows, failed, published)
