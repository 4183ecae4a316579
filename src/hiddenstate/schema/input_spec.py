"""What every description of inputs has in common, and which one a JSON value is of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from hiddenstate.schema.channels import Channels
from hiddenstate.schema.plain import Plain
from hiddenstate.schema.schema import Schema
from hiddenstate.schema.symbols import Symbols
from hiddenstate.schema.tokens import Tokens


class InputSpec(Protocol):
    """How raw data become codes [N, K] and numbers [N, F]."""

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """Number of codes of each of the K categorical inputs."""

    @property
    def number_names(self) -> tuple[str, ...]:
        """Names of the F numeric inputs."""

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON values."""


KINDS: dict[str, Callable[[Mapping[str, Any]], InputSpec]] = {
    "symbols": Symbols.from_json,
    "channels": Channels.from_json,
    "plain": Plain.from_json,
    "tokens": Tokens.from_json,
}


def input_spec_from_json(value: Mapping[str, Any]) -> InputSpec:
    """Rebuild a description; raises KeyError, TypeError or ValueError for anything else."""
    # Event logs came first, and their descriptions name no type.
    if not isinstance(value, Mapping):
        raise TypeError(f"inputs described by a {type(value).__name__}")
    if (kind := value.get("type")) is None:
        return Schema.from_json(value)
    if kind not in KINDS:
        raise ValueError(f"inputs of type {kind!r}")
    return KINDS[kind](value)
