"""From raw events to model inputs."""

from __future__ import annotations

from hiddenstate.schema.clock import Memory, to_us
from hiddenstate.schema.fields import Fields
from hiddenstate.schema.log import NO_START, Categorical, EventLog
from hiddenstate.schema.raw import label
from hiddenstate.schema.scaler import Scaler
from hiddenstate.schema.schema import Durations, Inputs, Schema
from hiddenstate.schema.vocabulary import UNKNOWN, Vocabulary

__all__ = [
    "NO_START",
    "UNKNOWN",
    "Categorical",
    "Durations",
    "EventLog",
    "Fields",
    "Inputs",
    "Memory",
    "Scaler",
    "Schema",
    "Vocabulary",
    "label",
    "to_us",
]
