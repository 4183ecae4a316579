"""Where a fit runs, and in which precision."""

from __future__ import annotations

import torch
from torch import nn

from hiddenstate.errors import UsageError
from hiddenstate.train.recipe import Train


def chosen_device(recipe: Train) -> torch.device:
    """Return the device of a recipe: what it names, or a GPU where there is one.

    Raises UsageError for a GPU that is not there, and for bfloat16 without one.
    """
    has_gpu = torch.cuda.is_available()
    if recipe.device == "cuda" and not has_gpu:
        raise UsageError(
            "train.device is cuda, and torch finds no GPU here.",
            "Training on a GPU needs one, its driver, and a torch built for it.",
            "Leave the setting out, or mend the installation (torch.cuda.is_available()).",
        )
    name = recipe.device or ("cuda" if has_gpu else "cpu")
    if recipe.precision == "bfloat16" and name == "cpu":
        raise UsageError(
            "train.precision is bfloat16, and training runs on the processor.",
            "The compiled kernels train in float32; bfloat16 is for a GPU.",
            "Leave the setting out, or train on a GPU.",
        )
    return torch.device(name)


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's weights are."""
    return next(model.parameters()).device


def autocast(recipe: Train, device: torch.device) -> torch.autocast:
    """Return the context in which a batch is computed: bfloat16 where the recipe asks for it."""
    return torch.autocast(
        device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16", cache_enabled=True
    )
