"""Support tickets with a long memory and a computable ceiling."""

from __future__ import annotations

from hiddenstate.tasks.simulator.oracle import Oracle
from hiddenstate.tasks.simulator.process import Process
from hiddenstate.tasks.simulator.simulate import simulate, table
from hiddenstate.tasks.simulator.tickets import ticket_process

__all__ = ["Oracle", "Process", "simulate", "table", "ticket_process"]
