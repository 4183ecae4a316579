"""Scores of a translator on pairs, beside its floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hiddenstate.job.pairs.scores import METRICS, score_translations
from hiddenstate.job.scores import result
from hiddenstate.runtime.translator import Translator
from hiddenstate.schema import words
from hiddenstate.tasks.pair_floors import PairFloors

if TYPE_CHECKING:
    from hiddenstate.data.pairs import Pairs

UNITS = ("pairs", "source words")


class Decoding(NamedTuple):
    """How the best translation is searched for; see `runtime.decoding.beam_search`."""

    beam: int
    length_penalty: float


class Translation(NamedTuple):
    """A translation, its log probability in nats with that of its end, and the search's score."""

    text: str
    log_probability: float
    score: float


def translate(runtime: Translator, sources: Sequence[str], decoding: Decoding) -> list[Translation]:
    """Translate texts, each with at least one symbol; the unknown symbol is never said."""
    spec = runtime.spec
    found = runtime.translate(
        [spec.source.encode(text) for text in sources],
        width=decoding.beam,
        length_penalty=decoding.length_penalty,
    )
    return [
        Translation(
            spec.target.decode(best.codes),
            best.log_probability,
            best.score(decoding.length_penalty),
        )
        for best, *_ in found
    ]


def evaluate_pairs(
    runtime: Translator,
    floors: PairFloors,
    pairs: Pairs,
    decoding: Decoding,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Mapping[str, Any]:
    """Return BLEU and chrF of the model and its floors, with intervals, by source length too.

    `signatures` and `decoding` tell what exactly was computed.
    """
    said = [each.text for each in translate(runtime, pairs.sources, decoding)]
    scores = score_translations(
        pairs.sources,
        pairs.targets,
        said,
        floors.translate(pairs.sources),
        floors.description,
        bootstrap=bootstrap,
        seed=seed,
    )
    count = sum(len(words.cut(source)) for source in pairs.sources)
    named = {"translate": scores}
    top = result(runtime.fingerprint, len(pairs), count, named, METRICS, UNITS)
    return {**top, "decoding": decoding._asdict()}
