"""From raw events to model inputs."""

from __future__ import annotations

from hiddenstate.schema.channels import LEAST_SCALE, Channels
from hiddenstate.schema.clock import Memory, to_us
from hiddenstate.schema.fields import Fields
from hiddenstate.schema.input_spec import InputSpec, input_spec_from_json
from hiddenstate.schema.log import NO_START, Categorical, EventLog
from hiddenstate.schema.plain import Plain
from hiddenstate.schema.raw import label
from hiddenstate.schema.scaler import Scaler
from hiddenstate.schema.schema import Durations, Inputs, Schema
from hiddenstate.schema.symbols import UNITS, Symbols, Unit
from hiddenstate.schema.tokens import Tokens
from hiddenstate.schema.vocabulary import UNKNOWN, Vocabulary

__all__ = [
    "LEAST_SCALE",
    "NO_START",
    "UNITS",
    "UNKNOWN",
    "Categorical",
    "Channels",
    "Durations",
    "EventLog",
    "Fields",
    "InputSpec",
    "Inputs",
    "Memory",
    "Plain",
    "Scaler",
    "Schema",
    "Symbols",
    "Tokens",
    "Unit",
    "Vocabulary",
    "input_spec_from_json",
    "label",
    "to_us",
]
