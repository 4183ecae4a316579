"""TranslatorSpec: an encoder and a decoder, as data. `models` trains it, `runtime` translates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hiddenstate.artifact.spec import AnyLayerSpec, LayerSpec, layer_from_json
from hiddenstate.artifact.transformer import TransformerSpec
from hiddenstate.cells import Cell
from hiddenstate.cells import from_json as cell_from_json
from hiddenstate.errors import ArtifactError, SpecError, nearest
from hiddenstate.schema.symbols import Symbols

FORMAT, VERSION = "hiddenstate.translator", 1

Context = Literal["first_state", "every_step", "additive", "dot", "general", "cross"]
CONTEXTS: tuple[Context, ...] = get_args(Context)


@dataclass(frozen=True)
class TranslatorSpec:
    """A model of p(y_1..y_M | x_1..x_S) = prod_t p(y_t | y_<t, x) (SPEC 4.3).

    One code more than the target's symbols have, the boundary, stands before y_1 as an input and
    after y_M as an output.

    encoder    layers over the source's embeddings: h_j [P] is what the top gives at source step j,
               the end is h_S, of a backward direction h_1
    decoder    layers over the target's embeddings: s_t is what the top gives at target step t;
               recurrent ones begin with the state tanh(W end + b)
    context    what of the source a target step sees, beside that first state:
               first_state  nothing (Sutskever et al. 2014, arXiv:1409.3215)
               every_step   the end, in the decoder's input and in the read-out (Cho et al. 2014,
                            arXiv:1406.1078)
               additive     attention that s_{t-1} asks, so that c_t is in the decoder's input and
                            in the read-out (Bahdanau et al. 2014, arXiv:1409.0473)
               dot, general attention that s_t asks, so that c_t is in the read-out (Luong et al.
                            2015, arXiv:1508.04025, equations 5 and 8)
               cross        every block of a transformer looks at the source (Vaswani et al. 2017)
    read-out   a_t = tanh(W [s_t ; c_t] + b), as wide as the target's embedding; o_t = E a_t + b

    embeddings      widths of the source's and the target's embedding
    reverse_source  the encoder reads the source from its last step (Sutskever et al. 2014)
    input_feeding   a_{t-1} is part of the decoder's input at t (Luong et al. 2015, section 3.3)
    coverage        additive scores see the sum of earlier weights (See et al. 2017)
    tied            E is the target's embedding (Press and Wolf 2017); else it is learned apart

    Raises SpecError for parts that do not fit.
    """

    source: Symbols
    target: Symbols
    embeddings: tuple[int, int]
    encoder: tuple[AnyLayerSpec, ...]
    decoder: tuple[AnyLayerSpec, ...]
    context: Context = "general"
    reverse_source: bool = False
    input_feeding: bool = False
    coverage: bool = False
    tied: bool = True

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        if self.context not in CONTEXTS:
            raise SpecError(
                f"There is no context {self.context!r}.",
                f"hiddenstate knows {', '.join(CONTEXTS)}.",
                f"Choose one of them.{nearest(self.context, CONTEXTS)}",
            )
        if self.coverage and self.context != "additive":
            raise SpecError(
                f"Coverage was asked for with the context {self.context!r}.",
                "It is a term of the additive score (See et al. 2017, equation 11).",
                "Take the additive context, or leave coverage out.",
            )
        if self.input_feeding and not self.attends:
            raise SpecError(
                f"Input feeding was asked for with the context {self.context!r}.",
                "It tells the decoder where attention has looked (Luong et al. 2015, section 3.3).",
                "Take additive, dot or general, or leave input feeding out.",
            )
        self._require_decoder()
        sizes = (self.embeddings[0], self.encoder), (self.decoder_input_size, self.decoder)
        for (width, layers), part in zip(sizes, ("encoder", "decoder")):
            for index, layer in enumerate(layers):
                if _input_size(layer) != width:
                    raise SpecError(
                        f"Layer {index} of the {part} reads {_input_size(layer)} features.",
                        f"What stands before it gives {width}.",
                        f"Build the layer with input_size={width}.",
                    )
                width = _output_size(layer)
        if self.context == "dot" and self.memory_size != _output_size(self.decoder[-1]):
            raise SpecError(
                f"The encoder gives {self.memory_size} features, the decoder "
                f"{_output_size(self.decoder[-1])}.",
                "A dot product needs equal widths.",
                "Take the general context, or equal widths.",
            )

    def _require_decoder(self) -> None:
        """Refuse a decoder that cannot go from step to step or look at the source as told."""
        one = self.decoder[0] if len(self.decoder) == 1 else None
        if self.context == "cross":
            fits = isinstance(one, TransformerSpec) and one.memory_size == self.memory_size
            wanted = f"one transformer with memory_size={self.memory_size}"
        else:
            fits = len(self.cells) == len(self.decoder) > 0
            wanted = "recurrent layers"
        if not fits or not all(layer.causal for layer in self.decoder):
            raise SpecError(
                f"The context {self.context!r} does not go with this decoder.",
                f"It takes {wanted}, in one direction.",
                "Change the context or the decoder.",
            )

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks: there is one."""
        return ("translate",)

    @property
    def boundary(self) -> int:
        """The code that begins and ends a target."""
        return len(self.target)

    @property
    def embedding_rows(self) -> tuple[int, int]:
        """Codes of the source's and the target's embedding."""
        return len(self.source), len(self.target) + 1

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The decoder's cells, none where it is a transformer."""
        return tuple(
            cell_from_json(layer.cell) for layer in self.decoder if isinstance(layer, LayerSpec)
        )

    @property
    def first_state_sizes(self) -> list[int]:
        """Widths of the arrays of the decoder's first state, one after another."""
        return [width for cell in self.cells for width in cell.state_shapes().values()]

    @property
    def memory_size(self) -> int:
        """P, width of the encoder's states."""
        return _output_size(self.encoder[-1])

    @property
    def forward_size(self) -> int:
        """How much of P the source's end takes from its last step; the rest is from its first."""
        top = self.encoder[-1]
        both = isinstance(top, LayerSpec) and top.bidirectional
        return self.memory_size // 2 if both else self.memory_size

    @property
    def attends(self) -> bool:
        """Whether a recurrent decoder looks at the source."""
        return self.context in ("additive", "dot", "general")

    @property
    def context_size(self) -> int:
        """Width of c_t."""
        return self.memory_size if self.attends or self.context == "every_step" else 0

    @property
    def stepwise(self) -> bool:
        """Whether a step's input needs more of the step before than the state."""
        return self.context == "additive" or self.input_feeding

    @property
    def decoder_input_size(self) -> int:
        """Width of what the decoder reads at a step: y_{t-1}, c_t and a_{t-1}, where they are."""
        seen = self.memory_size if self.context in ("additive", "every_step") else 0
        return self.embeddings[1] * (2 if self.input_feeding else 1) + seen

    def to_json(self) -> dict[str, Any]:
        """Return the specification as JSON values."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "source": self.source.to_json(),
            "target": self.target.to_json(),
            "embeddings": list(self.embeddings),
            "encoder": [layer.to_json() for layer in self.encoder],
            "decoder": [layer.to_json() for layer in self.decoder],
            "context": self.context,
            "reverse_source": self.reverse_source,
            "input_feeding": self.input_feeding,
            "coverage": self.coverage,
            "tied": self.tied,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> TranslatorSpec:
        """Rebuild a specification; ArtifactError for another format or a missing key."""
        if value.get("format") != FORMAT or value.get("version") != VERSION:
            raise ArtifactError(
                f"The specification has format {value.get('format')!r}, "
                f"version {value.get('version')!r}.",
                f"This hiddenstate reads format {FORMAT!r}, version {VERSION}.",
                "Use the version of hiddenstate that wrote it, or fit the model again.",
            )
        try:
            source, target = (int(size) for size in value["embeddings"])
            return TranslatorSpec(
                Symbols.from_json(value["source"], "source"),
                Symbols.from_json(value["target"], "target"),
                (source, target),
                tuple(layer_from_json(layer) for layer in value["encoder"]),
                tuple(layer_from_json(layer) for layer in value["decoder"]),
                value["context"],
                bool(value["reverse_source"]),
                bool(value["input_feeding"]),
                bool(value["coverage"]),
                bool(value["tied"]),
            )
        except (KeyError, TypeError, ValueError, SpecError) as problem:
            raise ArtifactError(
                f"The specification is not whole ({type(problem).__name__}: {problem}).",
                "It must hold source, target, encoder and decoder, and they must fit.",
                "Restore spec.json from a copy, or fit the model again.",
            ) from None


def _input_size(layer: AnyLayerSpec) -> int:
    if isinstance(layer, TransformerSpec):
        return layer.input_size
    return cell_from_json(layer.cell).input_size


def _output_size(layer: AnyLayerSpec) -> int:
    if isinstance(layer, TransformerSpec):
        return layer.size
    return cell_from_json(layer.cell).output_size * (2 if layer.bidirectional else 1)
