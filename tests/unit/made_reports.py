"""Reports made by hand: rules that always say the same, and a trace from the reference step."""

from __future__ import annotations

from typing import Any

import numpy as np

from hiddenstate.cells import GRU, LSTM, NUMPY, Cell
from hiddenstate.charts import Picture
from hiddenstate.diagnose.finding import Rule, Severity
from hiddenstate.diagnose.report import Report
from hiddenstate.diagnose.tracing.record import LayerTrace, Trace

EVENTS = (
    "Create Fine",
    "Send Fine",
    "Insert Fine Notification",
    "Add penalty",
    "Payment",
    "Send for Credit Collection",
)


def made_rule(code: str, name: str, severity: Severity, **limits: float) -> Rule:
    """Return a rule outside the catalogue."""
    return Rule(
        code,
        name,
        severity,
        asks=f"Does {name} hold whatever the padding is?",
        because="What is not there must not count: the same sequence has another answer in "
        "another batch.",
        remedy="Give the lengths to the layer, or mask what it returns.",
        limits=limits,
        check=lambda _: (),
    )


LEAK = made_rule("HS101", "padding-leak", Severity.ERROR, largest_change=1e-5)
FADES = made_rule("HS202", "memory-fades", Severity.WARNING, share=0.05, lag_steps=20)
SHUT = made_rule("HS303", "gates-shut", Severity.NOTE, opened=0.02)
CAUSAL = made_rule("HS103", "causality", Severity.ERROR, largest_change=1e-5)
STREAMED = made_rule("HS105", "streamed-is-whole", Severity.ERROR)
LOSS = made_rule("HS201", "vanishing-gradient", Severity.WARNING)


def made_layer(cell: Cell, name: str, lengths: list[int], seed: int = 0) -> LayerTrace:
    """Run a cell over drawn input by its own step."""
    rng = np.random.default_rng(seed)
    sizes = np.array(lengths, np.int64)
    rows, steps = len(lengths), int(sizes.max())
    params = {
        each: rng.normal(0, 1 / np.sqrt(shape[-1]), shape) for each, shape in cell.shapes().items()
    }
    x = rng.normal(size=(rows, steps, cell.input_size))
    projected = cell.project(NUMPY, params, x)
    state = first = cell.initial_state(NUMPY, rows, x)
    states: list[Any] = []
    gates: list[Any] = []
    for t in range(steps):
        new, gate = cell.step(NUMPY, params, projected[:, t], state)
        on = (t < sizes)[:, None]
        state = cell.State(*(np.where(on, n, s) for n, s in zip(new, state, strict=True)))
        states.append(state)
        gates.append(cell.Gates(*(np.where(on, each, 0) for each in gate)))
    joined = cell.State(*(np.stack(each, axis=1) for each in zip(*states, strict=True)))
    back = sizes[:, None] - 1 - np.arange(steps)
    left = np.where(back >= 0, 0.8 ** np.maximum(back, 0), 0)[..., None]
    return LayerTrace(
        name=name,
        cell=cell,
        params=params,
        reverse=False,
        kernel="reference",
        x=x,
        lengths=sizes,
        first=first,
        states=joined,
        gates=cell.Gates(*(np.stack(each, axis=1) for each in zip(*gates, strict=True))),
        projected=projected.reshape(rows, steps, -1, cell.hidden_size),
        gradients=cell.State(*(left * rng.normal(size=each.shape) for each in joined)),
    )


def made_report(*, healthy: bool = False, events: bool = True, steps: int = 24) -> Report:
    """Return a report with every kind of finding and picture."""
    rng = np.random.default_rng(1)
    lengths = [steps, steps // 2, 1]
    layers = (
        made_layer(LSTM(8, 32), "encoder.lstm.l0", lengths),
        made_layer(GRU(32, 16), "encoder.gru", lengths, 1),
    )
    named = tuple(EVENTS[k] for k in rng.integers(0, len(EVENTS), steps))
    lag = np.arange(40)
    fades = Picture(
        "lines",
        "Memory by lag",
        "lag (steps)",
        "share that is left",
        {"encoder.lstm.l0": 0.7**lag, "limit": np.full(40, 0.05)},
        aside=("limit",),
        log_y=True,
    )
    wrong = (
        FADES.finding(
            "encoder.lstm.l0",
            "After 9 steps less than 5 % of a change of the state is left; the rows have 24.",
            {"horizon_steps": 9.0, "longest_steps": 24.0},
            picture=fades,
        ),
        LEAK.finding(
            "output 0",
            "Other values in the padding alone changed the output by 0.31, its size is 1.2.",
            {"largest_change": 0.31},
        ),
        LEAK.finding("output 1", "By 0.02.", {"largest_change": 0.02}),
    )
    note = SHUT.finding("encoder.gru", "3 of 16 units keep z under 0.02 at every step.")
    scores = Picture(
        "lines",
        "Score by length",
        "steps",
        "accuracy",
        {"model": np.array([0.9, 0.85, 0.7, 0.5]), "n-gram": np.array([0.6, 0.55, 0.5, 0.5])},
        x=np.array([5.0, 10, 20, 40]),
        log_x=True,
        aside=("n-gram",),
        beyond=28,
    )
    influence = Picture(
        "bars",
        "Which events the prediction rests on",
        "event",
        "change of log p",
        {"left out": rng.normal(size=len(EVENTS)), "gradient": rng.normal(size=len(EVENTS))},
        labels=EVENTS,
    )
    return Report(
        "lstm and gru on three rows",
        {"module": "Tagger", "layers": "lstm 32, gru 16", "rows": "3, of 1 to 24 steps"},
        (note,) if healthy else (note, *wrong),
        ((STREAMED, "the module takes no state"), (LOSS, "no loss was given")),
        (CAUSAL,),
        Trace(layers, (), 0.5, remarks=("conv: the convolution was not traced.",)),
        (scores, influence),
        events=named if events else (),
    )
