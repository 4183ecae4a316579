"""Runs again: no result may depend on chance, and no argument be changed. HS151 to HS154."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from hiddenstate.diagnose.checks.kept import random_first
from hiddenstate.diagnose.finding import Finding, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.compare import base, differences, unset, worst
from hiddenstate.diagnose.subject.calling import cloned
from hiddenstate.diagnose.subject.layout import every_leaf

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

SHARE = {"share of the output": 1e-4}


@rule(
    "HS151",
    "random-in-eval",
    Severity.ERROR,
    asks="Is the result in eval mode the same for every seed?",
    because="What is random in use gives one case two answers. It is also a sign that "
    "training-time noise (dropout, sampling) is still on, so that the scores are too low.",
    remedy="Use nn.Dropout, or F.dropout(x, p, self.training): F.dropout's own default is to drop "
    "always. Draw noise only if self.training. In WeightDrop and zoneout, look for the same.",
    limits=SHARE,
)
def random_in_eval(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Runs with two seeds, in eval mode."""
    few, known = seen.few, base(seen)
    if unset(seen) is not None:
        raise Skip("it reads memory that nobody wrote (HS154)")
    if worst(differences(few, known, few.run())) is not None:
        raise Skip("its results differ with the same seed (HS152)")
    found = worst(differences(few, known, few.run(seed=1)))
    if found is None:
        return
    if random_first(seen):
        raise Skip("its first state is random (HS136)")
    yield rule.finding(
        found.output.name,
        f"With another seed {found.output.name} differs by {found.largest:.3g}, {found.share:.2%} "
        "of its largest value, in eval mode.",
        {"difference": found.largest, "share": found.share},
    )


@rule(
    "HS152",
    "not-repeatable",
    Severity.ERROR,
    asks="Do two runs with the same seed give the same?",
    because="What differs from itself cannot be tested, compared or debugged, and a served answer "
    "cannot be reproduced.",
    remedy="Draw all random numbers from torch's generator (torch.manual_seed sets it), or from "
    "one that is seeded; leave clocks, hashes and sets out of the forward pass; see "
    "torch.use_deterministic_algorithms.",
    limits=SHARE,
)
def not_repeatable(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Three fresh copies are run with one seed."""
    few, known = seen.few, base(seen)
    if unset(seen) is not None:
        raise Skip("it reads memory that nobody wrote (HS154)")
    for _ in range(2):
        found = worst(differences(few, known, few.run()))
        if found is not None:
            yield rule.finding(
                found.output.name,
                f"Two runs with one seed differ by {found.largest:.3g} in {found.output.name}, "
                f"{found.share:.2%} of its largest value.",
                {"difference": found.largest, "share": found.share},
            )
            return


@rule(
    "HS153",
    "batch-changed",
    Severity.ERROR,
    asks="Are the arguments the same after a call as before?",
    because="A batch that the module writes into is another one when it is used again: in the "
    "next epoch, by the loss, by the second model of a comparison.",
    remedy="Take the in-place operation out (x = x * 2, not x *= 2; masked_fill, not "
    "masked_fill_), or clone the argument first.",
)
def batch_changed(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Every array among the arguments is compared with its copy."""
    few = seen.few
    given = {name: cloned(value) for name, value in few.arguments.items()}
    few.raw(given, keep=True)
    for (name, before), (_, after) in zip(every_leaf(few.arguments), every_leaf(given)):
        changed = _changed_numbers(before, after)
        if changed:
            yield rule.finding(
                name,
                f"After the call {changed:,} of {name}'s {_count(before):,} numbers are others.",
                {"numbers changed": changed},
            )


@rule(
    "HS154",
    "memory-unset",
    Severity.ERROR,
    asks="Is all memory written before it is read?",
    because="Arrays of torch.empty and torch.Tensor(sizes) hold whatever was in memory: often "
    "zeros, which hides it, and sometimes another call's numbers or NaN.",
    remedy="Use torch.zeros, or write the whole array before it is read.",
)
def memory_unset(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """torch fills every array with NaN that is made without being written."""
    found = unset(seen)
    if found is not None:
        yield rule.finding(
            found.output.name,
            f"With new arrays full of NaN until they are written, {found.output.name} of "
            f"{len(found.rows)} rows is NaN.",
            {"rows": len(found.rows)},
        )


def _changed_numbers(before: Any, after: Any) -> int:
    if isinstance(before, PackedSequence):
        before, after = before.data, after.data
    if isinstance(before, list | tuple):
        return 0 if before == after else abs(len(before) - len(after)) or len(before)
    if isinstance(before, np.ndarray):
        before, after = torch.as_tensor(before), torch.as_tensor(after)
    if before.shape != after.shape:
        return _count(before)
    same = before == after
    if before.is_floating_point():
        same |= before.isnan() & after.isnan()
    return int((~same).sum())


def _count(leaf: Any) -> int:
    if isinstance(leaf, PackedSequence):
        leaf = leaf.data
    return int(leaf.numel()) if isinstance(leaf, Tensor) else int(np.size(leaf))
