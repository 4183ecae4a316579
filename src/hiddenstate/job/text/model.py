"""A fitted language model: judged on texts, asked what comes next, and let write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import Artifact
from hiddenstate.cells.state import select
from hiddenstate.errors import UsageError
from hiddenstate.job.model import Model, Remark, load, part, refuse_options, silent
from hiddenstate.job.text.evaluate import evaluate_text, log_probabilities
from hiddenstate.job.text.unknowns import unknowns_in_words
from hiddenstate.kernels.native import Storage
from hiddenstate.runtime import Model as Runtime
from hiddenstate.runtime.decoding import beam_search, sample
from hiddenstate.schema import UNKNOWN, Symbols
from hiddenstate.schema.documents import BOUNDARY, TextCodes
from hiddenstate.tasks.language import NAME, LanguageFloors, targets_of
from hiddenstate.tasks.task import UNKNOWN_CLASS

if TYPE_CHECKING:
    import polars

    from hiddenstate.data.text import Texts

OPTIONS = ("encoding", "documents", "text_column")
SHOWN_NEXT = 5
# A long prompt is read in parts of so many symbols.
READ_STEPS = 4096


class Symbol(NamedTuple):
    """What the model said of one symbol of a text.

    document:         its document, from 1;  place: its place there, from 1
    symbol:           the symbol as a table shows it; BOUNDARY for the end of a document
    log_probability:  in nats, given all before it in the document; None where it is unknown
    rank:             its place among all symbols, 1 is the most probable; None where it is unknown
    best:             the most probable symbol, and its probability
    """

    document: int
    place: int
    symbol: str
    log_probability: float | None
    rank: int | None
    best: str
    best_probability: float


class Fitted(Model):
    """Predicts the next symbol of a text.

    model = hiddenstate.load("runs/shakespeare")
    print("".join(model.generate("ROMEO:", length=200, seed=1)))
    """

    def __init__(self, artifact: Artifact, weights: Storage = "float32") -> None:
        """Wrap an artifact; see `job.model.Model`."""
        super().__init__(artifact, weights)
        self.runtime = Runtime(artifact, weights)
        self.symbols = part(self.runtime.spec.schema, Symbols)
        self._reading = dict(artifact.metrics["reading"])
        arrays = {name.removeprefix("0/"): a for name, a in artifact.floor_arrays.items()}
        self._floors = LanguageFloors.read(artifact.floors[NAME], arrays)

    def read(self, source: Any, observer: Remark = silent, **options: Any) -> Texts:
        """Read a source as the fit did; tell what is unknown.

        options: encoding, documents and text_column, where they differ from the fit's
        """
        from hiddenstate.data.text import Texts, read_texts

        refuse_options(options, OPTIONS, NAME)
        settings = {**self._reading, **{k: v for k, v in options.items() if v}}
        texts = read_texts(
            source,
            documents=settings["documents"],
            encoding=settings["encoding"],
            column=settings["text_column"],
            tell=observer,
        )
        told = unknowns_in_words(texts.documents, self.symbols)
        if told:
            observer(f"The text has {told} They have no log probability.")
        return Texts(texts.documents, bool(settings["ends"]))

    def evaluate(
        self,
        source: Any,
        *,
        bootstrap: int = 1000,
        seed: int = 0,
        observer: Remark = silent,
        **options: Any,
    ) -> dict[str, Any]:
        """Score the model on a text beside its floors; see `read` for the options."""
        text = self._encode(self.read(source, observer, **options))
        return evaluate_text(self.runtime, self._floors, text, bootstrap=bootstrap, seed=seed)

    def predict(
        self, source: Any, *, observer: Remark = silent, **options: Any
    ) -> polars.DataFrame:
        """Return the most probable symbols behind the end of each document, SHOWN_NEXT of them."""
        import polars

        texts = self.read(source, observer, **options)
        rows = []
        for number, document in enumerate(texts.documents, 1):
            codes = np.concatenate(([self._boundary], self.symbols.encode(document)))
            log_p, _ = self._take(codes[None])
            for rank, code in enumerate(np.argsort(-log_p[0], kind="stable")[:SHOWN_NEXT], 1):
                p = float(np.exp(log_p[0, code]))
                rows.append((number, rank, self.symbols.shown(int(code)), p))
        names = ["document", "rank", "next_symbol", "probability"]
        return polars.DataFrame(rows, schema=names, orient="row")

    def score(self, source: Any, observer: Remark = silent, **options: Any) -> Iterator[Symbol]:
        """Yield what the model says of each symbol of a text, document by document."""
        texts = self.read(source, observer, **options)
        for number, document in enumerate(texts.documents, 1):
            yield from self._scored(number, document, texts.ends)

    def generate(
        self,
        prompt: str = "",
        *,
        length: int = 500,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        beam: int | None = None,
        seed: int = 0,
        observer: Remark = silent,
    ) -> Iterator[str]:
        """Yield the text that goes on from a prompt, as it is drawn, symbol by symbol.

        prompt:      an empty one begins a document; its unknown symbols are read as the unknown
                     symbol, and told
        length:      most symbols; a model that knows where documents end may stop before
        temperature, top_k, top_p: see `runtime.decoding.choices`; temperature 0 takes the most
                     probable symbol each time
        beam:        finds the most probable continuation by beam search of this width instead, and
                     yields it whole

        The same seed gives the same text. Unknown symbols are never written. Raises UsageError for
        settings out of range.
        """
        if length < 1 or (beam is not None and (temperature != 1 or top_k or top_p)):
            raise UsageError(
                f"{length} symbols were asked for."
                if length < 1
                else "A beam was asked for together with settings of drawing.",
                "At least 1 symbol is written, and a beam search draws nothing by chance.",
                "Give a length of 1 or more, or leave temperature, top_k and top_p out.",
            )
        told = unknowns_in_words([prompt], self.symbols)
        if told:
            observer(f"The prompt has {told} They are read as the unknown symbol.")
        read = [self._boundary, *self.symbols.encode(prompt).tolist()]
        reader = self.symbols.reader()
        for code in read:
            reader.read(code)
        ends = bool(self._reading["ends"])
        state = None
        if len(read) > 1:
            _, state = self._take(np.array([read[:-1]]))
        first = np.array(read[-1:])
        if beam is not None:
            stepper = _Stepper(self, None if ends else length)
            found = beam_search(
                stepper,
                first,
                state,
                end=self._boundary,
                longest=length,
                width=beam,
                length_penalty=0.0,
                forbidden=(UNKNOWN,),
            )
            yield "".join(reader.read(int(code)) for code in found[0][0].codes)
        else:
            drawn = sample(
                _Stepper(self, None),
                first,
                state,
                longest=length,
                end=self._boundary if ends else None,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                seed=seed,
                forbidden=(UNKNOWN,) if ends else (UNKNOWN, self._boundary),
            )
            for codes in drawn:
                if piece := reader.read(int(codes[0])):
                    yield piece
        if rest := reader.end():
            yield rest

    @property
    def _boundary(self) -> int:
        return self.symbols.code(BOUNDARY)

    def _encode(self, texts: Texts) -> TextCodes:
        return TextCodes.of(texts.documents, self.symbols, ends=texts.ends)

    def _take(self, codes: NDArray[Any], state: Any = None) -> tuple[NDArray[np.float64], Any]:
        """Read codes [R, T]; return the log probabilities [R, V] of what comes next, and state."""
        last = np.zeros((0, 0))
        for start in range(0, codes.shape[1], READ_STEPS):
            part = codes[:, start : start + READ_STEPS, None]
            outputs, state = self.runtime.run(
                part, np.zeros((*part.shape[:2], 0), dtype=np.float32), None, state
            )
            (last,) = self.runtime.decode((outputs[0][:, -1],))
        return last, state

    def _scored(self, number: int, document: str, ends: bool) -> Iterator[Symbol]:
        text = TextCodes.of([document], self.symbols, ends=ends)
        shown, truth = [*self.symbols.cut(document), BOUNDARY], targets_of(text)
        for steps, log_p in log_probabilities(self.runtime, text):
            best = log_p.argmax(axis=1)
            for step, row, top in zip(steps, log_p, best):
                code = int(truth[step])
                known = code != UNKNOWN_CLASS
                yield Symbol(
                    number,
                    int(step) + 1,
                    shown[step],
                    float(row[code]) if known else None,
                    1 + int((row > row[code]).sum()) if known else None,
                    self.symbols.shown(int(top)),
                    float(np.exp(row[top])),
                )


def language_model(run: str | Path) -> Fitted:
    """Load a run folder that holds a language model; UsageError for a model of another kind."""
    model = load(run)
    if not isinstance(model, Fitted):
        raise UsageError(
            f"{run} holds a model of {', '.join(model.artifact.spec.task_names)}.",
            f"Text is written and scored by a language model, fitted with --task {NAME}.",
            "Name a run of that task.",
        )
    return model


class _Stepper:
    """The model as `runtime.decoding` asks for it.

    free_end: after how many symbols the end costs nothing, and before it cannot be; for texts
              without an end. None leaves the end to the model.
    """

    def __init__(self, model: Fitted, free_end: int | None) -> None:
        self._model, self._free_end, self._steps = model, free_end, 0

    def step(self, codes: NDArray[np.int64], state: Any) -> tuple[NDArray[np.float64], Any]:
        """Read one code of each sequence [R]; return log p of the next [R, V], and the state."""
        log_p, state = self._model._take(codes[:, None], state)
        if self._free_end is not None:
            end = self._model._boundary
            log_p[:, end] = 0.0 if self._steps >= self._free_end else -np.inf
            self._steps += 1
        return log_p, state

    def select(self, state: Any, rows: NDArray[np.int64]) -> Any:
        """Return the state of some rows."""
        return select(state, rows)
