"""No rule warns of a healthy model: one instance of each kind but those held out."""

from __future__ import annotations

import pytest

import tests.faults  # noqa: F401  enters every kind
from tests.faults.plant import HEALTHY, HELD_OUT, alarms, drawn


@pytest.mark.parametrize("name", sorted(set(HEALTHY) - set(HELD_OUT)))
def test_a_healthy_model_raises_no_alarm(name: str) -> None:
    assert not [
        (each.code, each.where, each.measured) for each in alarms(drawn(HEALTHY[name], name, 0))
    ]
