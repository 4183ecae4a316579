"""ModelSpec: what a model is, as data. `models` builds it in torch, `runtime` runs it in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hiddenstate.errors import ArtifactError, SpecError, nearest
from hiddenstate.schema import Scaler, Schema

SPEC_VERSION = 1
EXECUTORS = ("runtime", "streaming")


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


@dataclass(frozen=True)
class HeadSpec:
    """One linear head on the top state: class scores, or one scaled number.

    task:   the fitted task as `tasks.Task.to_json` gives it
    scaler: turns the head's output into the task's unit (days); None for classes
    """

    task: Mapping[str, Any]
    scaler: Scaler | None = None

    @property
    def name(self) -> str:
        """The task's name."""
        return str(self.task["task"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, empty for a number."""
        return tuple(self.task["classes"])

    @property
    def outputs(self) -> int:
        """Number of outputs V per step."""
        return len(self.classes) or 1


@dataclass(frozen=True)
class ModelSpec:
    """A model over event histories, causal unless a layer is bidirectional.

    inputs     codes [B, T, K] and numbers [B, T, F], as `schema.encode` makes them
    x          [B, T, D], the K embeddings and the F numbers side by side
    layers     recurrent layers over x; a state for every entity, where all are causal
    heads      o [B, T, V] for each head, from what the top layer gives
    residual   a layer's input is added to its output where the widths agree
    layer_norm the input of every layer but the first is normalised
    """

    schema: Schema
    embeddings: tuple[int, ...]
    layers: tuple[LayerSpec, ...]
    heads: tuple[HeadSpec, ...]
    residual: bool = False
    layer_norm: bool = False

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
            f"layer {index} is bidirectional, and its backward direction starts at the last event"
            for index, layer in enumerate(self.layers)
            if layer.bidirectional
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
            "heads": [
                {"task": dict(head.task), "scaler": head.scaler.to_json() if head.scaler else None}
                for head in self.heads
            ],
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
                schema=Schema.from_json(value["schema"]),
                embeddings=tuple(int(size) for size in value["embeddings"]),
                layers=tuple(LayerSpec.from_json(layer) for layer in value["layers"]),
                heads=tuple(
                    HeadSpec(
                        {
                            "task": str(head["task"]["task"]),
                            "classes": [str(name) for name in head["task"]["classes"]],
                        },
                        Scaler.from_json(head["scaler"]) if head["scaler"] else None,
                    )
                    for head in value["heads"]
                ),
                residual=bool(value["residual"]),
                layer_norm=bool(value["layer_norm"]),
            )
        except (KeyError, TypeError, ValueError) as problem:
            raise ArtifactError(
                f"The specification is incomplete ({type(problem).__name__}: {problem}).",
                "It must hold schema, embeddings, layers and heads.",
                "Restore spec.json from a copy, or fit the model again.",
            ) from None
        inputs = len(spec.schema.vocabularies)
        if len(spec.embeddings) != inputs or not spec.layers or not spec.heads:
            raise ArtifactError(
                f"The specification has {len(spec.embeddings)} embeddings, {len(spec.layers)} "
                f"layers and {len(spec.heads)} heads.",
                f"An embedding for each of the {inputs} categorical inputs was expected, and at "
                "least one layer and one head.",
                "Restore spec.json from a copy, or fit the model again.",
            )
        return spec
