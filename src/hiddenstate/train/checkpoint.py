"""A checkpoint: everything that the next epoch depends on, in one file, without pickle.

One safetensors file holds the tensors of the model, of the best model so far, of the optimiser
and of torch's random generator; its metadata holds the numbers as JSON. The file is replaced
whole, so that after kill -9 the last finished epoch is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hiddenstate.artifact.files import write_atomically
from hiddenstate.errors import ArtifactError

Tensors = dict[str, torch.Tensor]


@dataclass
class Position:
    """How far a fit has come; `report` is the last epoch's, as Progress.to_json gives it."""

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float | None = None
    seconds: float = 0.0
    report: Mapping[str, Any] | None = None


def write(
    path: Path,
    position: Position,
    model: torch.nn.Module,
    best: Tensors,
    optimiser: torch.optim.Optimizer,
) -> None:
    """Replace the checkpoint at path."""
    tensors: Tensors = {"generator": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda_generator"] = torch.cuda.get_rng_state()
    tensors |= {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": value for name, value in slots.items()}
    # Copies: safetensors refuses tensors that share memory, as `best` and `model` do at first.
    tensors = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    write_atomically(path, save(tensors, metadata={"position": json.dumps(asdict(position))}))


def read(
    path: Path, model: torch.nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[Position, Tensors]:
    """Restore model, optimiser and random generator; return the position and the best weights."""
    try:
        with safe_open(path, framework="pt") as file:
            position = Position(**json.loads(file.metadata()["position"]))
            tensors: Tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model.load_state_dict(_under("model/", tensors))
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in _under("optimiser/", tensors).items():
            index, slot = name.split("/")
            state.setdefault(int(index), {})[slot] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        torch.set_rng_state(tensors["generator"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["cuda_generator"])
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as problem:
        raise ArtifactError(
            f"The checkpoint {path} cannot be used ({str(problem).splitlines()[0]}).",
            "It must be whole, and come from the same recipe and file.",
            "Start the fit anew with --overwrite.",
        ) from None
    return position, _under("best/", tensors)


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
