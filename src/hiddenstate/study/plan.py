"""The plan of a comparison: which fits are made, and what each of them depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from hiddenstate.errors import UsageError, nearest
from hiddenstate.tasks.problems import PREFIX, PROBLEMS, parse_problem
from hiddenstate.train import Recipe, read_recipe

Equal: TypeAlias = Literal["parameters", "flops", "time"]

CELLS = ("elman", "lstm", "gru", "attention")
# Where a problem is asked, unless lengths are given.
LENGTHS = (10, 50, 200, 800)
# Rows of another version are not mixed with these.
ROWS_VERSION = 2


@dataclass(frozen=True)
class Plan:
    """A comparison, as it was asked for.

    lengths:  at which the score is taken: sequence lengths of a problem; of data those whose groups
              of its scores by length are kept, none for all groups
    seeds:    fits of each cell, with seeds 0, 1, ...
    equal:    what the cells have the same of: parameters, flops of a forward step, or also time
    budget:   how many parameters or flops; None for those of the first cell with the recipe's size
    minutes:  training time of each fit, for equal="time"
    settings: of every fit, by the names of a recipe; of one cell's alone with the cell in front,
              as attention.model.layers
    """

    source: str
    cells: tuple[str, ...]
    lengths: tuple[int, ...]
    seeds: int
    equal: Equal
    budget: int | None
    minutes: float | None
    settings: Mapping[str, Any]

    def recipe(self, cell: str, **more: Any) -> Recipe:
        """Return the recipe of a cell, with further settings."""
        own = {
            name.removeprefix(f"{cell}."): value
            for name, value in self.settings.items()
            if name.startswith(f"{cell}.")
        }
        common = {
            name: value
            for name, value in self.settings.items()
            if name.partition(".")[0] not in CELLS
        }
        timed = {"train.minutes": self.minutes, "train.epochs": 1_000_000}
        # The last epochs with the validation part are not on the clock.
        timed |= {"train.patience": 1_000_000, "train.finish_epochs": 0}
        asked = {"problems.test_lengths": list(self.lengths)}
        return read_recipe(
            None,
            {
                **common,
                **own,
                **(timed if self.equal == "time" else {}),
                **(asked if self.source.startswith(PREFIX) else {}),
                "model.cell": cell,
                "train.threads": 1,
                **more,
            },
        )


@dataclass(frozen=True)
class Fit:
    """One fit of a comparison, with everything that its rows depend on.

    data: what was read, as `Prepared.identity` tells it: a file may have grown since
    """

    source: str
    cell: str
    seed: int
    hidden_size: int
    lengths: tuple[int, ...]
    settings: Mapping[str, Any]
    data: Mapping[str, Any]

    @property
    def key(self) -> str:
        """A file name for the fit: the same for the same fit, and for no other."""
        told = json.dumps([ROWS_VERSION, asdict(self)], sort_keys=True, default=str)
        digest = hashlib.sha256(told.encode()).hexdigest()[:16]
        return f"{self.cell}-{self.hidden_size}-seed{self.seed}-{digest}"


def planned(
    source: str | Path,
    cells: Sequence[str],
    lengths: Sequence[int] | None,
    seeds: int,
    equal: str,
    budget: int | None,
    minutes: float | None,
    settings: Mapping[str, Any],
) -> Plan:
    """Check what was asked for and return it as a plan; raises UsageError."""
    for cell in cells:
        if cell not in CELLS:
            raise UsageError(
                f"There is no cell {cell!r} to compare.",
                f"The cells are {', '.join(CELLS)}.",
                f"Name some of them.{nearest(cell, CELLS)}",
            )
    if equal not in get_args(Equal):
        raise UsageError(
            f"Cells cannot be made equal in {equal!r}.",
            f"They are given the same {', '.join(get_args(Equal))}.",
            f"Choose one.{nearest(equal, get_args(Equal))}",
        )
    told = LENGTHS if lengths is None else tuple(sorted(set(lengths)))
    if not cells or not told or len(set(cells)) < len(cells) or seeds < 1 or told[0] < 0:
        raise UsageError(
            f"Cells {', '.join(cells) or 'none'}, lengths {', '.join(map(str, told)) or 'none'} "
            f"and {seeds} seeds were asked for.",
            "A comparison needs different cells, lengths of 0 and more, and at least one seed.",
            "Name each cell once, as in --cells lstm,gru --lengths 40,400 --seeds 5.",
        )
    if (equal == "time") != (minutes is not None):
        raise UsageError(
            f"Equal {equal} was asked for, and minutes {'not ' * (minutes is None)}given.",
            "A time is given to each fit where the time is to be equal, and only there.",
            "Give --equal time and --minutes together, or neither.",
        )
    of: Equal = equal  # type: ignore[assignment]
    text, given = str(source), dict(settings)
    if text.partition(":")[0] in PROBLEMS and not Path(text).exists():
        text = PREFIX + text
    if text.startswith(PREFIX):
        given["tasks"] = [text]
        parse_problem(text).check_lengths(np.array(told))
    elif lengths is None:
        told = ()
    plan = Plan(text, tuple(cells), told, seeds, of, budget, minutes, given)
    if equal == "time" and plan.recipe(cells[0]).problems.grow:
        raise UsageError(
            "problems.grow is set, and training ends by the clock.",
            "A curriculum grows over a number of epochs.",
            "Leave problems.grow out, or compare at equal parameters.",
        )
    return plan
