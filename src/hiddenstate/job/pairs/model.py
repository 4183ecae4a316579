"""A fitted translator, as the command line and Python use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import Artifact
from hiddenstate.errors import UsageError
from hiddenstate.job.model import Model, Remark, silent
from hiddenstate.job.pairs.evaluate import Decoding, Translation, evaluate_pairs, translate
from hiddenstate.kernels.native import Storage
from hiddenstate.runtime.translator import Translator
from hiddenstate.tasks.pair_floors import PairFloors

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True)
class Alignment:
    """Where the decoder looked in a source for each symbol of a target.

    source [S] and target [M + 1] are the symbols as text, the last of the target its end; weights
    [M + 1, S] sum to 1 over the source.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    weights: NDArray[np.float32]

    def to_json(self) -> dict[str, Any]:
        """Return the alignment as JSON values."""
        weights = np.round(self.weights.astype(np.float64), 4).tolist()
        return {"source": self.source, "target": self.target, "weights": weights}


class Fitted(Model):
    """Translates texts, and shows where it looked."""

    def __init__(self, artifact: Artifact, weights: Storage = "float32") -> None:
        """Wrap an artifact; `weights` is how its recurrent weights are held, as in `runtime`."""
        super().__init__(artifact, weights)
        self.runtime = Translator(artifact, weights)
        self._reading: Mapping[str, Any] = dict(artifact.metrics["reading"])
        self.decoding = Decoding(**artifact.metrics["decoding"])
        arrays = {name.removeprefix("0/"): array for name, array in artifact.floor_arrays.items()}
        self._floors = PairFloors.from_json(artifact.floors["translate"], arrays)

    def translate(
        self,
        texts: Sequence[str],
        *,
        beam: int | None = None,
        length_penalty: float | None = None,
    ) -> list[Translation]:
        """Translate texts; one that is empty or blank has an empty translation.

        beam:           hypotheses kept, 1 is greedy; as in the fit when not given
        length_penalty: see `runtime.decoding.Hypothesis`; as in the fit when not given
        """
        filled = [row for row, text in enumerate(texts) if text.strip()]
        found = [Translation("", 0.0, 0.0)] * len(texts)
        decoding = self._decoding(beam, length_penalty)
        for row, each in zip(
            filled,
            translate(self.runtime, [texts[row].strip() for row in filled], decoding),
            strict=True,
        ):
            found[row] = each
        return found

    def alignment(
        self, source: str, target: str | None = None, head: int | None = None
    ) -> Alignment:
        """Return the weights of attention for a pair; without a target, for its translation.

        head: of a transformer's last block, from 1; None = the mean over all. Raises UsageError for
        another one, SpecError for a model without attention, DataError for an empty source.
        """
        spec = self.runtime.spec
        codes = spec.source.encode(source.strip())
        if target is None:
            ((best, *_),) = self.runtime.translate(
                [codes], width=self.decoding.beam, length_penalty=self.decoding.length_penalty
            )
            said: Any = best.codes
        else:
            said = spec.target.encode(target.strip())
        heads = self.runtime.looks(codes, said)
        if head is not None and not 1 <= head <= len(heads):
            raise UsageError(
                f"Head {head} was asked for.",
                f"This model looks at the source with {len(heads)}, counted from 1.",
                "Name one of them, or leave it out for the mean over all.",
            )
        weights = heads.mean(axis=0) if head is None else heads[head - 1]
        return Alignment(
            tuple(spec.source.shown(int(code)) for code in codes),
            (*(spec.target.shown(int(code)) for code in said), "<end>"),
            weights,
        )

    def evaluate(
        self,
        source: Any,
        *,
        target: str | Path | None = None,
        bootstrap: int = 1000,
        seed: int = 0,
        beam: int | None = None,
        length_penalty: float | None = None,
        encoding: str | None = None,
        allow_bad_rows: bool | None = None,
        observer: Remark = silent,
        **foreign: Any,
    ) -> dict[str, Any]:
        """Score the translations of pairs; see `data.pairs.read_pairs` for source and target."""
        _refuse(foreign)
        from hiddenstate.data.pairs import read_pairs

        pairs = read_pairs(
            source,
            target,
            encoding=encoding or self._reading["encoding"],
            drop_bad=bool(allow_bad_rows),
            tell=observer,
        )
        decoding = self._decoding(beam, length_penalty)
        return dict(
            evaluate_pairs(
                self.runtime, self._floors, pairs, decoding, bootstrap=bootstrap, seed=seed
            )
        )

    def predict(
        self,
        source: Any,
        *,
        encoding: str | None = None,
        observer: Remark = silent,
        **foreign: Any,
    ) -> polars.DataFrame:
        """Translate a file's lines or a list of texts; a row for each, with its probability."""
        del observer
        _refuse(foreign)
        import polars

        from hiddenstate.data.pairs import read_lines

        texts = source
        if isinstance(source, str | Path):
            texts = read_lines(Path(source), encoding or self._reading["encoding"])
        found = self.translate(list(texts))
        return polars.DataFrame(
            {
                "source": list(texts),
                "translation": [each.text for each in found],
                "log_probability": [each.log_probability for each in found],
            }
        )

    def _decoding(self, beam: int | None, length_penalty: float | None) -> Decoding:
        return Decoding(
            self.decoding.beam if beam is None else beam,
            self.decoding.length_penalty if length_penalty is None else length_penalty,
        )


def _refuse(foreign: Mapping[str, Any]) -> None:
    """Refuse options of event logs, which the commands have for all models."""
    given = [name for name, value in foreign.items() if value not in (None, False)]
    if given:
        raise UsageError(
            f"{', '.join(given)} is set, and this model is a translator.",
            "Such options are about the columns and events of event logs.",
            "Leave it out.",
        )
