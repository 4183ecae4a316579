"""One result for a row: made from its end, in its order, in both directions. HS142 to HS144."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.compare import Base, base, differences, steady
from hiddenstate.diagnose.measures.reach import Reach, alike, longest, reaches
from hiddenstate.diagnose.subject.axes import Output
from hiddenstate.diagnose.subject.subject import Subject

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

SAME = 1e-5
"""A share of the output's largest value up to which two results are the same."""
DIFFERENT = 1e-2
"""A share from which an exchange of all steps has an effect."""
DRAWS = 4


@rule(
    "HS142",
    "order-ignored",
    Severity.ERROR,
    asks="Does the order of the steps matter to the result?",
    because="A recurrent layer is there to read an order. A result that stays the same however "
    "the steps are shuffled is that of a bag of steps: what came first is lost.",
    remedy="Hand each step's state to the next before the steps are pooled; look for a mean or "
    "sum of the inputs in the place of the states, and for a layer that is given one step at a "
    "time.",
    limits={"change by shuffling, share of the output": SAME},
)
def order_ignored(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The steps of every row are shuffled, and for comparison exchanged."""
    part, known = alike(seen), steady(seen)
    if not part.names():
        raise Skip("no recurrent layer is known in it")
    if not any(_is_summary(each) for each in reaches(seen)):
        raise Skip("no output stands for a whole row")
    before = Base(part.known, known.limits, known.scales)
    rng = seen.rng(rule.code)
    changed = part.run(part.changed(part.valid, rng))
    free = {each.output.name: each.share for each in differences(part, before, changed)}
    shuffled = dict.fromkeys(free, 0.0)
    for _ in range(2):
        order = torch.as_tensor(np.stack([rng.permutation(part.time) for _ in range(part.batch)]))

        def shuffle(_: str, x: Tensor, order: Tensor = order) -> Tensor:
            rows = torch.arange(len(order)).unsqueeze(1)
            return x[rows, order]

        for each in differences(part, before, part.run(part.replaced(shuffle))):
            shuffled[each.output.name] = max(shuffled[each.output.name], each.share)
    for reach in reaches(seen):
        name = reach.output.name
        if not _is_summary(reach) or name not in free:
            continue
        if shuffled[name] <= SAME and free[name] >= DIFFERENT:
            yield rule.finding(
                name,
                f"With the steps of every row shuffled {name} changes by {shuffled[name]:.1e} of "
                f"its largest value; with other steps by {free[name]:.2f}.",
                {"share when shuffled": shuffled[name], "share when exchanged": free[name]},
            )


@rule(
    "HS143",
    "end-unread",
    Severity.ERROR,
    asks="Is the result made from the row up to its last step?",
    because="The state after the last step has read the row. A result taken from an earlier step "
    "has not seen the end, which is often what matters most.",
    remedy="Take the state after each row's last step: output[row, length - 1], or the layer's "
    "final state; check for an index that is one off, for the first step in the place of the "
    "last, and for a greatest length that was set for other data.",
)
def end_unread(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The last steps have no gradient in any row, and can be exchanged."""
    part = alike(seen)
    steady(seen)
    if not part.names():
        raise Skip("no recurrent layer is known in it")
    if part.batch < 2:
        raise Skip("one row alone shows no pattern")
    _refuse_strides(part.module)
    if not any(_is_summary(each) for each in reaches(seen)):
        raise Skip("no output stands for a whole row")
    parts = [(part, reaches(seen))]
    # A text may be cut to a greatest length, which only the longest rows have.
    with suppress(Skip):
        parts.append(longest(seen))
    told = set[str]()
    for part, found in parts:
        for reach in filter(_is_summary, found):
            name, last = reach.output.name, part.time - 1 - reach.support[:, ::-1].argmax(1)
            step = int(last.max())
            unread = part.time - 1 - step
            # A maximum may pass over the last step of a row or two.
            chance = unread == 1 and (part.batch < 2 or (last != step).any())
            if not unread or chance or name in told:
                continue
            if _end_counts(seen, part, reach.output, step):
                continue
            told.add(name)
            what = "only step 0" if step == 0 else f"nothing after step {step}"
            yield rule.finding(
                name,
                f"{name} reads {what} of {part.time}: the last {unread} "
                f"{'step' if unread == 1 else 'steps'} can be exchanged, and it stays the same.",
                {"steps unread": unread},
                picture=_picture(reach),
            )


@rule(
    "HS144",
    "backward-unread",
    Severity.WARNING,
    asks="Is the backward direction used where it has read the row?",
    because="The backward direction begins at the last step. What it gives there has read one "
    "step only: taking output[:, -1] of a bidirectional layer leaves half of the layer without "
    "memory.",
    remedy="Take the backward direction's final state: h_n[-1] beside h_n[-2], or the backward "
    "half of output[:, 0]; or pool over all steps.",
)
def backward_unread(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The gradient at the outputs of backward directions stands at the row's last step alone."""
    if not seen.subject.bidirectional:
        raise Skip("no layer reads from the end")
    part = alike(seen)
    summaries = [each for each in reaches(seen) if _is_summary(each)]
    if not summaries:
        raise Skip("no output stands for a whole row")
    for reach in summaries:
        for name, sizes in reach.backward.items():
            if sizes.shape != (part.batch, part.time):
                continue
            used = sizes.max(0)
            if used[-1] > 0 and not used[:-1].any():
                yield rule.finding(
                    name or "module",
                    f"{reach.output.name} takes the backward direction of {name or 'the layer'} at "
                    f"the last of {part.time} steps, where it has read one step only.",
                    {"steps read": 1},
                )


def _is_summary(reach: Reach) -> bool:
    return reach.output.time_axis is None


def _end_counts(seen: Examination, part: Subject, output: Output, step: int) -> bool:
    """Return whether an exchange of the steps after `step` changes the output after all.

    A maximum has no gradient from where it is not, and still depends on it.
    """
    known = base(seen)
    before = Base(part.known, known.limits, known.scales)
    late = np.broadcast_to(np.arange(part.time) > step, (part.batch, part.time))
    for draw in range(DRAWS):
        after = part.run(part.changed(late, seen.rng(f"end {draw}")))
        for each in differences(part, before, after):
            if each.output.name == output.name and each.counts:
                return True
    return False


def _refuse_strides(module: nn.Module) -> None:
    kinds = nn.Conv1d | nn.MaxPool1d | nn.AvgPool1d
    for name, each in module.named_modules():
        strides = np.atleast_1d(each.stride) if isinstance(each, kinds) else np.ones(1)
        if strides.max() > 1:
            raise Skip(
                f"{name or 'the module'} strides over steps, and may leave the last ones out"
            )


def _picture(reach: Reach) -> Picture:
    sizes = reach.by_step.max(0)
    return Picture(
        "lines",
        f"Gradient of {reach.output.name}",
        "step of the input",
        "largest gradient",
        {"all rows": np.where(sizes > 0, sizes, np.nan)},
        log_y=True,
    )
