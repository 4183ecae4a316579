"""docs/results/kernels.md from what was recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from benchmarks.kernels.clock import Spread
from benchmarks.kernels.plan import AVX2, TITLES, TUNED

Row = Mapping[str, Any]

# Other work above this many cores is told: it breaks what waits for all of its threads.
BUSY_CORES = 0.1

INTRODUCTION = """# Kernels and runtime against their peers

Every figure comes from `python -m benchmarks.kernels`. In a table all candidates run in one process
and take turns, round after round; a time is given as **median** (least; quartiles). Before anything
is timed its output, and in training every gradient, is compared with torch in float64, in units of
each array's largest entry: what is off by more than twice what torch's own float32 is off by, plus
four roundings, gets no time (weights of 16 and 8 bits may change a state by .02 and .05). A ratio
is that of two candidates in the same round: median (quartiles), above 1 where hiddenstate is
faster. "≥" stands before the target, where there is one. Sizes are B x T x D x H.
"""
NOTES = {
    1: """
Through the public layer, `Recurrent(cell)(x)`; x wants its gradient too. The weights count as new
in every call, so nothing that is packed from them is kept. The ratio to torch.nn is that to the
faster of its two layouts. The share of the peak counts the operations of the matrix products.
""",
    2: """
D = H. The input is written into hiddenstate's and ONNX Runtime's buffers in every call; all feed
the new state back, ONNX Runtime by two bindings with exchanged buffers. The change of the state is
the largest after five steps, in units of its largest entry.
""",
    3: """
D = H. "layer" is hiddenstate's torch layer under `no_grad`, "NumPy" the kernel that is chosen
without torch. A ratio to torch.nn is that to the faster of its two layouts.
""",
    4: """
The pace is torch.add(a, b) into memory given; the backward scan moves five arrays for its three.
Only torch.add writes into given memory, the scans return new arrays.
""",
    5: """
Lengths drawn from the sepsis log's cases; torch gets them packed and sorted.
""",
    6: """
Seconds of training, validation after every epoch included, until the worse of the two best
validation losses is reached; one sample a seed. The same batches and recipe, other random numbers.
""",
    7: """
hiddenstate by `HIDDENSTATE_ISA=avx2`; torch (with oneDNN and MKL) and JAX are held to AVX2 by their
own settings. ONNX Runtime has none and keeps what the processor offers.
""",
    8: """
One event of every entity: embedding, step, head, log probabilities. On one core.
""",
    9: """
`Recurrent(cell).trace(x)` against `Recurrent(cell)(x)`, gradients recorded by both. The trace holds
every gate, state and projection; it may cost a tenth.
""",
    10: """
The same fitted model, its recurrent weights held in float32, bfloat16 and int8 (a scale for each
row): scores on the test cases, and the time of predicting all of their events.
""",
    11: """
The product of a step, [B, H] by the gates' [4H, H], on one core. "one chain" is the kernels' code,
whose sums run over k in one order whatever B is, so that a row has the same bits in any batch; two
and four chains (one row only) and the libraries are free to sum as they like. A library's time
holds its call through torch, which rules at H=64. Ratios are above 1 where one chain is faster.
""",
}

TRIED = """
## What is missed, and what was tried

Times that were measured once, beside the tables, to find out why; ratios of one run.

- **Share of the peak** at H of 200 to 512. Where an LSTM of 64x32x256x256 spends its time: outer
  products for the weights' gradients 30 %, projections and the way back to h and x 40 %, gates with
  their product 17 %, elementwise way back 3 %, packing 1.5 %. Tried: chunks of 128, 256 and 512
  rows on the way back (256 is best, by 2 %; with sums of 512 rows too, 1.017 at GRU and 1.016 at
  Elman 64x64x512x512, .991 at Elman 32x35x200x200); B side by side and A prefetched in the outer
  products (25 % with AVX2, 2 % with AVX-512; kept); kept gates stored past the caches (7 to 15 % of
  the way forth where they exceed 4 MB; kept); projections of 256 and 512 rows at once on the way
  forth (.99 and .99 at GRU, .99 and .99 at Elman 64x64x512x512, 1.00 and .98 at Elman
  32x35x200x200). H=200 pays 4 % for rows padded to 208. An Elman layer has the fewest operations
  for what it moves; at 32x35x200x200 its kernels take 5.9 ms, .82 of the peak, and the layer 7.2.
- **Two threads and one row.** ONNX Runtime and oneDNN cut the columns of the product and wait for
  each other at every step. Tried: columns shared out as they do, but a thread that is not there is
  not waited for (sequences 1.2 to 2.0 times as fast as on one thread from H=128 on, single steps
  1.6 to 2.0 from 300 thousand operations on; kept, docs/decisions/008); columns up to four rows a
  thread (at two rows 1.90 of one thread, where rows give 1.36; at sixteen 1.76 against 1.93; kept);
  helpers kept off the caller's processor (1.53 of one thread where it was .97 while ONNX Runtime's
  thread still spun; kept).
- **Two threads, LSTM up to H=128, layers and directions.** Tried: threads started once for both
  phases of the way back, on stacks from a pool (1.55 times as fast with two threads at
  16x64x32x64, before it .62; kept until helpers came); helpers that stay (1.3 to 1.6 times as fast
  again at 16x64x32x64; kept); a second thread from 4 in place of 16 million operations on (1.4 to
  1.9; from 2 million 1.3 at LSTM 2x64x32x64, and 1.06 at GRU 8x32x32x32; 4 kept). What two
  directions still lose is torch's: its threads spin after they have joined the outputs, and with
  OMP_WAIT_POLICY=passive the layer takes .80 of its time (torch's own 2 to 6 times its time).
- **Steps of 64 rows, two threads.** Tried: rows shared out among helpers that stay (1.6 to 2.0
  times as fast as on one thread, with AVX2 and with AVX-512; kept), columns (with AVX-512 1.62
  at LSTM H=128, where rows gave 1.64, 1.35 at H=256 against 1.30, 1.00 at H=64 against 1.74),
  helpers woken by a single long step (at H=512 2.0 of one thread, before it 1.0; kept). ONNX
  Runtime, which cannot be held to AVX2 and uses AVX-512, stays ahead of our AVX2 at LSTM H=256
  and 512.
- **Linear scan with malloc tuned**: torch's loop is faster then, and the ratio falls below 12. The
  way back, whose pace was .48: ordinary stores (.76 of its speed), software prefetch of
  falling rows (no change), blocks of rising rows (.62), copies (.71), several sequences at once
  (.57), two passes over blocks of 64 kB with prefetch (.74; kept).
- **Trace of short sequences**: Python makes the views of gates and states. Tried: one unbind for
  all (1.15 to 1.11; kept), projections stored past the caches from 512 kB on (1.12 to 1.04 at
  32x128x64x128; kept).
"""


def document(results: Mapping[str, Any]) -> str:
    """Return the page."""
    lines = [INTRODUCTION]
    for machine, items in _machines(results.values()):
        lines += [f"Machine of {items}: {_machine(machine)}", ""]
    lines += [*_verdicts(results.values()), TRIED]
    for item, title in TITLES.items():
        parts = [each for each in results.values() if each["setting"]["item"] == item]
        if parts:
            lines += [f"## {item}. {title}", "", NOTES[item].strip(), ""]
            for part in parts:
                lines += [*_table(part), ""]
    return "\n".join(lines).rstrip() + "\n"


def _verdicts(measurements: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield how many targets are met, and every one that is not."""
    asked = [
        (each["setting"], row["case"], check)
        for each in measurements
        for row in each["rows"]
        for check in row["checks"]
        if check["met"] is not None
    ]
    missed = [each for each in asked if not each[2]["met"]]
    yield f"Targets met: {len(asked) - len(missed)} of {len(asked)}." + " Not met:" * bool(missed)
    yield ""
    for setting, case, check in missed:
        where = f"{setting['item']}, {_how(setting)}: {case}"
        yield f"- {where}: {check['what']} {_check(check)}"


def _how(setting: Mapping[str, Any]) -> str:
    """Return in words what was measured and in which environment."""
    names = {AVX2: ["AVX2"], TUNED: ["malloc thresholds tuned"]}
    threads = f"{setting['threads']} thread{'s' if setting['threads'] > 1 else ''}"
    parts = [setting["module"].replace("_", " "), threads, *names.get(setting["variant"], [])]
    return ", ".join(parts)


def _machines(measurements: Iterable[Mapping[str, Any]]) -> list[tuple[Any, str]]:
    """Return each machine that took part with the items that it measured."""
    found: list[tuple[Any, set[int]]] = []
    for each in measurements:
        for machine, items in found:
            if machine == each["machine"]:
                items.add(each["setting"]["item"])
                break
        else:
            found.append((each["machine"], {each["setting"]["item"]}))
    return [(machine, ", ".join(map(str, sorted(items)))) for machine, items in found]


def _machine(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, "
        f"{' '.join(machine['instruction sets'])}; {machine['system']}; {versions}."
    )


def _table(part: Mapping[str, Any]) -> Iterator[str]:
    setting, rows = part["setting"], part["rows"]
    yield f"### {_how(setting)}"
    yield ""
    if part["others"] is not None and part["others"] >= BUSY_CORES:
        yield f"**Not quiet: other processes kept {part['others']:.1f} cores busy meanwhile.**"
        yield ""
    peaks = {row["facts"].get("peak_flops") for row in rows} - {None}
    if peaks:
        yield f"Multiply-add peak measured: {max(peaks) / 1e9:.0f} GFLOP/s."
        yield ""
    elif setting["module"] == "training":
        yield "The multiply-add peak was not measured: there is no C++ compiler."
        yield ""
    names_of = {name: None for row in rows for name in (*row["times_s"], *row["wrong"])}
    candidates = [*names_of]
    least = min((time[2] for row in rows for time in row["times_s"].values()), default=1.0)
    unit, scale = ("µs", 1e6) if least < 1e-4 else ("ms", 1e3) if least < 1.0 else ("s", 1.0)
    checks = [*{check["what"]: None for row in rows for check in row["checks"]}]
    yield f"| {unit} | " + " | ".join([*candidates, *checks, "run by"]) + " |"
    yield "|---" * (len(candidates) + len(checks) + 2) + "|"
    for row in rows:
        cells = [_time(row, name, scale) for name in candidates]
        by_name = {check["what"]: check for check in row["checks"]}
        cells += [_check(by_name.get(what)) for what in checks]
        yield f"| {row['case']} | " + " | ".join([*cells, _kernels(row["facts"])]) + " |"


def _time(row: Row, name: str, scale: float) -> str:
    if name in row["wrong"]:
        return row["wrong"][name]
    if name not in row["times_s"]:
        return ""
    least, low, median, high = (_figure(each * scale) for each in row["times_s"][name])
    return f"**{median}** ({least}; {low}–{high})"


def _check(check: Mapping[str, Any] | None) -> str:
    if check is None:
        return ""
    target = "" if check["least"] is None else f" ≥ {check['least']:g}: "
    if check["values"] is None:
        return "no peer" if check["met"] is None else f"not measured{target}**no**"
    spread = Spread(*check["values"])
    said = _figure(spread.median)
    if spread.low < spread.high:
        said += f" ({_figure(spread.low)}–{_figure(spread.high)})"
    return said if check["met"] is None else f"{said}{target}{'met' if check['met'] else '**no**'}"


def _figure(value: float) -> str:
    """Return three digits, or all before the point."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _kernels(facts: Mapping[str, Any]) -> str:
    named = [str(facts[name]) for name in ("kernel", "kernel for NumPy") if facts.get(name)]
    others = [
        f"{name} {value:.2g}"
        for name, value in facts.items()
        if name not in ("kernel", "kernel for NumPy", "peak_flops")
    ]
    return "; ".join([*named, *others])
