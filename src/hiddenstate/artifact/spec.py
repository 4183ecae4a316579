"""ModelSpec: what a model is, as data. `models` builds it in torch, `runtime` runs it in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from hiddenstate.artifact.transformer import TransformerSpec
from hiddenstate.errors import ArtifactError, SpecError, nearest
from hiddenstate.schema import InputSpec, Scaler, input_spec_from_json

SPEC_VERSION = 1
EXECUTORS = ("runtime", "streaming")

Output = Literal["classes", "number", "numbers", "bernoulli", "quantiles", "gaussian"]


@dataclass(frozen=True)
class LayerSpec:
    """One recurrent layer.

    cell:          as `cells.Cell.to_json` gives it
    zoneout:       share of every state array that was kept at random in training
    bidirectional: a second such cell reads every row backwards within its own length; both outputs
                   side by side are the layer's
    """

    cell: Mapping[str, Any]
    zoneout: float = 0.0
    bidirectional: bool = False

    @property
    def causal(self) -> bool:
        """Whether a step's output rests on the steps up to it alone."""
        return not self.bidirectional

    def to_json(self) -> dict[str, Any]:
        """Return the layer as JSON values."""
        value: dict[str, Any] = {"cell": dict(self.cell), "zoneout": self.zoneout}
        # Left out where it does not hold: models fitted before it was known keep their fingerprint.
        return {**value, "bidirectional": True} if self.bidirectional else value

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> LayerSpec:
        """Rebuild a layer; raises KeyError, TypeError or ValueError for anything else."""
        return LayerSpec(
            dict(value["cell"]), float(value["zoneout"]), bool(value.get("bidirectional", False))
        )


AnyLayerSpec: TypeAlias = LayerSpec | TransformerSpec


@dataclass(frozen=True)
class HeadSpec:
    """One linear head on the top layer's output, at every step or (with a pool) once a sequence.

    task:   what is predicted: its name and, for classes, their names; `signed` where a number may
            be below 0
    scaler: turns a number into the task's unit, such as days; None elsewhere
    output: what the V outputs mean, and so which loss they are trained by:
            classes    scores of the V classes (cross entropy)
            number     one scaled number (absolute error)
            numbers    S numbers (squared error)
            bernoulli  S log odds, each of one yes or no (binary cross entropy, summed over S)
            quantiles  S numbers at each of the levels, [S, Q] (pinball loss)
            gaussian   S means and S logarithms of standard deviations (negative log likelihood)
    size:   S, for outputs of several numbers
    levels: the Q quantile levels, rising
    pool:   how a sequence's states become one vector (`nn.POOLS`); None predicts at every step
    tied:   the classes' weight is the first embedding's table, reached by a projection where the
            widths differ (Press and Wolf 2017, arXiv:1608.05859)
    """

    task: Mapping[str, Any]
    scaler: Scaler | None = None
    output: Output = "classes"
    size: int = 1
    levels: tuple[float, ...] = ()
    pool: str | None = None
    tied: bool = False

    @property
    def name(self) -> str:
        """The task's name."""
        return str(self.task["task"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, empty for numbers."""
        return tuple(self.task["classes"])

    @property
    def signed(self) -> bool:
        """Whether a number may be below 0; a duration never is."""
        return bool(self.task.get("signed", False))

    @property
    def outputs(self) -> int:
        """Number of outputs V of one prediction."""
        if self.output == "classes":
            return len(self.classes)
        return self.size * {"quantiles": len(self.levels), "gaussian": 2}.get(self.output, 1)

    def to_json(self) -> dict[str, Any]:
        """Return the head as JSON values; what is as usual is left out."""
        value: dict[str, Any] = {
            "task": dict(self.task),
            "scaler": self.scaler.to_json() if self.scaler else None,
        }
        if self.output != _usual_output(self.task):
            value["output"] = self.output
        for name, usual in (("size", 1), ("levels", ()), ("pool", None), ("tied", False)):
            if (given := getattr(self, name)) != usual:
                value[name] = list(given) if isinstance(given, tuple) else given
        return value

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> HeadSpec:
        """Rebuild a head; raises KeyError, TypeError or ValueError for anything else."""
        task = {
            **value["task"],
            "task": str(value["task"]["task"]),
            "classes": [str(name) for name in value["task"]["classes"]],
        }
        head = HeadSpec(
            task,
            Scaler.from_json(value["scaler"]) if value["scaler"] else None,
            value.get("output", _usual_output(task)),
            int(value.get("size", 1)),
            tuple(float(level) for level in value.get("levels", ())),
            value.get("pool"),
            bool(value.get("tied", False)),
        )
        if head.output not in get_args(Output) or head.outputs < 1:
            raise ValueError(f"a head with output {head.output!r} and {head.outputs} outputs")
        return head


def _usual_output(task: Mapping[str, Any]) -> Output:
    return "classes" if task["classes"] else "number"


@dataclass(frozen=True)
class ModelSpec:
    """A model over sequences, causal unless a layer reads both directions.

    schema     how raw data become inputs: of event logs, text (Symbols) or series (Channels)
    inputs     codes [B, T, K] and numbers [B, T, F], as `schema` makes them
    x          [B, T, D], the K embeddings and the F numbers side by side
    layers     recurrent layers over x, or a transformer; a state for every entity, where all are
               causal
    heads      o [B, T, V] for each head, from what the top layer gives; [B, V] with a pool
    residual   a layer's input is added to its output where the widths agree
    layer_norm the input of every layer but the first is normalised
    """

    schema: InputSpec
    embeddings: tuple[int, ...]
    layers: tuple[AnyLayerSpec, ...]
    heads: tuple[HeadSpec, ...]
    residual: bool = False
    layer_norm: bool = False

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks, a head each."""
        return tuple(head.name for head in self.heads)

    @property
    def input_size(self) -> int:
        """D, the width of x."""
        return sum(self.embeddings) + len(self.schema.number_names)

    def refusals(self, executor: str) -> list[str]:
        """Return the reasons why an executor does not serve this model; empty means that it does.

        runtime:   runs whole histories, without torch
        streaming: the runtime from one event or chunk of a history to the next, by a kept state

        Raises SpecError for another name.
        """
        if executor not in EXECUTORS:
            raise SpecError(
                f"There is no executor {executor!r}.",
                f"The executors are {', '.join(EXECUTORS)}.",
                f"Name one of them.{nearest(executor, EXECUTORS)}",
            )
        if executor == "runtime":
            return []
        return [
            f"layer {index} reads both directions, and its backward one starts at the last event"
            for index, layer in enumerate(self.layers)
            if not layer.causal
        ] + [
            f"the head {head.name} sums up a whole sequence by its {head.pool}"
            for head in self.heads
            if head.pool not in (None, "last")
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the specification as JSON values."""
        return {
            "format": "hiddenstate.spec",
            "version": SPEC_VERSION,
            "schema": self.schema.to_json(),
            "embeddings": list(self.embeddings),
            "residual": self.residual,
            "layer_norm": self.layer_norm,
            "layers": [layer.to_json() for layer in self.layers],
            "heads": [head.to_json() for head in self.heads],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> ModelSpec:
        """Rebuild a specification; ArtifactError for another format or a missing key."""
        if value.get("format") != "hiddenstate.spec" or value.get("version") != SPEC_VERSION:
            raise ArtifactError(
                f"The specification has format {value.get('format')!r}, "
                f"version {value.get('version')!r}.",
                f"This hiddenstate reads format 'hiddenstate.spec', version {SPEC_VERSION}.",
                "Use the version of hiddenstate that wrote it, or fit the model again.",
            )
        try:
            spec = ModelSpec(
                schema=input_spec_from_json(value["schema"]),
                embeddings=tuple(int(size) for size in value["embeddings"]),
                layers=tuple(layer_from_json(layer) for layer in value["layers"]),
                heads=tuple(HeadSpec.from_json(head) for head in value["heads"]),
                residual=bool(value["residual"]),
                layer_norm=bool(value["layer_norm"]),
            )
        except (KeyError, TypeError, ValueError) as problem:
            raise ArtifactError(
                f"The specification is incomplete ({type(problem).__name__}: {problem}).",
                "It must hold schema, embeddings, layers and heads.",
                "Restore spec.json from a copy, or fit the model again.",
            ) from None
        inputs = len(spec.schema.code_sizes)
        if len(spec.embeddings) != inputs or not spec.layers or not spec.heads:
            raise ArtifactError(
                f"The specification has {len(spec.embeddings)} embeddings, {len(spec.layers)} "
                f"layers and {len(spec.heads)} heads.",
                f"An embedding for each of the {inputs} categorical inputs was expected, and at "
                "least one layer and one head.",
                "Restore spec.json from a copy, or fit the model again.",
            )
        return spec


def layer_from_json(value: Mapping[str, Any]) -> AnyLayerSpec:
    """Rebuild a layer; raises KeyError, TypeError or ValueError for anything else."""
    return (TransformerSpec if "transformer" in value else LayerSpec).from_json(value)
