"""The checkpoint: everything that the next epoch depends on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hiddenstate.errors import ArtifactError
from hiddenstate.train import Progress, checkpoint, fit
from tests.unit.small_fits import feed, model, prepared, small_recipe

RECIPE = small_recipe(epochs=6)


def test_a_fit_cut_at_any_epoch_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    ready = prepared(RECIPE)

    def run(
        path: Path, until: int, resume: bool = False
    ) -> tuple[dict[str, object], list[Progress]]:
        torch.manual_seed(0 if not resume else 99)
        fresh = model(ready)
        reports = []
        training = fit(
            fresh, RECIPE.train, feed(ready), feed(ready, 1), checkpoint_path=path, resume=resume
        )
        for report in training:
            if report.epoch_ended:
                reports.append(report)
                if report.epoch == until:
                    break
        return fresh.state_dict(), reports

    whole, told = run(tmp_path / "whole", 99)
    for cut in (1, 3, 6):
        path = tmp_path / f"cut{cut}"
        run(path, cut)
        resumed, again = run(path, 99, resume=True)
        assert all(torch.equal(resumed[name], value) for name, value in whole.items())  # type: ignore[arg-type]
        assert [each.epoch for each in again] == list(range(cut, 7))
        losses = [(each.train_loss, each.validation_loss) for each in told]
        assert [(each.train_loss, each.validation_loss) for each in again] == losses[cut - 1 :]
        assert again[-1].best_epoch == told[-1].best_epoch


def test_a_checkpoint_restores_all(tmp_path: Path) -> None:
    ready = prepared(RECIPE)
    fresh = model(ready)
    optimiser = torch.optim.AdamW(fresh.parameters())
    loss = fresh.losses(feed(ready).batch(ready.split.train[:3]))[0].sum()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    best = {name: value + 1 for name, value in fresh.state_dict().items()}
    position = checkpoint.Position(4, 3, 0.25, 12.5, {"epoch": 4})
    checkpoint.write(tmp_path / "c", position, fresh, best, optimiser)
    drawn = torch.rand(5)

    other = model(ready)
    other_optimiser = torch.optim.AdamW(other.parameters())
    back, best_back = checkpoint.read(tmp_path / "c", other, other_optimiser)
    assert back == position
    assert torch.equal(torch.rand(5), drawn)
    for name, value in fresh.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
        assert torch.equal(best_back[name], best[name])
    before, after = (each.state_dict()["state"] for each in (optimiser, other_optimiser))
    assert before.keys() == after.keys() != set()
    for index, slots in before.items():
        assert all(torch.equal(after[index][slot], value) for slot, value in slots.items())


@pytest.mark.parametrize("damage", ["gone", "cut", "foreign", "another model"])
def test_a_checkpoint_that_cannot_be_used_is_refused(damage: str, tmp_path: Path) -> None:
    ready = prepared(RECIPE)
    fresh = model(ready)
    path = tmp_path / "c.safetensors"
    optimiser = torch.optim.AdamW(fresh.parameters())
    checkpoint.write(path, checkpoint.Position(), fresh, fresh.state_dict(), optimiser)
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "foreign":
        path.write_bytes(b"something else entirely")
    else:
        fresh = model(prepared(small_recipe(hidden_size=5)))
        optimiser = torch.optim.AdamW(fresh.parameters())
    with pytest.raises(ArtifactError, match=r"c\.safetensors cannot be used"):
        checkpoint.read(path, fresh, optimiser)
