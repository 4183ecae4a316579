"""Scores of translations beside their floors: BLEU and chrF by sacrebleu, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import UsageError
from hiddenstate.job.card import FLOORS, NAMES
from hiddenstate.schema import words
from hiddenstate.tasks.compare import FEWEST_CASES
from hiddenstate.tasks.resampling import Resampling, finite, interval

Json = dict[str, Any]
Floats = NDArray[np.float64]

METRICS = ("bleu", "chrf")
BUCKETS: tuple[tuple[int, int | None], ...] = (
    (1, 5), (6, 8), (9, 11), (12, 14), (15, 19), (20, None),
)  # fmt: skip


class Judge(NamedTuple):
    """One of sacrebleu's metrics.

    counts holds what it adds up over the pairs [C, K]; `of_sums` makes a score of a sum.
    """

    metric: Any

    def counts(self, translations: Sequence[str], references: Sequence[str]) -> Floats:
        """Return what the score of each pair is made of [C, K]."""
        # The method that every metric of sacrebleu has for its own bootstrap.
        rows = self.metric._extract_corpus_statistics(list(translations), [list(references)])
        return np.array(rows, dtype=np.float64)

    def of_sums(self, sums: Floats) -> Floats:
        """Return a score for each row of sums [N, K], in percent."""
        found = (self.metric._compute_score_from_stats(row.astype(int).tolist()) for row in sums)
        return np.array([each.score for each in found], dtype=np.float64)

    @property
    def signature(self) -> str:
        """What was computed, and by which version, in sacrebleu's words."""
        return str(self.metric.get_signature())


def judges() -> dict[str, Judge]:
    """Return the metrics by name; UsageError where sacrebleu is not installed."""
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        raise UsageError(
            "Translations were to be scored, and the package sacrebleu is not installed.",
            "It computes BLEU and chrF as everybody does.",
            "Install it: pip install 'hiddenstate[tasks]'",
        ) from None
    return {"bleu": Judge(BLEU()), "chrf": Judge(CHRF())}


def score_translations(
    sources: Sequence[str],
    references: Sequence[str],
    translations: Sequence[str],
    floors: Mapping[str, Sequence[str]],
    description: str,
    *,
    bootstrap: int,
    seed: int,
) -> Json:
    """Return the scores of one task as JSON values, in the form of `job.scores`.

    BLEU (Papineni et al. 2002) and chrF (Popovic 2015) of the whole corpus in percent; by_length
    goes by the words of the source. Every pair is a case, and they are drawn together for the model
    and its floors. `signatures` names what exactly was computed.
    """
    lengths = np.array([len(words.cut(source)) for source in sources])
    named = {"": translations, **floors}
    drawn: dict[str, dict[str, Floats]] = {name: {} for name in named}
    by_length: dict[str, list[Json]] = {name: [] for name in named}
    chosen = judges()
    counts = {
        (name, metric): judge.counts(texts, references)
        for name, texts in named.items()
        for metric, judge in chosen.items()
    }
    everything = Resampling(np.arange(len(sources)), bootstrap, seed)
    for (name, metric), each in counts.items():
        drawn[name][metric] = _draws(chosen[metric], each, everything)
    for shortest, longest in BUCKETS:
        inside = (lengths >= shortest) & (lengths <= (longest or lengths.max(initial=0)))
        if not inside.any():
            continue
        part = Resampling(np.flatnonzero(inside), bootstrap, seed)
        for name in named:
            scores = {
                metric: interval(_draws(judge, counts[name, metric][inside], part)).to_json()
                for metric, judge in chosen.items()
            }
            by_length[name].append(
                {"from": shortest, "to": longest, "events": int(inside.sum()), "metrics": scores}
            )

    def whole(name: str) -> Json:
        return {
            "events": int(lengths.sum()),
            "cases": len(sources),
            "unknown": 0,
            "metrics": {
                metric: interval(values).to_json() for metric, values in drawn[name].items()
            },
            "by_length": by_length[name],
        }

    return {
        "kind": "texts",
        "model": whole(""),
        "floors": {name: whole(name) for name in floors},
        "floors_description": description,
        "verdicts": {
            floor: {
                metric: _verdict(metric, floor, drawn[""][metric], drawn[floor][metric], everything)
                for metric in METRICS
            }
            for floor in floors
        },
        "signatures": {metric: judge.signature for metric, judge in chosen.items()},
    }


def _draws(judge: Judge, counts: Floats, resampling: Resampling) -> Floats:
    """Return the score of the pairs as they are, and of every draw of them [1 + draws]."""
    sums = [resampling.sums(column)[:, 0] for column in counts.T]
    return judge.of_sums(np.stack(sums, axis=1))


def _verdict(metric: str, floor: str, model: Floats, other: Floats, draws: Resampling) -> Json:
    """Compare two translators over the same draws; the form is that of `tasks.compare.Verdict`."""
    difference = interval(model - other)
    low, high = difference.low, difference.high
    enough = draws.cases >= FEWEST_CASES
    verdict = "tie"
    if enough and (low > 0 or high < 0):
        verdict = "better" if difference.value > 0 else "worse"
    pair = f"{NAMES[metric]} {model[0]:.1f} against {other[0]:.1f}"
    span = f"95 % interval {low:+.1f} to {high:+.1f}, {draws.cases} pairs"
    sentence = {
        "better": f"Better than the {FLOORS[floor]}: {pair} ({span}).",
        "worse": f"Worse than the {FLOORS[floor]}: {pair} ({span}).",
        "tie": f"Tie with the {FLOORS[floor]}: {pair}; the difference could be chance ({span}).",
    }[verdict]
    if not enough:
        sentence = f"Tie with the {FLOORS[floor]}: {pair}; too few pairs to tell ({draws.cases})."
    return {
        "metric": metric,
        "model": finite(float(model[0])),
        "floor": finite(float(other[0])),
        "difference": finite(difference.value),
        "low": finite(low),
        "high": finite(high),
        "cases": draws.cases,
        "verdict": verdict,
        "floor_name": FLOORS[floor],
        "sentence": sentence,
    }
