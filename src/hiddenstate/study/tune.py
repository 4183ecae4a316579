"""Which settings are best: a search by Optuna over the same fit, resumable."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages.journal import JournalFileBackend

from hiddenstate.artifact.files import write_atomically
from hiddenstate.errors import HiddenstateError, TrainingError, UsageError
from hiddenstate.job.fit import fit
from hiddenstate.job.tables import write_table
from hiddenstate.train import Progress, Recipe, read_recipe

if TYPE_CHECKING:
    import polars

JOURNAL, TRIALS, BEST = "journal.log", "trials.parquet", "best.toml"
NAME = "tune"
# Trials at the start whose settings are drawn at random, and from which later ones learn.
RANDOM_TRIALS = 8

Suggest = Callable[[optuna.Trial], Any]

SPACE: Mapping[str, Suggest] = {
    "train.learning_rate": lambda t: t.suggest_float("train.learning_rate", 3e-4, 3e-2, log=True),
    "model.hidden_size": lambda t: 8 * t.suggest_int("model.hidden_size", 4, 32, log=True),
    "model.layers": lambda t: t.suggest_int("model.layers", 1, 2),
    "train.batch_size": lambda t: 2 ** t.suggest_int("train.batch_size", 4, 7),
    "train.dropout": lambda t: t.suggest_float("train.dropout", 0.0, 0.5),
}
"""What is searched: settings of a recipe. Sizes are searched in eights, batches in powers of 2."""


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    recipe: the best trial's, whole
    loss:   its lowest validation loss
    trials: a row for each trial
    """

    recipe: Recipe
    loss: float
    trials: polars.DataFrame


def tune(
    source: str | Path,
    out: str | Path,
    *,
    trials: int = 20,
    search: tuple[str, ...] | None = None,
    cells: tuple[str, ...] = (),
    seed: int = 0,
    recipe: Recipe | str | Path | None = None,
    observer: Callable[[str], None] = lambda _: None,
    **settings: Any,
) -> Tuned:
    """Fit with settings that Optuna proposes and keep those with the lowest validation loss.

    out:      folder for journal.log (the search, which goes on where it stopped), trials.parquet
              and best.toml, a recipe for `hiddenstate fit --recipe`
    trials:   in all, those of earlier runs in this folder included
    search:   names of SPACE to search; all but those that `settings` give otherwise
    cells:    cells to choose from; the recipe's one otherwise
    settings: of every trial, by the names of a recipe

    A trial whose validation losses are worse than most at the same epoch is given up. The scores
    of the test part decide nothing. Ctrl-C leaves what is done. Raises UsageError for a setting
    that is not in SPACE, TrainingError where no trial could be made.
    """
    base = read_recipe(recipe, settings)
    searched = _searched(search, settings)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = JournalFileBackend(str(folder / JOURNAL))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name=NAME,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=RANDOM_TRIALS // 2, n_warmup_steps=3),
        load_if_exists=True,
    )
    told = {"source": str(source), "search": [*searched, *cells], "recipe": base.to_toml()}
    _require_same(study, told, folder)
    # A search that goes on draws on from where it stopped, not the first trials again.
    study.sampler = optuna.samplers.TPESampler(
        seed=seed + len(study.trials), n_startup_trials=RANDOM_TRIALS
    )
    for stale in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(stale.number, state=optuna.trial.TrialState.FAIL)

    def objective(trial: optuna.Trial) -> float:
        proposed = {name: SPACE[name](trial) for name in searched}
        if cells:
            proposed["model.cell"] = trial.suggest_categorical("model.cell", list(cells))
        chosen = read_recipe(base, proposed)
        trial.set_user_attr("recipe", chosen.to_toml())

        def watch(progress: Progress | str) -> None:
            if isinstance(progress, str) or not progress.epoch_ended or progress.phase != "train":
                return
            if progress.best_loss is not None and math.isfinite(progress.best_loss):
                trial.report(progress.best_loss, progress.epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

        model = fit(str(source), recipe=chosen, observer=watch)
        if model.interrupted:
            raise KeyboardInterrupt
        loss = model.metrics["training"].get("best_loss")
        if loss is None:
            raise UsageError(
                "A trial had no validation loss.",
                "The search goes by the loss on the validation part.",
                "Leave split.validation above 0.",
            )
        observer(f"trial {trial.number}: {loss:.4f}, " + _in_words(proposed))
        return float(loss)

    left = trials - len(_ended(study))
    if left > 0:
        study.optimize(objective, n_trials=left, catch=(HiddenstateError,))
    done = [t for t in _ended(study) if t.state == optuna.trial.TrialState.COMPLETE]
    if not done:
        raise TrainingError(
            f"None of {len(_ended(study))} trials came to an end.",
            "A search needs some that do.",
            "Fit once with the same settings, which says what is wrong.",
        )
    best = study.best_trial
    found = _table(study)
    write_table(found, folder / TRIALS)
    write_atomically(folder / BEST, best.user_attrs["recipe"].encode())
    return Tuned(read_recipe(folder / BEST), float(best.value or 0.0), found)


def _searched(search: tuple[str, ...] | None, settings: Mapping[str, Any]) -> list[str]:
    """Return the names to search; those that settings give, dotted or bare, are not searched."""
    for name in search or ():
        if name not in SPACE:
            raise UsageError(
                f"The setting {name!r} is not searched.",
                f"What is searched: {', '.join(SPACE)}.",
                "Name some of these, and give the others with --set.",
            )
    given = {name for name, value in settings.items() if value is not None}
    free = [name for name in SPACE if not {name, name.partition(".")[2]} & given]
    return [name for name in free if search is None or name in search]


def _table(study: optuna.Study) -> polars.DataFrame:
    """Return a row for each trial: its state, loss, seconds and the settings it was given."""
    import polars

    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "loss": trial.value,
            "seconds": None if trial.duration is None else trial.duration.total_seconds(),
            "recipe": trial.user_attrs.get("recipe"),
            **{name.partition(".")[2]: value for name, value in trial.params.items()},
        }
        for trial in study.get_trials(deepcopy=False)
    ]
    return polars.DataFrame(rows, infer_schema_length=None)


def _ended(study: optuna.Study) -> list[Any]:
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    return list(study.get_trials(deepcopy=False, states=states))


def _require_same(study: optuna.Study, told: Mapping[str, Any], folder: Path) -> None:
    """Note what a search is about; raise UsageError where it was begun about something else."""
    for name, value in told.items():
        before = study.user_attrs.get(name)
        if before is not None and before != value:
            raise UsageError(
                f"The search in {folder} was begun with another {name}; "
                f"then: {_only_in(before, value)}; now: {_only_in(value, before)}.",
                "A search goes on with the same source, recipe and settings to search: its losses "
                "are compared.",
                "Choose another --out.",
            )
        study.set_user_attr(name, value)


def _only_in(told: Any, other: Any) -> str:
    """Return the lines or names of one value that the other lacks."""
    ours, others = (
        value.splitlines() if isinstance(value, str) else list(value) for value in (told, other)
    )
    return ", ".join(str(each) for each in ours if each not in others) or "nothing more"


def _in_words(proposed: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.partition('.')[2]} {value:.3g}"
        if isinstance(value, float)
        else f"{name.partition('.')[2]} {value}"
        for name, value in proposed.items()
    )
