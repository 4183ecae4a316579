"""From pairs of texts and a recipe to everything that training needs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from hiddenstate.artifact import AnyLayerSpec, Artifact, TransformerSpec, TranslatorSpec
from hiddenstate.artifact.translator import Context
from hiddenstate.data.pairs import Pairs, drop_repeated, drop_seen, read_pairs, split_pairs
from hiddenstate.errors import DataError, UsageError
from hiddenstate.job.card import About, layers_in_words
from hiddenstate.job.layers import FEEDFORWARD, recurrent_layers
from hiddenstate.job.pairs.evaluate import Decoding, evaluate_pairs
from hiddenstate.job.pairs.feed import PairFeed
from hiddenstate.job.prepared import Json, Prepared, called
from hiddenstate.models import Regularisation, Trainable
from hiddenstate.models.sampling import own_share
from hiddenstate.models.translator import Translator
from hiddenstate.runtime.translator import Translator as Runtime
from hiddenstate.schema import Symbols, words
from hiddenstate.tasks.pair_floors import PairFloors
from hiddenstate.train import Feed, Recipe

LEAST_TRAINING_PAIRS = 5
READING = {"encoding", "allow_bad_rows"}

Remark = Callable[[str], None]


@dataclass(frozen=True)
class PreparedPairs(Prepared):
    """What was read and decided before the first training step.

    parts:   training, validation and test pairs
    symbols: of source and target
    """

    parts: tuple[Pairs, Pairs, Pairs]
    split: str
    symbols: tuple[Symbols, Symbols]
    fitted_floors: PairFloors
    reading: Mapping[str, Any]

    @cached_property
    def spec(self) -> TranslatorSpec:
        """The recipe's translator."""
        return spec_of(*self.symbols, self.recipe)

    @property
    def decoding(self) -> Decoding:
        """How targets are searched for, unless it is said otherwise."""
        return Decoding(self.recipe.pairs.beam, self.recipe.pairs.length_penalty)

    @property
    def longest_length(self) -> int:
        """Words of the longest training source."""
        return max(len(words.cut(source)) for source in self.parts[0].sources)

    def build(self) -> Trainable:
        """Return the torch model with first weights drawn by torch's generator."""
        recipe, settings = self.recipe, self.recipe.train
        return Translator(
            self.spec,
            Regularisation(
                settings.dropout, settings.input_dropout, settings.variational, settings.dropconnect
            ),
            settings.kernel,
            recipe.model.init or "orthogonal",
            own_share(recipe.pairs.scheduled_sampling, recipe.pairs.sampling_schedule),
        )

    def identity(self) -> Json:
        """Return counts and a digest of the pairs."""
        total = hashlib.sha256()
        for part in self.parts:
            for text in (*part.sources, *part.targets):
                total.update(f"{len(text)} {text}".encode())
        counts = [len(part) for part in self.parts]
        return {"cases": sum(counts), "parts": counts, "digest": total.hexdigest()}

    def feeds(self) -> tuple[Feed, Feed | None]:
        """Return the training and the validation pairs."""
        training, validation, _ = self._coded
        return training, validation if len(validation.sources) else None

    def finishing(self) -> Feed | None:
        """Return training and validation pairs together, where there are others to score."""
        if not self.parts[2]:
            return None
        training, validation, _ = self._coded
        return PairFeed(
            [*training.sources, *validation.sources], [*training.targets, *validation.targets]
        )

    @cached_property
    def _coded(self) -> tuple[PairFeed, PairFeed, PairFeed]:
        source, target = self.symbols
        train, validation, test = (
            PairFeed(
                [source.encode(text) for text in part.sources],
                [target.encode(text) for text in part.targets],
            )
            for part in self.parts
        )
        return train, validation, test

    def floors(self) -> tuple[Json, dict[str, NDArray[Any]]]:
        """Return the floors of the one task."""
        arrays = {f"0/{name}": each for name, each in self.fitted_floors.to_arrays().items()}
        return {"translate": self.fitted_floors.to_json()}, arrays

    def facts(self) -> Json:
        """Return sizes, the split, and how to read and translate later."""
        return {
            "cases": sum(len(part) for part in self.parts),
            "split": {"description": self.split, "cases": [len(part) for part in self.parts]},
            "reading": dict(self.reading),
            "decoding": self.decoding._asdict(),
        }

    def about(self) -> About:
        """Return what the model card tells."""
        spec = self.spec
        said = f"{len(spec.source):,} symbols of the source, {len(spec.target):,} of the target"
        return About(
            answers="Given a source, this model says its most probable target.",
            layers=f"encoder {layers_in_words(spec.encoder)}; decoder "
            f"{layers_in_words(spec.decoder)}; context {spec.context}",
            inputs=f"{said} ({spec.source.unit})",
            found=f"{sum(len(part) for part in self.parts):,} pairs",
            split=self.split,
            limits=(
                "A translation is the search's best, and may be fluent and wrong; its probability "
                "says how sure the model is, not how true it is.",
                "The floors keep the training targets: do not pass the folder on where these are "
                "confidential.",
            ),
        )

    def score(self, artifact: Artifact, seed: int) -> Json:
        """Score the test pairs; without any, the validation pairs, or the training ones."""
        named = zip(("test", "validation", "training"), self.parts[::-1], strict=True)
        part, pairs = next((name, each) for name, each in named if len(each))
        floors, decoding = self.fitted_floors, self.decoding
        return {
            "part": part,
            **evaluate_pairs(Runtime(artifact), floors, pairs, decoding, seed=seed),
        }


def prepare(source: Any, recipe: Recipe, observer: Remark) -> PreparedPairs:
    """Read and share out pairs; fit symbols and floors on the training part."""
    _refuse_unused(recipe)
    remarks: list[str] = []

    def tell(remark: str) -> None:
        remarks.append(remark)
        observer(remark)

    parts, split = _parts(source, recipe, tell)
    training = parts[0]
    if len(training) < LEAST_TRAINING_PAIRS:
        raise DataError(
            f"Only {len(training)} pairs are left to train on.",
            f"At least {LEAST_TRAINING_PAIRS} are needed.",
            "Give more pairs, or smaller shares for validation and test.",
        )
    chosen = recipe.pairs
    source_symbols, target_symbols = (
        Symbols.fit(
            texts,
            chosen.unit,
            size=chosen.size,
            least_count=chosen.least_count,
            lowercase=chosen.lowercase,
        )
        for texts in (training.sources, training.targets)
    )
    return PreparedPairs(
        called(source if chosen.target is None else (source, chosen.target)),
        recipe,
        tuple(remarks),
        parts,
        split,
        (source_symbols, target_symbols),
        PairFloors.fit(training.sources, training.targets),
        {"encoding": recipe.input.encoding, "aligned": chosen.target is not None},
    )


def spec_of(source: Symbols, target: Symbols, recipe: Recipe) -> TranslatorSpec:
    """Return the translator that a recipe asks for.

    The two directions of an encoder together are as wide as the decoder.
    """
    model, chosen = recipe.model, recipe.pairs
    width, hidden = model.embedding_size, model.hidden_size
    attention = model.cell == "attention"
    context: Context = chosen.context or ("cross" if attention else "general")
    encoder: tuple[AnyLayerSpec, ...]
    decoder: tuple[AnyLayerSpec, ...]
    if attention:
        sizes = (width, hidden, model.layers, model.attention_heads, FEEDFORWARD * hidden)
        encoder = (TransformerSpec(*sizes, positions=model.positions, causal=False),)
        decoder = (TransformerSpec(*sizes, positions=model.positions, memory_size=hidden),)
    else:
        both = model.bidirectional
        encoder = recurrent_layers(recipe, width, hidden // 2 if both else hidden, both=both)
        memory = hidden // 2 * 2 if both else hidden
        reads = width * (2 if chosen.input_feeding else 1)
        reads += memory if context in ("every_step", "additive") else 0
        decoder = recurrent_layers(recipe, reads, hidden, both=False)
    return TranslatorSpec(
        source,
        target,
        (width, width),
        encoder,
        decoder,
        context,
        chosen.reverse_source,
        chosen.input_feeding,
        chosen.coverage,
        model.tied,
    )


def _parts(source: Any, recipe: Recipe, tell: Remark) -> tuple[tuple[Pairs, Pairs, Pairs], str]:
    """Read every file and share pairs out; return the parts and how that was done."""
    chosen, split = recipe.pairs, recipe.split

    def read(source: Any, target: str | None) -> Pairs:
        return read_pairs(
            source,
            target,
            encoding=recipe.input.encoding,
            drop_bad=recipe.input.allow_bad_rows,
            tell=tell,
        )

    pairs = read(source, chosen.target)
    if not chosen.keep_repeated:
        pairs = drop_repeated(pairs, tell)
    test = validation = None
    if split.test_file is not None:
        test = read(split.test_file, chosen.test_target)
    if chosen.validation_file is not None:
        validation = read(chosen.validation_file, chosen.validation_target)
    train, shared, last = split_pairs(
        pairs,
        validation=0.0 if validation is not None else split.validation,
        test=0.0 if test is not None else split.test,
    )
    validation, test = validation or shared, test or last
    if not chosen.keep_repeated:
        train = drop_seen(train, (validation, test), tell)
    described = (
        f"the first {len(train)} pairs train, {len(validation)} "
        f"{'of another file ' * (chosen.validation_file is not None)}validate, {len(test)} "
        f"{'of another file ' * (split.test_file is not None)}test"
    )
    return (train, validation, test), described


def _refuse_unused(recipe: Recipe) -> None:
    """Refuse settings that a translator does not have."""
    given = {
        "model.residual": recipe.model.residual,
        "model.layer_norm": recipe.model.layer_norm,
        "split.strict": recipe.split.strict,
        "split.column": recipe.split.column is not None,
    }
    of_tables = recipe.input.model_dump(exclude_defaults=True).keys() - READING
    unused = [name for name, value in given.items() if value]
    unused += [f"input.{name}" for name in sorted(of_tables)]
    for name, file in (
        ("pairs.test_target", recipe.split.test_file),
        ("pairs.validation_target", recipe.pairs.validation_file),
    ):
        if getattr(recipe.pairs, name.partition(".")[2]) is not None and file is None:
            unused.append(name)
    if unused:
        raise UsageError(
            f"{', '.join(unused)} is set.",
            "A translator has no such part, pairs have no such columns, or the file that goes with "
            "it is not given.",
            "Leave it out.",
        )
