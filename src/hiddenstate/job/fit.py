"""Fit: from a source to an artifact. recipe -> data -> split -> spec -> model -> scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hiddenstate import artifact as artifacts
from hiddenstate.artifact import Artifact
from hiddenstate.errors import UsageError
from hiddenstate.job.card import model_card
from hiddenstate.job.families import family_of
from hiddenstate.job.folder import RunFolder
from hiddenstate.job.interrupt import interruptible
from hiddenstate.job.observers import begin, observers
from hiddenstate.job.prepared import Prepared
from hiddenstate.job.together import processes
from hiddenstate.models import Trainable
from hiddenstate.train import Feed, Progress, Recipe, read_recipe
from hiddenstate.train import fit as train
from hiddenstate.train.devices import chosen_device
from hiddenstate.train.processes import Processes
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
    ceiling: Any | None = None,
    **settings: Any,
) -> Any:
    """Fit a model to a source and score it on its held-back part; return the fitted model.

    source:   what the tasks read: a file, a frame, an EventLog; see `hiddenstate fit --help`
    out:      run folder; without it nothing is written and the model lives in memory
    recipe:   a Recipe or a TOML file; `settings` are laid over it by name: epochs=20, cell="lstm"
    observer: receives Progress and remarks while the fit runs; where it has a method `begins`, it
              gets the torch model first, to look at
    ceiling:  gives the best possible predictions where they are known (simulated logs)

    Returns the `job.model.Model` of the task's family. Ctrl-C ends training after the batch under
    way and keeps the best model so far. Under torchrun the processes train one model together.
    Raises HiddenstateError with what was wrong, what was expected and what to do.
    """
    if isinstance(source, str | Path) and str(source).startswith("problem:"):
        # A problem with a known answer is its own source: there is no file to read.
        settings = {"tasks": [str(source)], **settings}
    chosen = read_recipe(recipe, settings)
    family = family_of(chosen.tasks)
    if chosen.model.tied and family.name not in ("text", "pairs"):
        raise UsageError(
            f"model.tied is set, and the task is {chosen.tasks[0]}.",
            "Only language models and translators write the symbols that they read.",
            "Leave it out.",
        )
    folder = None if out is None else RunFolder(Path(out))
    if resume and (folder is None or overwrite):
        raise UsageError(
            "resume was asked for " + ("with overwrite." if folder else "without out."),
            "A fit goes on from the checkpoint in its run folder, which is then kept.",
            "Give out= (--out) and leave overwrite out.",
        )
    if folder is not None:
        folder.refuse_existing(overwrite=overwrite, resume=resume)
    options = {} if ceiling is None else {"ceiling": ceiling}
    prepared: Prepared = family.prepare(source, chosen, observer, **options)
    device = chosen_device(chosen.train)
    with processes(device) as team:
        model = _build(prepared, device)
        if folder is not None and team.leads:
            folder.begin(chosen.to_toml(), resume=resume)
            folder.note_source(prepared.source, prepared.identity(), resume=resume)
            folder.note_split(prepared.parts_of_cases())
        team.wait()
        threads = torch.get_num_threads()
        try:
            narrow = chosen.model.hidden_size < ONE_THREAD_BELOW
            torch.set_num_threads(chosen.train.threads or (1 if narrow else threads))
            with interruptible() as stopped:
                epochs = _train(model, prepared, folder, resume, team.leads, observer, stopped)
                interrupted = stopped()
        finally:
            torch.set_num_threads(threads)
        artifact = _finish(prepared, model, epochs, interrupted)
        if folder is not None and team.leads:
            artifacts.save(artifact, folder.path)
    return family.model(artifact)


def _build(prepared: Prepared, device: torch.device) -> Trainable:
    """Build the model and try it on a batch, so that it fails before anything is written."""
    settings = prepared.recipe.train
    torch.manual_seed(settings.seed)
    model = prepared.build().to(device)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        training = prepared.feeds()[0]
        model.losses(training.batch(training.order(settings, None)[0]).to(device))
    return model


def _train(
    model: Trainable,
    prepared: Prepared,
    folder: RunFolder | None,
    resume: bool,
    leads: bool,
    observer: Observer,
    stopped: Callable[[], bool],
) -> list[Progress]:
    """Train the model in place; return the report of every epoch."""
    settings = prepared.recipe.train
    epochs: list[Progress] = []

    def run(phase: str, recipe: Train, training: Feed, validation: Feed | None) -> None:
        path = folder.checkpoint(phase) if folder else None
        for progress in train(
            model,
            recipe,
            training,
            validation,
            phase=phase,
            checkpoint_path=path,
            resume=resume and path is not None and path.exists(),
            stop=stopped,
        ):
            if progress.epoch_ended:
                epochs.append(progress)
            tell(progress)

    if leads:
        begin(observer, model)
    with observers(prepared.recipe, folder, observer, leads=leads) as tell:
        training, validation = prepared.feeds()
        run("train", settings, training, validation)
        both = prepared.finishing() if settings.finish_epochs and validation else None
        if both is not None and not Processes().any(stopped()):
            gentle = settings.model_copy(
                update={
                    "epochs": settings.finish_epochs,
                    "minutes": None,
                    "learning_rate": settings.learning_rate / 5,
                    "warmup": 0.0,
                }
            )
            run("finish", gentle, both, None)
    return epochs


def _finish(
    prepared: Prepared, model: Trainable, epochs: list[Progress], interrupted: bool
) -> Artifact:
    """Score the model on the held-back part and put everything into an artifact."""
    weights = {
        name: value.detach().cpu().numpy().copy() for name, value in model.state_dict().items()
    }
    floors, floor_arrays = prepared.floors()
    seed = prepared.recipe.train.seed
    bare = Artifact(prepared.spec, weights, {}, {}, {})
    metrics = {
        "scores": prepared.score(bare, seed),
        "source": prepared.source,
        "remarks": list(prepared.remarks),
        **prepared.facts(),
        "training": {
            "interrupted": interrupted,
            "seed": seed,
            "parameters": sum(value.size for value in weights.values()),
            **_summary(epochs),
        },
    }
    card = model_card(prepared.spec.task_names, prepared.about(), bare.fingerprint, metrics)
    return Artifact(prepared.spec, weights, floors, floor_arrays, metrics, card)


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
