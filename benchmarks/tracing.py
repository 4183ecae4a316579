"""What it costs to see every state, gate and gradient; writes docs/results/tracing.md and .json.

python -m benchmarks.tracing [--quick]

`hiddenstate.trace` against the same module untraced, and against what its users write: a hook that
catches the layer's input and the layer's equations as a loop over the steps, gates kept; for
gradients the loop in the layer's place, with retain_grad on every state.
One process, by turns; no time is given to what differs from the loop in float64. --quick tries few
sizes, prints the page and records nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import hiddenstate
from benchmarks.kernels.clock import Spread, interleaved
from benchmarks.kernels.machine import describe
from benchmarks.kernels.measure import errors
from hiddenstate.nn import stack_of

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SHAPES = ((1, 64, 32, 64), (16, 64, 32, 64), (32, 128, 64, 128), (64, 32, 256, 256))
SECONDS = 0.5
# Of the largest value of an array: float32 over a hundred steps.
ALLOWED = 1e-4
PLAIN, TRACED, LOOP = "untraced", "traced", "loop"
RATIOS = ((TRACED, PLAIN), (LOOP, PLAIN), (LOOP, TRACED))
TITLES = {
    "forward": "Forward pass: states, gates and projections",
    "gradients": "Forward pass, loss and way back: the gradient of every state as well",
}
NOTES = {
    "forward": "Under torch.no_grad. The loop runs beside the module, as the trace does, on the "
    "input that a hook caught; it keeps h, c and every gate of each step.",
    "gradients": "Untraced is loss.backward() with the gradients of all weights; the trace goes "
    "back to the states only; the loop stands in the layer's place and goes back by autograd, with "
    "retain_grad on every state.",
}


@dataclass
class Row:
    """Seconds by candidate in every round, for one case."""

    part: str
    threads: int
    case: str
    times_s: dict[str, list[float]] = field(default_factory=dict)
    wrong: str = ""


class Tagger(nn.Module):
    """A recurrent layer under a linear head, from torch or from hiddenstate."""

    def __init__(self, layer: Any, width: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0])


def by_hand(layer: Any, x: Tensor) -> dict[str, list[Tensor]]:
    """The layer's equations step by step, with everything that a trace shows of it."""
    w_x, w_h, b_x, b_h = (
        getattr(layer, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h = x.new_zeros(x.shape[0], layer.hidden_size)
    c, kept = h, {name: list[Tensor]() for name in ("h", "c", *"ifgorzn")}
    for t in range(x.shape[1]):
        rows = nn.functional.linear(x[:, t], w_x, b_x)
        past = nn.functional.linear(h, w_h, b_h)
        step: dict[str, Tensor]
        if isinstance(layer, nn.LSTM):
            i, f, g, o = (rows + past).chunk(4, 1)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            c = f * c + i * g
            h = o * c.tanh()
            step = {"h": h, "c": c, "i": i, "f": f, "g": g, "o": o}
        else:
            (x_r, x_z, x_n), (h_r, h_z, h_n) = rows.chunk(3, 1), past.chunk(3, 1)
            r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
            n = (x_n + r * h_n).tanh()
            h = z * h + (1 - z) * n
            step = {"h": h, "r": r, "z": z, "n": n}
        for name, each in step.items():
            kept[name].append(each)
    return {name: each for name, each in kept.items() if each}


def loss_of(said: Tensor) -> Tensor:
    return said.square().mean()


def plain_pass(net: Tagger, x: Tensor) -> None:
    with torch.no_grad():
        net(x)


def traced_pass(net: Tagger, x: Tensor) -> Any:
    with torch.no_grad():
        return hiddenstate.trace(net, (x,))


def loop_pass(net: Tagger, x: Tensor) -> Any:
    caught: list[Tensor] = []
    hook = net.layer.register_forward_hook(lambda _, given, __: caught.append(given[0]))
    with torch.no_grad():
        net(x)
        hook.remove()
        kept = by_hand(net.layer, caught[0])
        return {name: torch.stack(each, 1).numpy() for name, each in kept.items()}


def plain_step(net: Tagger, x: Tensor) -> None:
    net.zero_grad()
    loss_of(net(x)).backward()


def traced_step(net: Tagger, x: Tensor) -> Any:
    return hiddenstate.trace(net, (x,), loss_of)


def loop_step(net: Tagger, x: Tensor) -> Any:
    net.zero_grad()
    kept = by_hand(net.layer, x)
    said = net.head(torch.stack(kept["h"], 1))
    states = {name: kept[name] for name in ("h", "c") if name in kept}
    for each in (state for steps in states.values() for state in steps):
        each.retain_grad()
    loss_of(said).backward()
    found = {name: torch.stack(each, 1).detach().numpy() for name, each in kept.items()}
    grads = {k: torch.stack([s.grad for s in v], 1).numpy() for k, v in states.items()}
    return found | {f"d{name}": each for name, each in grads.items()}


def read(trace: Any, names: list[str]) -> list[Any]:
    """Return the arrays of a trace in the order of the loop's."""
    (layer,) = trace.layers
    own = {**layer.states._asdict(), **layer.gates._asdict()}
    if layer.gradients is not None:
        own |= {f"d{name}": each for name, each in layer.gradients._asdict().items()}
    return [own[name] for name in names]


PARTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "forward": (plain_pass, traced_pass, loop_pass),
    "gradients": (plain_step, traced_step, loop_step),
}


def net_of(kind: str, width: int, height: int) -> Tagger:
    torch.manual_seed(0)
    name, own = kind.split(" ")[-1].upper(), kind.startswith("ours")
    if own:
        return Tagger(stack_of(name.lower(), width, height, seed=0), height).eval()
    return Tagger(getattr(nn, name)(width, height, batch_first=True), height).eval()


def measured(part: str, kind: str, shape: tuple[int, ...], threads: int, quick: bool) -> Row:
    """Compare with the loop in float64, then time what passes."""
    batch, time, width, height = shape
    net, x = net_of(kind, width, height), torch.randn(batch, time, width)
    row = Row(part, threads, f"{kind}, {'x'.join(map(str, shape))}")
    plain, traced, loop = PARTS[part]
    calls = {PLAIN: lambda: plain(net, x), TRACED: lambda: traced(net, x)}
    if not kind.startswith("ours"):
        truth = loop(net_of(kind, width, height).double(), x.double())
        off = max(errors(read(traced(net, x), list(truth)), list(truth.values())))
        if not off <= ALLOWED:
            row.wrong = f"off by {off:.1e}"
            return row
        calls[LOOP] = lambda: loop(net, x)
    row.times_s = interleaved(calls, 0.05 if quick else SECONDS, 3 if quick else 7)
    return row


def rows(quick: bool) -> Iterator[Row]:
    """Yield every case."""
    shapes = SHAPES[1:2] if quick else SHAPES
    for threads in (1,) if quick else (1, 2):
        torch.set_num_threads(threads)
        for part in PARTS:
            for kind in ("nn.LSTM", "nn.GRU", "ours lstm", "ours gru"):
                name = kind.replace("nn.", "torch ")
                for shape in shapes:
                    yield measured(part, name, shape, threads, quick)


def page(found: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    """Return the page."""
    lines = [
        "# What a trace costs",
        "",
        f"`python -m benchmarks.tracing`, {datetime.now(UTC):%Y-%m-%d}: {machine['processor']}, "
        f"{machine['cores']} cores, torch {machine['versions']['torch']}. Milliseconds, median "
        "(quartiles); sizes are BxTxDxH; by turns in one process. Ratios are to the untraced run "
        "of the same round.",
        "",
    ]
    for part, title in TITLES.items():
        lines += [
            f"## {title}",
            "",
            NOTES[part],
            "",
            "| layer, size | threads | untraced | traced | loop | traced / untraced "
            "| loop / untraced | loop / traced |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for row in found:
            if row["part"] == part:
                cells = [_time(row, name) for name in (PLAIN, TRACED, LOOP)]
                cells += [_ratio(row, *pair) for pair in RATIOS]
                lines.append(f"| {row['case']} | {row['threads']} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _time(row: dict[str, Any], name: str) -> str:
    if row["wrong"]:
        return row["wrong"] if name == TRACED else ""
    if name not in row["times_s"]:
        return ""
    spread = Spread.of([1e3 * each for each in row["times_s"][name]])
    return f"{spread.median:.3g} ({spread.low:.3g} to {spread.high:.3g})"


def _ratio(row: dict[str, Any], over: str, under: str) -> str:
    times = row["times_s"]
    if over not in times or under not in times:
        return ""
    spread = Spread.of([a / b for a, b in zip(times[over], times[under], strict=True)])
    return f"**{spread.median:.2f}** ({spread.low:.2f} to {spread.high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracing")
    parser.add_argument("--quick", action="store_true", help="few sizes; records nothing")
    quick = parser.parse_args().quick
    found = []
    for row in rows(quick):
        found.append(asdict(row))
        print(row.part, row.threads, row.case, *(_ratio(found[-1], *pair) for pair in RATIOS))
    if quick:
        print(page(found, describe()))
        return
    machine = describe()
    told = json.dumps({"machine": machine, "rows": found}, indent=1)
    (RESULTS / "tracing.json").write_text(told + "\n")
    (RESULTS / "tracing.md").write_text(page(found, machine))


if __name__ == "__main__":
    main()
