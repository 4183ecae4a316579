"""Labelled sequences that were read and shared out, with what shall be learnt from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import Artifact, HeadSpec, ModelSpec
from hiddenstate.data import Samples
from hiddenstate.data.labelled import Labelled
from hiddenstate.job.card import About, layers_in_words
from hiddenstate.job.labels.encode import Schema
from hiddenstate.job.labels.evaluate import evaluate_labelled
from hiddenstate.job.labels.numbers import evaluate_numbers
from hiddenstate.job.labels.task import EVERY_STEP
from hiddenstate.job.layers import model_spec
from hiddenstate.job.prepared import Json, Prepared
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import Channels, Symbols, Tokens
from hiddenstate.tasks.label_floors import LabelFloors
from hiddenstate.tasks.regression_floors import RegressionFloors
from hiddenstate.train import Feed, SampleFeed

Parts = tuple[Labelled, Labelled, Labelled]


@dataclass(frozen=True)
class PreparedLabels(Prepared):
    """What was read and decided before the first training step.

    parts:   training, validation and test sequences
    samples: training and validation sequences as the model reads them
    head:    what is learnt, without the pool, which the recipe decides
    """

    parts: Parts
    samples: tuple[Samples, Samples]
    description: str
    schema: Schema
    fitted_floors: LabelFloors | RegressionFloors
    head: HeadSpec
    reading: Mapping[str, Any]

    @cached_property
    def spec(self) -> ModelSpec:
        """The recipe's network; of a token the word says most, the other views are half as wide."""
        model = self.recipe.model
        pool = None if self.task in EVERY_STEP else model.pool
        others = max(model.embedding_size // 2, 1)
        widths = [model.embedding_size, *[others] * len(self.schema.code_sizes)]
        return model_spec(self.schema, (replace(self.head, pool=pool),), self.recipe, widths)

    @property
    def task(self) -> str:
        """classify, label, regress or regress_steps."""
        return self.head.name

    def feeds(self) -> tuple[Feed, Feed | None]:
        """Return the training and the validation sequences."""
        training, validation = self.samples
        return SampleFeed(training), SampleFeed(validation) if validation.cases else None

    def finishing(self) -> Feed | None:
        """Return training and validation sequences together, where there are others to score."""
        if not self.parts[2].cases:
            return None
        first, second = self.samples
        (target,) = zip(first.targets, second.targets, strict=True)
        values, mask = (np.concatenate(pair) for pair in zip(*target, strict=True))
        return SampleFeed(
            Samples(
                np.concatenate((first.codes, second.codes)),
                np.concatenate((first.numbers, second.numbers)),
                np.concatenate((first.offsets, first.steps + second.offsets[1:])),
                ((values, mask),),
                first.of_whole,
            )
        )

    def identity(self) -> Json:
        """Return counts and a digest of inputs, labels and the split."""
        total = hashlib.sha256()
        for part in self.parts:
            total.update(repr((part.cases, part.labels.labels)).encode())
            total.update(part.labels.codes.tobytes())
            total.update(part.offsets.tobytes())
            for piece in part.pieces():
                total.update(piece if isinstance(piece, bytes) else repr(piece).encode())
        return {**self._sizes(), "digest": total.hexdigest()}

    def parts_of_cases(self) -> Iterator[tuple[str, str]]:
        """Yield the part of every sequence."""
        for part, found in zip(("train", "validation", "test"), self.parts, strict=True):
            for name in found.ids:
                yield str(name), part

    def floors(self) -> tuple[Json, dict[str, NDArray[Any]]]:
        """Return the floors."""
        arrays = self.fitted_floors.to_arrays()
        named = {f"0/{name}": array for name, array in arrays.items()}
        return {self.task: self.fitted_floors.to_json()}, named

    def facts(self) -> Json:
        """Return sizes, the split, and how to read later files."""
        split = {"description": self.description, "cases": [part.cases for part in self.parts]}
        return {**self._sizes(), "split": split, "reading": dict(self.reading)}

    def about(self) -> About:
        """Return what the model card tells."""
        schema = self.schema
        if isinstance(schema, Tokens):
            reads = f"{schema.unit} by {', '.join(schema.vocabularies)}"
        elif isinstance(schema, Symbols):
            reads = schema.unit
        else:
            reads = ", ".join(schema.number_names)
        classes, pool = self.spec.heads[0].classes, self.spec.heads[0].pool
        what = "every step of a sequence" if self.task in EVERY_STEP else "a whole sequence"
        shown = ", ".join(classes[:12]) + ", ..." * (len(classes) > 12)
        name = self.reading.get("label")
        answers = f"labels {what} with one of {len(classes)} labels: {shown}"
        if not classes:
            answers = f"says a number{f', {name},' if name else ''} of {what}"
        return About(
            answers=f"This model {answers}.",
            layers=layers_in_words(self.spec.layers) + (f", pooled by {pool}" if pool else ""),
            inputs=reads,
            found="{cases:,} sequences, {events:,} steps".format(**self._sizes()),
            split=self.description,
            limits=(
                "A label that training never saw can never be predicted; where it is the truth it "
                "counts as an error."
                if classes
                else "Numbers far from those of training are guesses.",
                "A missing value of a channel is read as the last one before it, with a flag."
                if isinstance(schema, Channels)
                else "What training never saw is read as unknown.",
            ),
        )

    def score(self, artifact: Artifact, seed: int) -> Json:
        """Score the test sequences; without any, the validation ones, or those of training."""
        named = zip(("test", "validation", "training"), self.parts[::-1], strict=True)
        part, found = next((name, each) for name, each in named if each.cases)
        runtime, floors = Runtime(artifact), self.fitted_floors
        if isinstance(floors, RegressionFloors):
            scores = evaluate_numbers(runtime, self.schema, floors, found, seed=seed)
        else:
            scores = evaluate_labelled(runtime, self.schema, floors, found, seed=seed)
        return {"part": part, **scores}

    def _sizes(self) -> dict[str, int]:
        cases = sum(part.cases for part in self.parts)
        return {"cases": cases, "events": sum(part.steps for part in self.parts)}
