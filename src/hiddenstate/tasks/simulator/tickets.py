"""Support tickets: what the first events tell decides the last ones, and much noise lies between.

A ticket opens on a channel; the next events name the customer's account, site, product, symptom
and warranty. Then comes the work, about twenty events that look alike for every ticket: notes,
requests that stay open for a while, tests that hint at the hidden cause. At last the findings are
reviewed, and each step to the end follows from one fact of the beginning: the account decides who
approves, the symptom which team, cause and warranty the remedy, the product the bench, the site
the depot, the channel how the customer is told.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.tasks.next_event import END
from hiddenstate.tasks.simulator.process import Process

FACTS: dict[str, tuple[str, ...]] = {
    "channel": ("phone", "email", "chat"),
    "account": ("basic", "business", "enterprise"),
    "site": ("north", "south", "overseas"),
    "product": ("laptop", "tablet", "phone", "watch"),
    "symptom": ("battery", "screen", "sync", "login", "sound"),
    "warranty": ("valid", "expired"),
    "cause": ("hardware", "software"),
}
APPROVAL = {"basic": "agent", "business": "team lead", "enterprise": "manager"}
HARDWARE_SHARE = {"battery": 0.8, "screen": 0.7, "sync": 0.2, "login": 0.2, "sound": 0.5}
NOTES = {
    "note added": 5,
    "colleague asked": 3,
    "articles searched": 2,
    "reminder set": 1,
    "call attempted": 1,
    "log file read": 1,
}
WAITS = ("nothing", "logs", "photos", "test")

PARTS = 6
PART_DONE = 0.28
REQUEST = 0.4
ANSWER = 0.2
UPDATE = 0.1
TEST_IS_RIGHT = 0.85

Moves = list[tuple[str, str, str, Any]]


def revealed(fact: str, value: str) -> str:
    """Return the activity that tells a fact at the start of a ticket."""
    return f"opened by {value}" if fact == "channel" else f"{fact}: {value}"


@cache
def ticket_process() -> Process:
    """Return the process: 2,160 combinations of facts, 39 stages."""
    combinations = list(itertools.product(*FACTS.values()))
    columns = {name: np.array(column) for name, column in zip(FACTS, zip(*combinations))}
    hardware = np.array([HARDWARE_SHARE[symptom] for symptom in columns["symptom"]])
    prior = np.where(columns["cause"] == "hardware", hardware, 1 - hardware)
    told = [name for name in FACTS if name != "cause"]
    stages = [*told, *(_work(part, wait) for part in range(PARTS) for wait in WAITS)]
    stages += ["approve", "pass on", "remedy", "bench", "ship", "tell", "close", "end", "over"]
    moves: Moves = []
    for name, following in itertools.pairwise([*told, _work(0, "nothing")]):
        moves += [(name, revealed(name, v), following, columns[name] == v) for v in FACTS[name]]
    for part in range(PARTS):
        moves += _work_moves(part, columns)
    moves += _last_moves(columns)
    return Process.build(prior / prior.sum(), stages, moves, END)


def _work(part: int, wait: str) -> str:
    return f"part {part}, waiting for {wait}"


def _work_moves(part: int, columns: dict[str, NDArray[Any]]) -> Moves:
    """One part of the work; it is done with probability PART_DONE at every event."""
    moves: Moves = []
    last = part == PARTS - 1

    def add(wait: str, action: str, next_wait: str, probability: Any) -> None:
        here = _work(part, wait)
        if last:
            moves.append((here, action, _work(part, next_wait), probability))
            return
        moves.append((here, action, _work(part, next_wait), probability * (1 - PART_DONE)))
        moves.append((here, action, _work(part + 1, next_wait), probability * PART_DONE))

    failed = np.where(columns["cause"] == "hardware", TEST_IS_RIGHT, 1 - TEST_IS_RIGHT)
    for wait in WAITS:
        going_on = 1 - PART_DONE if last else 1.0
        if last:
            moves.append((_work(part, wait), "findings reviewed", "approve", PART_DONE))
        turn = going_on * (REQUEST if wait == "nothing" else ANSWER)
        if wait == "nothing":
            for request in WAITS[1:]:
                add(wait, f"{request} requested", request, turn / (len(WAITS) - 1))
        elif wait == "test":
            add(wait, "test failed", "nothing", turn * failed)
            add(wait, "test passed", "nothing", turn * (1 - failed))
        else:
            add(wait, f"{wait} received", "nothing", turn)
        rest = going_on - turn
        for channel in FACTS["channel"]:
            said = UPDATE * (columns["channel"] == channel)
            add(wait, f"update by {channel}", wait, rest * said)
        for note, weight in NOTES.items():
            add(wait, note, wait, rest * (1 - UPDATE) * weight / sum(NOTES.values()))
    return moves


def _last_moves(columns: dict[str, NDArray[Any]]) -> Moves:
    """The steps from the review to the end, each decided by the facts."""
    moves: Moves = []
    for account, who in APPROVAL.items():
        moves.append(("approve", f"approved by {who}", "pass on", columns["account"] == account))
    for symptom in FACTS["symptom"]:
        chosen = columns["symptom"] == symptom
        moves.append(("pass on", f"passed to {symptom} team", "remedy", chosen))
    hardware, valid = columns["cause"] == "hardware", columns["warranty"] == "valid"
    moves.append(("remedy", "software fixed", "bench", ~hardware))
    moves.append(("remedy", "part replaced", "bench", hardware & valid))
    moves.append(("remedy", "repair offered", "bench", hardware & ~valid))
    for product in FACTS["product"]:
        moves.append(("bench", f"{product} bench check", "ship", columns["product"] == product))
    for site in FACTS["site"]:
        moves.append(("ship", f"shipped from {site} depot", "tell", columns["site"] == site))
    for channel in FACTS["channel"]:
        moves.append(("tell", f"told by {channel}", "close", columns["channel"] == channel))
    moves += [("close", "closed", "end", 1.0), ("end", END, "over", 1.0)]
    return moves
