"""From rows to tables: scores with their spread, costs, and which differences are real.

Two cells are compared at a length by a paired t-test over the seeds, whose fits saw the same data
in the same order. The p-values are corrected for their number (Holm 1979), those of all lengths
together apart from those of single ones. They say whether another run of the fits would find the
same; one seed does not know how fits vary.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import polars
from scipy import stats

from hiddenstate.tasks.compare import HIGHER_IS_BETTER

LEVEL = 0.05


def scores(rows: polars.DataFrame) -> polars.DataFrame:
    """Return for each length and cell the mean score, its spread over seeds, floor and ceiling.

    low and high are the first seed's bootstrap interval over the cases.
    """
    return (
        rows.group_by("length", "cell", maintain_order=True)
        .agg(
            polars.col("group", "by", "beyond").first(),
            polars.col("metric").first(),
            polars.col("score").mean().alias("mean"),
            polars.col("score").std().alias("sd"),
            polars.col("score").min().alias("least"),
            polars.col("score").max().alias("greatest"),
            polars.len().alias("seeds"),
            polars.col("low", "high").first(),
            polars.col("floor").mean(),
            polars.col("floor_name", "ceiling").first(),
            polars.col("in_order").mean(),
            polars.col("shuffled").mean(),
        )
        .sort("length", maintain_order=True)
    )


def costs(rows: polars.DataFrame) -> polars.DataFrame:
    """Return for each cell what it costs; what grows with the length, at the greatest one."""
    longest = rows.filter(polars.col("length") == polars.col("length").max().over("cell"))
    return longest.group_by("cell", maintain_order=True).agg(
        polars.col("hidden_size").first(),
        polars.col("parameters").first(),
        polars.col("flops_per_step").first(),
        polars.col("train_s").median(),
        polars.col("epochs").median(),
        polars.col("length").first(),
        polars.col("infer_us_per_step").median(),
        polars.col("step_us").median(),
        polars.col("state_bytes").first(),
        polars.col("path_steps").first(),
    )


def differences(rows: polars.DataFrame, cells: Sequence[str]) -> polars.DataFrame:
    """Test every pair of cells at every length.

    difference: first - second, mean over `pairs` of fits with the same seed
    p:          two-sided, corrected; null where nothing varies or there is one pair
    better:     the cell that is better at the 5 % level, null for neither
    """
    found = []
    for (length,), part in rows.group_by("length", maintain_order=True):
        metric = part["metric"][0]
        by_cell = {str(cell): own.sort("seed") for (cell,), own in part.group_by("cell")}
        pairs = itertools.combinations((cell for cell in cells if cell in by_cell), 2)
        for first, second in pairs:
            both = by_cell[first].join(by_cell[second], on="seed", suffix="_other")
            gap = (both["score"] - both["score_other"]).drop_nulls().to_numpy()
            p = None
            scores = both.select("score", "score_other").to_numpy()
            # Differences that are the same but for their last bits do not vary.
            if len(gap) > 1 and np.ptp(gap) > 1e-9 * np.abs(scores[np.isfinite(scores)]).max():
                p = float(stats.ttest_1samp(gap, 0.0).pvalue)
            mean = float(gap.mean()) if len(gap) else float("nan")
            found.append([length, part["group"][0], metric, first, second, mean, len(gap), p])
    names = ["length", "group", "metric", "first", "second", "difference", "pairs", "p"]
    kinds = {"length": polars.Int64, "p": polars.Float64}
    table = polars.DataFrame(found, schema=names, orient="row", schema_overrides=kinds)
    corrected = np.array([float("nan") if p is None else p for p in table["p"]])
    together = table["length"].is_null().to_numpy()
    for rows_tested in (together, ~together):
        corrected[rows_tested] = _holm(corrected[rows_tested])
    gains = table["difference"].to_numpy() * [
        1 if metric in HIGHER_IS_BETTER else -1 for metric in table["metric"]
    ]
    better = [
        None if not p < LEVEL else (row[0] if gain > 0 else row[1])
        for p, gain, row in zip(corrected, gains, table.select("first", "second").iter_rows())
    ]
    held = [None if np.isnan(p) else float(p) for p in corrected]
    return table.with_columns(
        polars.Series("p", held, dtype=polars.Float64),
        polars.Series("better", better, dtype=polars.String),
    )


def _holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return Holm's corrected p-values; NaN stays NaN and is not counted."""
    values = np.array(p, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known])]
    raised = values[order] * (len(order) - np.arange(len(order)))
    values[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return values
