"""Fit: from a file to an artifact. recipe -> data -> split -> tasks -> spec -> model -> scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiddenstate import artifact as artifacts
from hiddenstate.artifact import Artifact
from hiddenstate.errors import UsageError
from hiddenstate.job.card import model_card
from hiddenstate.job.evaluate import Ceiling, evaluate_log
from hiddenstate.job.folder import RunFolder
from hiddenstate.job.interrupt import interruptible
from hiddenstate.job.model import Model
from hiddenstate.job.observers import observers
from hiddenstate.job.prepare import Prepared, prepare
from hiddenstate.models import Regularisation, SequenceModel
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import EventLog
from hiddenstate.train import Feed, Progress, Recipe, read_recipe, recency_weights
from hiddenstate.train import fit as train
from hiddenstate.train.recipe import Train

ONE_THREAD_BELOW = 192

Observer = Callable[[Progress | str], None]


def fit(
    source: Any,
    out: str | Path | None = None,
    *,
    recipe: Recipe | str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    observer: Observer = lambda _: None,
    ceiling: Ceiling | None = None,
    **settings: Any,
) -> Model:
    """Fit a model to a log of event histories and score it on its last cases.

    source:   a file, a polars or pandas frame, or an EventLog
    out:      run folder; without it nothing is written and the model lives in memory
    recipe:   a Recipe or a TOML file; `settings` are laid over it by name: epochs=20, cell="lstm"
    observer: receives Progress and remarks while the fit runs
    ceiling:  gives the best possible predictions where they are known (simulated logs)

    Ctrl-C ends training after the batch under way and keeps the best model so far. Raises
    HiddenstateError with what was wrong, what was expected and what to do.
    """
    chosen = read_recipe(recipe, settings)
    folder = None if out is None else RunFolder(Path(out))
    if resume and (folder is None or overwrite):
        raise UsageError(
            "resume was asked for " + ("with overwrite." if folder else "without out."),
            "A fit goes on from the checkpoint in its run folder, which is then kept.",
            "Give out= (--out) and leave overwrite out.",
        )
    if folder is not None:
        folder.refuse_existing(overwrite=overwrite, resume=resume)
    prepared = prepare(source, chosen, observer)
    model = _build(prepared, chosen)
    if folder is not None:
        folder.begin(chosen.to_toml(), resume=resume)
        folder.note_source(prepared.source, prepared.log, resume=resume)
        folder.note_split(prepared.parts)
    threads = torch.get_num_threads()
    try:
        narrow = chosen.model.hidden_size < ONE_THREAD_BELOW
        torch.set_num_threads(chosen.train.threads or (1 if narrow else threads))
        with interruptible() as stopped:
            epochs = _train(model, prepared, chosen, folder, resume, observer, stopped)
            interrupted = stopped()
    finally:
        torch.set_num_threads(threads)
    artifact = _finish(prepared, chosen, model, epochs, interrupted, ceiling)
    if folder is not None:
        artifacts.save(artifact, folder.path)
    return Model(artifact)


def _build(prepared: Prepared, recipe: Recipe) -> SequenceModel:
    """Build the model and try it on one case, so that it fails before anything is written."""
    settings = recipe.train
    torch.manual_seed(settings.seed)
    model = SequenceModel(
        prepared.spec,
        Regularisation(
            settings.dropout, settings.input_dropout, settings.variational, settings.dropconnect
        ),
        settings.kernel,
        recipe.model.init or ("orthogonal" if recipe.model.cell == "elman" else "chrono"),
        max(int(prepared.parts[0].lengths.max(initial=0)), 3),
    )
    with torch.random.fork_rng(devices=[]):
        model.losses(_feed(prepared, prepared.parts[0]).batch(np.arange(1)))
    return model


def _feed(prepared: Prepared, log: EventLog, recency: float = 0.0) -> Feed:
    weights = recency_weights(log, recency)
    return Feed(log, prepared.spec.schema, prepared.tasks, prepared.spec.heads, weights)


def _train(
    model: SequenceModel,
    prepared: Prepared,
    recipe: Recipe,
    folder: RunFolder | None,
    resume: bool,
    observer: Observer,
    stopped: Callable[[], bool],
) -> list[Progress]:
    """Train the model in place; return the report of every epoch."""
    settings = recipe.train
    training, validation, _ = prepared.parts
    epochs: list[Progress] = []

    def run(phase: str, recipe: Train, log: EventLog, judged: EventLog | None) -> None:
        path = folder.checkpoint(phase) if folder else None
        for progress in train(
            model,
            recipe,
            _feed(prepared, log, recipe.recency),
            _feed(prepared, judged) if judged is not None and judged.cases else None,
            phase=phase,
            checkpoint_path=path,
            resume=resume and path is not None and path.exists(),
            stop=stopped,
        ):
            if progress.epoch_ended:
                epochs.append(progress)
            tell(progress)

    with observers(recipe, folder, observer) as tell:
        run("train", settings, training, validation)
        if settings.finish_epochs and validation.cases and not stopped():
            gentle = settings.model_copy(
                update={
                    "epochs": settings.finish_epochs,
                    "learning_rate": settings.learning_rate / 5,
                    "warmup": 0.0,
                }
            )
            run("finish", gentle, prepared.both, None)
    return epochs


def _finish(
    prepared: Prepared,
    recipe: Recipe,
    model: SequenceModel,
    epochs: list[Progress],
    interrupted: bool,
    ceiling: Ceiling | None,
) -> Artifact:
    """Score the model on the held-back cases and put everything into an artifact."""
    weights = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
    floors = {task.name: each for task, each in zip(prepared.tasks, prepared.floors)}
    bare = Artifact(prepared.spec, weights, {}, {}, {})
    held_back = [
        (name, log) for name, log in zip(("test", "validation"), prepared.parts[:0:-1]) if log.cases
    ]
    part, log = held_back[0] if held_back else ("training", prepared.parts[0])
    scores = evaluate_log(Runtime(bare), floors, log, seed=recipe.train.seed, ceiling=ceiling)
    metrics = {
        "scores": {"part": part, **scores},
        "source": prepared.source,
        "cases": prepared.log.cases,
        "events": prepared.log.events,
        "remarks": list(prepared.remarks),
        "split": {
            "description": prepared.split.description,
            "cases": [part.cases for part in prepared.parts],
        },
        "reading": {
            "with_times": prepared.log.time_us is not None,
            "encoding": recipe.input.encoding,
            "time_format": recipe.input.time_format,
        },
        "training": {
            "interrupted": interrupted,
            "seed": recipe.train.seed,
            "parameters": sum(value.size for value in weights.values()),
            **_summary(epochs),
        },
    }
    return Artifact(
        spec=prepared.spec,
        weights=weights,
        floors={name: floor.to_json() for name, floor in floors.items()},
        floor_arrays={
            f"{index}/{name}": array
            for index, floor in enumerate(prepared.floors)
            for name, array in floor.to_arrays().items()
        },
        metrics=metrics,
        card=model_card(prepared.spec, bare.fingerprint, metrics),
    )


def _summary(epochs: list[Progress]) -> dict[str, Any]:
    """What the model card tells of the training."""
    if not epochs:
        return {}
    searched = [each for each in epochs if each.phase == "train"]
    finished = epochs[len(searched) :]
    last = searched[-1] if searched else epochs[-1]
    return {
        "epochs": last.epoch,
        "best_epoch": last.best_epoch,
        "best_loss": last.best_loss,
        "finish_epochs": finished[-1].epoch if finished else 0,
        "seconds": sum(part[-1].seconds for part in (searched, finished) if part),
        "kernels": list(last.kernels),
    }
