"""Codes of symbols, and the tables that they are looked up in. HS425."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hiddenstate.diagnose.finding import Finding, Rule, Severity, Skip, rule
from hiddenstate.diagnose.subject.layout import every_leaf

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination


@rule(
    "HS425",
    "codes-past-the-table",
    Severity.WARNING,
    asks="Has the table a row for every code that the batch holds?",
    because="Codes that are cut to the table's last row are one symbol to the model, and nothing "
    "fails: words that came after the table was sized are read as one word.",
    remedy="Give the table as many rows as the vocabulary has symbols, and map what is not in it "
    "to one symbol of its own before the model, where it is counted.",
)
def codes_past_the_table(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """What embeddings look up is compared with the codes that the module was given."""
    few = seen.few
    codes = {
        name: leaf
        for name, leaf in every_leaf(few.arguments)
        if isinstance(leaf, Tensor) and leaf.ndim > 1 and not leaf.is_floating_point()
    }
    if not codes:
        raise Skip("no argument holds codes")
    module, looked_up = few.copy(), list[tuple[str, nn.Embedding, Tensor]]()

    def note(name: str, table: nn.Module, given: Any) -> None:
        assert isinstance(table, nn.Embedding)
        looked_up.append((name, table, given[0].detach()))

    for name, each in module.named_modules():
        if isinstance(each, nn.Embedding):
            each.register_forward_pre_hook(lambda t, given, name=name: note(name, t, given))
    few.call(module)
    told = set[str]()
    for table_name, table, indices in looked_up:
        for name, leaf in codes.items():
            past = leaf >= table.num_embeddings
            if table_name in told or leaf.shape != indices.shape or not bool(past.any()):
                continue
            last = table.num_embeddings - 1
            # A table of the user's own may do the cutting itself.
            if torch.equal(indices.clamp(max=last), leaf.clamp(max=last)):
                told.add(table_name)
                yield rule.finding(
                    table_name,
                    f"{name} holds codes up to {int(leaf.max())}, and {table_name} has "
                    f"{table.num_embeddings} rows: {float(past.double().mean()):.0%} of the steps "
                    "are looked up as its last row.",
                    {"largest code": float(leaf.max()), "rows": float(table.num_embeddings)},
                )
