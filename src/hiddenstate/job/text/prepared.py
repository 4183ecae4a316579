"""Text that was read and shared out, with the language model that is to learn it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
import torch
from torch import nn

from hiddenstate.artifact import Artifact, HeadSpec, ModelSpec, TransformerSpec
from hiddenstate.data.text import Texts
from hiddenstate.job.card import About, layers_in_words
from hiddenstate.job.layers import model_spec
from hiddenstate.job.prepared import Json, Prepared, sequence_model
from hiddenstate.job.text.evaluate import evaluate_text
from hiddenstate.models import SequenceModel
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import UNKNOWN, Symbols
from hiddenstate.schema.documents import TextCodes
from hiddenstate.tasks.language import NAME, LanguageFloors
from hiddenstate.train import Feed
from hiddenstate.train.windows import WindowFeed

UNKNOWN_NAME = "<unknown>"


@dataclass(frozen=True)
class PreparedText(Prepared):
    """Text that was read and shared out, with the model that is to learn it.

    parts: training, validation and test documents
    codes: the same as symbols, and the first two together
    """

    parts: tuple[Texts, Texts, Texts]
    codes: tuple[TextCodes, TextCodes, TextCodes, TextCodes]
    symbols: Symbols
    language_floors: LanguageFloors
    split: str

    @cached_property
    def spec(self) -> ModelSpec:
        """The recipe's network over symbols.

        Attention sees as far back as gradients go, so that its memory stays bounded in use.
        """
        task = {"task": NAME, "classes": [UNKNOWN_NAME, *self.symbols.names]}
        head = HeadSpec(task, tied=self.recipe.model.tied)
        spec = model_spec(self.symbols, (head,), self.recipe)
        layers = (
            replace(layer, window_steps=self.recipe.text.window)
            if isinstance(layer, TransformerSpec)
            else layer
            for layer in spec.layers
        )
        return replace(spec, layers=tuple(layers))

    @property
    def longest_steps(self) -> int:
        """Steps of a window."""
        return max(self.recipe.text.window, 3)

    def build(self) -> SequenceModel:
        """Return the torch model; the unknown symbol says nothing until it is learnt."""
        model = sequence_model(self.spec, self.recipe, self.longest_steps)
        first_embedding(model, tied=self.recipe.model.tied)
        return model

    def identity(self) -> Json:
        """Return counts and a digest of the text."""
        total = hashlib.sha256()
        for part in self.parts:
            for document in part.documents:
                total.update(document.encode() + b"\0")
        counts = [len(part.documents) for part in self.parts]
        characters = sum(part.characters for part in self.parts)
        return {"cases": sum(counts), "events": characters, "digest": total.hexdigest()}

    def feeds(self) -> tuple[Feed, Feed | None]:
        """Return training and validation documents in windows."""
        training, validation, _, _ = self.codes
        return self._feed(training), self._feed(validation) if validation.steps else None

    def finishing(self) -> Feed | None:
        """Return training and validation documents together, where there are others to score."""
        return self._feed(self.codes[3]) if self.codes[2].steps else None

    def _feed(self, text: TextCodes) -> WindowFeed:
        settings = self.recipe.text
        return WindowFeed(text, settings.window, settings.stride or settings.window)

    def floors(self) -> tuple[Json, dict[str, np.ndarray]]:
        """Return the counts."""
        arrays = self.language_floors.to_arrays()
        return {NAME: self.language_floors.to_json()}, {f"0/{k}": v for k, v in arrays.items()}

    def facts(self) -> Json:
        """Return sizes, the split, and how to read later files."""
        settings = self.recipe.text
        return {
            "cases": sum(len(part.documents) for part in self.parts),
            "events": sum(part.steps for part in self.codes[:3]),
            "split": {
                "description": self.split,
                "cases": [len(part.documents) for part in self.parts],
            },
            "reading": {
                "documents": settings.documents,
                "encoding": self.recipe.input.encoding,
                "text_column": settings.text_column,
                "ends": self.parts[0].ends,
            },
        }

    def about(self) -> About:
        """Return what the model card tells."""
        symbols, settings = self.symbols, self.recipe.text
        ends = "; it knows where a document ends" if self.parts[0].ends else ""
        return About(
            answers="At every step of a text this model says how probable each next symbol is"
            f"{ends}.",
            layers=layers_in_words(self.spec.layers),
            inputs=f"{symbols.unit}, {len(symbols) - 1:,} known, one code for all others"
            + (", in small letters" if symbols.lowercase else "")
            + f"; gradients through {settings.window} steps, the state carried on",
            found=f"{sum(len(part.documents) for part in self.parts):,} documents, "
            f"{sum(part.steps for part in self.codes[:3]):,} symbols",
            split=self.split,
            limits=(
                "A symbol that was not in the training part is read as one unknown symbol. It has "
                "no log probability and is left out of nats, bits and perplexity; in accuracy it "
                "counts as an error.",
                "Text that it writes sounds like the training text; nothing in it has to be true.",
            ),
        )

    def score(self, artifact: Artifact, seed: int) -> Json:
        """Score the held-back documents, the state carried on over each of them."""
        named = zip(("test", "validation", "training"), (2, 1, 0))
        part, text = next((n, self.codes[i]) for n, i in named if self.codes[i].steps)
        return {
            "part": part,
            **evaluate_text(Runtime(artifact), self.language_floors, text, seed=seed),
        }


def first_embedding(model: SequenceModel, *, tied: bool) -> None:
    """Start the unknown symbol at zero, and small where the same table gives the outputs."""
    table = cast("nn.Embedding", model.embeddings[0])
    with torch.no_grad():
        if tied:
            table.weight.mul_(table.embedding_dim**-0.5)
        table.weight[UNKNOWN] = 0.0
