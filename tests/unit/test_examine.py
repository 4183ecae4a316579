"""`examine` itself: which rules are asked, what a refusal becomes, and what rounding may do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hiddenstate.diagnose import CATALOGUE, Severity, examine
from hiddenstate.diagnose.examine import Examination, chosen
from hiddenstate.diagnose.finding import Finding, Rule, Skip
from hiddenstate.diagnose.measures.compare import LEAST_SHARE, base, differences, steady, worst
from hiddenstate.errors import UsageError

B, T, D, H = 5, 8, 3, 6


class Tagger(nn.Module):
    def __init__(self, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.layer = layer or nn.GRU(D, H, batch_first=True)
        self.head = nn.Linear(H, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0])


def batch(time: int = T) -> tuple[Tensor]:
    return (torch.randn(B, time, D, generator=torch.Generator().manual_seed(0)),)


@pytest.fixture
def added() -> Iterator[dict[str, Rule]]:
    """Rules that only this test knows."""
    kept = dict(CATALOGUE)
    yield CATALOGUE
    CATALOGUE.clear()
    CATALOGUE.update(kept)


def a_rule(code: str, check: Any) -> Rule:
    return Rule(code, "made up", Severity.WARNING, "?", ".", ".", {}, check)


def test_codes_choose_rules_by_their_beginning() -> None:
    assert {rule.code for rule in chosen(["HS12"])} == {"HS121", "HS122", "HS123", "HS124", "HS125"}
    assert "HS121" not in {rule.code for rule in chosen(["HS12"], ["HS121"])}
    assert [rule.code for rule in chosen()] == sorted(CATALOGUE)
    assert [rule.code for rule in chosen(["rows-mixed"])] == ["HS121"]
    with pytest.raises(UsageError, match=r"no rule 'row-mixed'.*Did you mean rows-mixed"):
        chosen(["row-mixed"])


def test_what_a_rule_says_ends_as_finding_skip_or_pass(added: dict[str, Rule]) -> None:
    def found(seen: Examination) -> Iterator[Finding]:
        yield added["HS191"].finding("here", "One thing.")
        raise Skip("the second could not be asked")

    def skipped(seen: Examination) -> Iterator[Finding]:
        raise Skip("no reason")
        yield

    def refused(seen: Examination) -> Iterator[Finding]:
        seen.subject.run({"x": torch.zeros(B, T, D + 1)})
        yield

    def silent(seen: Examination) -> Iterator[Finding]:
        return iter(())

    for code, check in (
        ("HS191", found),
        ("HS192", skipped),
        ("HS193", refused),
        ("HS194", silent),
    ):
        added[code] = a_rule(code, check)
    report = examine(Tagger(), batch(), only=["HS19"])
    assert [each.code for each in report.findings] == ["HS191"]
    reasons = {rule.code: reason for rule, reason in report.skipped}
    assert reasons["HS192"] == "no reason"
    assert "the module raised RuntimeError" in reasons["HS193"]
    assert [rule.code for rule in report.passed] == ["HS194"]


def test_a_fault_of_ours_is_not_hidden(added: dict[str, Rule]) -> None:
    def broken(seen: Examination) -> Iterator[Finding]:
        raise ZeroDivisionError
        yield

    added["HS191"] = a_rule("HS191", broken)
    with pytest.raises(ZeroDivisionError):
        examine(Tagger(), batch(), only=["HS191"])


def test_an_examination_is_the_same_every_time_and_leaves_no_mark() -> None:
    module, given = Tagger().train(), batch()
    before = {name: each.clone() for name, each in module.state_dict().items()}
    kept, state = given[0].clone(), torch.get_rng_state()
    reports = [examine(module, given).to_json() for _ in range(2)]
    assert reports[0] == reports[1]
    assert module.training
    assert all(torch.equal(each, before[name]) for name, each in module.state_dict().items())
    assert torch.equal(given[0], kept)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_report_tells_what_was_examined() -> None:
    report = examine(Tagger(), batch(), only=["HS1"], name="my tagger")
    assert report.title == "my tagger"
    assert report.facts["recurrent layers"] == "layer (GRU 6)"
    assert report.facts["outputs"] == "output [B, T]"
    assert report.facts["sequences"] == "x (rows first)"
    assert report.trace is not None


def test_a_module_without_a_layer_that_is_known_is_examined_all_the_same() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean(0)

    report = examine(Mean(), batch(), only=["HS1"], batch_first=True)
    assert report.trace is None
    assert "HS121" in {each.code for each in report.findings}


def test_a_loss_that_raises_is_a_reason() -> None:
    def loss(output: Tensor) -> Tensor:
        raise KeyError("target")

    seen = Examination(Tagger(), batch(), loss)
    with pytest.raises(Skip, match="the loss raised KeyError"):
        _ = seen.costed


def test_causal_says_whether_outputs_may_read_ahead() -> None:
    module = Tagger(nn.GRU(D, H // 2, batch_first=True, bidirectional=True))
    for causal, expected in ((None, set()), (False, set()), (True, {"HS111"})):
        report = examine(module, batch(), causal=causal, only=["HS111"])
        assert {each.code for each in report.findings} == expected


def chaotic(gain: float) -> Examination:
    """A layer in which a rounding error grows along the row, a thousandfold at a gain of 1.9."""
    torch.manual_seed(1)
    module = Tagger(nn.RNN(D, 32, batch_first=True))
    module.head = nn.Linear(32, 2)
    nn.init.normal_(module.layer.weight_hh_l0, 0, gain / 32**0.5)
    return Examination(module, batch(100))


def test_only_more_than_rounding_counts() -> None:
    seen = chaotic(1.9)
    x = seen.few.array("x")
    found = differences(seen.few, base(seen), seen.few.run({"x": x * (1 + 1e-7)}))
    assert found[0].share > LEAST_SHARE[torch.float32]
    assert worst(found) is None
    assert worst(differences(seen.few, base(seen), seen.few.run({"x": x * 1.5}))) is not None


def test_where_rounding_decides_nothing_is_asked() -> None:
    with pytest.raises(Skip, match="one rounding error in every weight changes its results"):
        steady(chaotic(3.0))


def test_what_masks_are_filled_with_is_no_size() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tagger = Tagger()

        def forward(self, x: Tensor) -> Tensor:
            out = self.tagger(x)
            return torch.cat([out, torch.full_like(out[..., :1], -1e9)], -1)

    seen = Examination(Masked(), batch())
    assert base(seen).scales[0] < 10


def test_a_number_and_none_are_infinitely_apart() -> None:
    seen = Examination(Tagger(), batch())
    after = [each.clone() for each in seen.few.known]
    after[0][2, 3] = torch.nan
    found = worst(differences(seen.few, base(seen), after))
    assert found is not None
    assert found.rows == [2]
    assert np.isinf(found.largest)
    assert np.flatnonzero(found.by_step[2]).tolist() == [3]
    seen.few._known = tuple(after)
    again = Examination(Tagger(), batch())
    again.few._known = tuple(after)
    assert base(again).outputs[0] is after[0]
