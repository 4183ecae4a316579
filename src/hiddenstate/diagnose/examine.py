"""Examine a module on a batch: every rule of the catalogue that can be asked of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from torch import Tensor, nn

from hiddenstate.diagnose import checks as checks  # enters all rules
from hiddenstate.diagnose.finding import CATALOGUE, Finding, Rule, Skip
from hiddenstate.diagnose.report import Report
from hiddenstate.diagnose.run import Run
from hiddenstate.diagnose.subject.calling import cloned, in_the_loss, seeded
from hiddenstate.diagnose.subject.listed import Listed, as_arrays
from hiddenstate.diagnose.subject.subject import Subject
from hiddenstate.diagnose.tracing.capture import trace
from hiddenstate.diagnose.tracing.record import Trace
from hiddenstate.diagnose.watching.training import Training
from hiddenstate.errors import HiddenstateError, UsageError, nearest

Loss = Callable[[Any], Tensor]
Result = TypeVar("Result")

FEW, FEWER = 16, 6
"""Rows that are enough to see whether a result depends on what it must not depend on; the second
where a pass over the first costs more multiply-adds than LARGE."""
LARGE = 1e9


class Examination:
    """What the rules look at: a module on a batch, and what was already measured of it.

    subject:  the module and the whole batch; `few` is for changes: at most 16 of its rows
    batch:    as it was given
    loss:     scalar loss of what the module gives; None where none was given
    causal:   whether no output may depend on later steps; None where that was not said
    training: the record of a training of this module
    run:      what a fitted run knows of itself: scores, data
    held_out: another batch, which the module was not trained on
    seed:     of all random draws
    """

    def __init__(
        self,
        module: nn.Module,
        batch: tuple[Any, ...] | Mapping[str, Any],
        loss: Loss | None = None,
        *,
        causal: bool | None = None,
        batch_first: bool | None = None,
        states: Iterable[str] = (),
        training: Training | None = None,
        run: Run | None = None,
        held_out: tuple[Any, ...] | Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.subject = Subject(module, batch, batch_first=batch_first, states=states)
        self.batch, self.loss, self.causal = batch, loss, causal
        self.training, self.held_out, self.seed = training, held_out, seed
        self.run = run
        self._known: dict[str, Any] = {}

    @cached_property
    def few(self) -> Subject:
        """The subject on at most 16 rows, with small weights in the place of all-zero ones.

        A fresh model's zero biases, or a head that starts at zero, hide what is read.
        """
        module = self.subject.module
        tables = {id(each.weight) for each in module.modules() if isinstance(each, nn.Embedding)}
        weights = sum(each.numel() for each in module.parameters() if id(each) not in tables)
        rows = FEW if weights * FEW * self.subject.time < LARGE else FEWER
        return self.subject.few(rows).stirred(self.rng("stirred"))

    @property
    def trace(self) -> Trace:
        """The pass over the batch in eval mode; raises Skip where it cannot be traced."""
        found: Trace = self.known("trace", lambda: self._traced(None))
        return found

    @property
    def costed(self) -> Trace:
        """The same with the loss's gradient at every step; raises Skip without a loss."""
        if self.loss is None:
            raise Skip("no loss was given")
        found: Trace = self.known("costed", lambda: self._traced(self.loss))
        return found

    @property
    def stirred(self) -> Trace:
        """As `costed`, with small weights in the place of all-zero ones."""
        if self.loss is None:
            raise Skip("no loss was given")
        subject = self.subject.stirred(self.rng("stirred"))
        if subject is self.subject:
            return self.costed
        found: Trace = self.known("stirred", lambda: self._traced(self.loss, subject))
        return found

    def rng(self, name: str) -> np.random.Generator:
        """Return a generator of its own for each name, the same in every examination."""
        return np.random.default_rng([self.seed, *name.encode()])

    def known(self, name: str, measure: Callable[[], Result]) -> Result:
        """Return what `measure` gives, measured once for each name; a Skip is kept as well."""
        if name not in self._known:
            try:
                self._known[name] = measure()
            except Skip as error:
                self._known[name] = error
        found: Any = self._known[name]
        if isinstance(found, Skip):
            raise found
        result: Result = found
        return result

    def _traced(self, loss: Loss | None, subject: Subject | None = None) -> Trace:
        def asked(outputs: Any) -> Tensor:
            assert loss is not None
            with in_the_loss():
                return loss(outputs)

        with seeded(self.seed, self.subject.module):
            try:
                return trace(
                    (subject or self.subject).copy(),
                    cloned(self.batch),
                    None if loss is None else asked,
                    lengths=self.subject.lengths,
                )
            except HiddenstateError as error:
                raise Skip(f"it cannot be traced: {error.wrong}") from error


def examine(
    module: nn.Module,
    batch: tuple[Any, ...] | Mapping[str, Any],
    loss: Loss | None = None,
    *,
    causal: bool | None = None,
    batch_first: bool | None = None,
    states: Iterable[str] = (),
    training: Training | None = None,
    run: Run | None = None,
    held_out: tuple[Any, ...] | Mapping[str, Any] | None = None,
    only: Iterable[str] = (),
    ignore: Iterable[str] = (),
    seed: int = 0,
    name: str | None = None,
) -> Report:
    """Ask every rule that applies to a module on a batch; its code need not be known.

    batch:       (x,), (x, lengths), any tuple of the module's arguments, or a mapping of them; a
                 list of rows of unequal lengths is tried as one padded array
    loss:        makes the scalar loss of what the module gives; with it, gradients are looked at
    causal:      True: no output may depend on later steps; False: all may; None: they may where a
                 layer reads from the end
    batch_first: how the sequences lie, where their shapes leave it open
    states:      names of arguments that are first states, beside those that are called so
    training:    what a `Watch` has recorded of this module's training
    run:         what a fitted run knows beside its module; `job.diagnosis` gives it
    only:        codes, their beginnings ("HS1") or names of rules; the others are left out
    ignore:      those that are left out
    name:        what is examined, for the report's title

    The module is run on copies in eval mode and is itself not touched, nor is a random generator.
    Raises UsageError where it does not run on the batch or a code is unknown.

    >>> import torch
    >>> gru = torch.nn.GRU(3, 5, batch_first=True)
    >>> examine(gru, (torch.randn(4, 6, 3),), only=["HS1"]).healthy
    True
    """
    rules, title = chosen(only, ignore), name or type(module).__name__
    module, batch = as_arrays(module, batch)
    seen = Examination(
        module,
        batch,
        loss,
        causal=causal,
        batch_first=batch_first,
        states=states,
        training=training,
        run=run,
        held_out=held_out,
        seed=seed,
    )
    findings: list[Finding] = []
    skipped: list[tuple[Rule, str]] = []
    passed: list[Rule] = []
    for rule in rules:
        found: list[Finding] = []
        try:
            for finding in rule.check(seen):
                found.append(finding)
        except Skip as reason:
            if not found:
                skipped.append((rule, str(reason)))
                continue
        findings.extend(found)
        if not found:
            passed.append(rule)
    traced = None
    for kind in ("costed", "trace"):
        with suppress(Skip):
            traced = traced or getattr(seen, kind)
    return Report(
        title=title,
        facts=facts(seen.subject),
        findings=tuple(findings),
        skipped=tuple(skipped),
        passed=tuple(passed),
        trace=traced,
    )


def chosen(only: Iterable[str] = (), ignore: Iterable[str] = ()) -> list[Rule]:
    """Return the rules of these codes, beginnings of codes or names, by code; raises UsageError."""
    wanted, unwanted = tuple(only), tuple(ignore)
    for each in (*wanted, *unwanted):
        if not any(_means(rule, each) for rule in CATALOGUE.values()):
            names = [rule.name for rule in CATALOGUE.values()]
            raise UsageError(
                f"There is no rule {each!r}.",
                f"Codes go from {min(CATALOGUE)} to {max(CATALOGUE)}; HS1 stands for all HS1xx.",
                f"Give a code or a name.{nearest(each, names)}",
            )
    return [
        rule
        for _, rule in sorted(CATALOGUE.items())
        if (not wanted or any(_means(rule, each) for each in wanted))
        and not any(_means(rule, each) for each in unwanted)
    ]


def _means(rule: Rule, given: str) -> bool:
    return rule.code.startswith(given) or rule.name == given


def facts(subject: Subject) -> dict[str, str]:
    """Return what the report's head says about the module and its batch."""
    module, ends = subject.module, subject.ends
    layers = [
        f"{name or 'itself'} ({_kind(module.get_submodule(name))})" for name in subject.names()
    ]
    steps = f"{subject.time}"
    if subject.lengths is not None:
        steps += f", of which rows have {ends.min()} to {ends.max()}"
    count = sum(each.numel() for each in module.parameters())
    outputs = [
        f"{each.name} [{_axes(each.batch_axis, each.time_axis)}]" for each in subject.outputs
    ]
    return {
        "module": type(module.module if isinstance(module, Listed) else module).__name__,
        "recurrent layers": ", ".join(layers) or "none that is known",
        "parameters": f"{count:,}",
        "rows": f"{subject.batch}",
        "steps": steps,
        "sequences": ", ".join(subject.sequences)
        + (" (rows first)" if subject.batch_first else " (steps first)"),
        "outputs": ", ".join(outputs),
    }


def _kind(layer: nn.Module) -> str:
    cell = getattr(layer, "cell", None)
    size = getattr(layer, "hidden_size", getattr(cell, "hidden_size", ""))
    return f"{getattr(cell, 'name', type(layer).__name__)} {size}".strip()


def _axes(batch: int | None, time: int | None) -> str:
    found = sorted((axis, sign) for axis, sign in ((batch, "B"), (time, "T")) if axis is not None)
    return ", ".join(sign for _, sign in found) or "neither B nor T"
