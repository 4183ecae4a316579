"""The recipe: every choice of a fit in one tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import tomli_w
from pydantic import Field

from hiddenstate.train.recipe import labels, pairs, problems, series, text
from hiddenstate.train.recipe.labels import Labels
from hiddenstate.train.recipe.pairs import Pairs
from hiddenstate.train.recipe.problems import Problems
from hiddenstate.train.recipe.sections import Input, Model, Section, Split, Train
from hiddenstate.train.recipe.series import Series
from hiddenstate.train.recipe.text import Text

# By the first word of a task; every other task is about event logs, whose defaults the sections
# themselves hold.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "lm": text.DEFAULTS,
    "classify": labels.DEFAULTS,
    "label": labels.DEFAULTS,
    "regress": labels.NUMBER_DEFAULTS,
    "regress_steps": labels.STEP_NUMBER_DEFAULTS,
    "forecast": series.DEFAULTS,
    "next_frame": series.FRAME_DEFAULTS,
    "translate": pairs.DEFAULTS,
    "problem": problems.DEFAULTS,
}


class Recipe(Section):
    """Everything that decides a fit; saved with the run as recipe.toml."""

    tasks: Annotated[tuple[str, ...], Field(min_length=1)] = ("next_event",)
    """What is learnt. Of event logs, several at once: next_event, remaining_time, time_to_next,
    occurs:ACTIVITY, outcome:column=COLUMN. Of text: lm. Of sequences with labels: classify, label;
    with numbers: regress, regress_steps. Of series: forecast, next_frame. Of pairs: translate. Made
    on the spot: problem:NAME."""
    input: Input = Input()
    split: Split = Split()
    model: Model = Model()
    train: Train = Train()
    text: Text = Text()
    labels: Labels = Labels()
    series: Series = Series()
    pairs: Pairs = Pairs()
    problems: Problems = Problems()

    def to_toml(self) -> str:
        """Return the recipe as TOML; options that are not set are left out."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))
