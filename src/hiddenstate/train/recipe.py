"""The recipe: every choice of a fit in one tree, from defaults, a TOML file and flags."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hiddenstate.errors import RecipeError, nearest

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A part of the recipe: unknown keys are refused, values are checked and then frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Input(Section):
    """How the file is read and which columns become inputs."""

    case: str | None = None
    """Column that names the case; found by its name when not given."""
    activity: str | None = None
    """Column that names the event; found by its name when not given."""
    timestamp: str | None = None
    """Column with the time of the event; found by its name when not given."""
    no_timestamp: bool = False
    """Read a log without times: events stand in file order."""
    time_format: str | None = None
    """Format of the timestamps in strptime letters, for example %d.%m.%Y %H:%M."""
    format: Literal["csv", "parquet", "jsonl", "xes"] | None = None
    """Format of the file; by its ending and first lines when not given."""
    delimiter: str | None = None
    """Delimiter of a CSV file; found when not given."""
    encoding: str = "utf-8"
    """Text encoding of CSV and JSON lines."""
    attributes: list[str] | None = None
    """Attribute columns used as inputs; all usable ones when not given, [] for none."""
    exclude: list[str] = []
    """Columns that are never read."""
    allow_leaks: bool = False
    """Use columns even if they seem to give the answer away."""
    allow_bad_rows: bool = False
    """Go on when more than one row in twenty cannot be read."""


class Split(Section):
    """How cases are shared out to training, validation and test."""

    validation: Fraction = 0.1
    """Share of the cases, taken after the training cases in time, that decides when to stop."""
    test: Fraction = 0.2
    """Share of the cases, the last in time, that is held back for the final score."""
    strict: bool = False
    """Drop training events that happen after the first test case has started."""
    column: str | None = None
    """Column whose value (train, validation, test) assigns a case, in place of time."""
    test_file: str | None = None
    """A file with the test cases, in place of a share of the first file."""


class Model(Section):
    """The network."""

    cell: Literal["gru", "lstm", "elman"] = "gru"
    """Recurrent cell."""
    hidden_size: Annotated[int, Field(ge=1, le=8192)] = 128
    """Width H of each layer's state."""
    layers: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of recurrent layers."""
    embedding_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Largest width of the embedding of a categorical input."""
    residual: bool = False
    """Add a layer's input to its output where the widths agree."""
    layer_norm: bool = False
    """Normalise the output of each layer."""
    init: Literal["orthogonal", "chrono", "identity", "uniform"] | None = None
    """Scheme of the first weights. When not given: chrono, which starts with gates that remember
    for as long as the training histories are (Tallec and Ollivier 2018), and orthogonal for the
    Elman cell, which has no gates."""
    cell_options: dict[str, Any] = {}
    """Variants of the cell, for example {reset = "before"} for a GRU."""


class Train(Section):
    """The training loop."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """Passes over the training cases, at most; as many as make 1,600 batches, but 8 to 60, when
    not given."""
    patience: Annotated[int, Field(ge=1)] = 10
    """Epochs without a better validation loss after which training stops."""
    finish_epochs: Annotated[int, Field(ge=0)] = 3
    """Last epochs over training and validation cases together, at a fifth of the learning rate:
    the newest cases are not lost to the model."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 6e-3
    """Highest learning rate of AdamW."""
    warmup: Fraction = 0.05
    """Share of all steps over which the learning rate rises to its highest value."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Course of the learning rate after warm-up."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay of AdamW: weights shrink beside the gradient step."""
    l2: Annotated[float, Field(ge=0)] = 0.0
    """Coupled decay: this times the sum of squared weights is part of the training loss, so that
    it passes through AdamW's scaling as the gradient does."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest global gradient norm; a larger gradient is scaled down to it."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Cases in a batch, at most."""
    batch_events: Annotated[int, Field(ge=1)] = 8192
    """Padded steps in a batch, at most."""
    dropout: Fraction = 0.2
    """Share of the top layer's outputs (and of those between layers) dropped in training."""
    input_dropout: Fraction = 0.1
    """Share of the inputs dropped in training."""
    variational: bool = False
    """Use one dropout mask for all steps of a history."""
    zoneout: Fraction = 0.0
    """Share of state units that keep their old value at a step in training."""
    dropconnect: Fraction = 0.0
    """Share of recurrent weights dropped in training."""
    recency: Annotated[float, Field(ge=0)] = 0.25
    """A training case counts half as much as one that began this share of the training cases
    later; 0 counts all alike."""
    label_smoothing: Fraction = 0.0
    """Probability mass moved from the true class to all classes in the training loss."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of initial weights, dropout and the order of cases."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Processor threads; 0 is one for layers narrower than 192, which gain nothing from more and
    wait for each other on a busy machine, and torch's choice above."""
    kernel: str | None = None
    """Kernel that runs the recurrence; the first that can when not given."""
    tensorboard: bool = False
    """Write TensorBoard scalars into the run folder."""


class Recipe(Section):
    """Everything that decides a fit; saved with the run as recipe.toml."""

    tasks: Annotated[list[str], Field(min_length=1)] = ["next_event"]
    """What is predicted at every step: next_event, remaining_time, time_to_next,
    occurs:ACTIVITY, outcome:column=COLUMN."""
    input: Input = Input()
    split: Split = Split()
    model: Model = Model()
    train: Train = Train()

    def to_toml(self) -> str:
        """Return the recipe as TOML; options that are not set are left out."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


def read_recipe(
    base: Recipe | str | Path | None = None, settings: Mapping[str, Any] | None = None
) -> Recipe:
    """Read a recipe and lay settings over it.

    base:     a Recipe, or a TOML file
    settings: values by name, dotted ("train.epochs") or bare where only one section has the name
              ("epochs"); None values are skipped

    Raises RecipeError for an unreadable file, an unknown key or a value out of range.
    """
    tree: dict[str, Any] = {}
    if isinstance(base, Recipe):
        tree = base.model_dump(exclude_none=True)
    elif base is not None:
        tree = _read_toml(Path(base))
        _validate(tree, str(base))
    for name, value in (settings or {}).items():
        if value is not None:
            _lay(tree, _dotted(name), value)
    return _validate(tree, "The settings")


def _validate(tree: Mapping[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(tree)
    except ValidationError as problem:
        raise _explain(problem, where) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise RecipeError(
            f"The recipe {path} cannot be read ({problem.strerror}).",
            "A TOML file was expected.",
            "Check the path given to --recipe.",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise RecipeError(
            f"The recipe {path} is not valid TOML ({problem}).",
            "A recipe holds sections such as [train] with lines such as epochs = 20.",
            "Mend the line named; the recipe.toml of any run folder is an example.",
        ) from None


def _dotted(name: str) -> str:
    if "." in name or name in Recipe.model_fields:
        return name
    homes = [section for section in Recipe.model_fields if name in _keys([section])]
    return f"{homes[0]}.{name}" if homes else name


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Read KEY=VALUE pairs; a value is TOML where it can be, and text otherwise.

    >>> parse_settings(["train.epochs=3", "model.cell=lstm"])
    {'train.epochs': 3, 'model.cell': 'lstm'}
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise RecipeError(
                f"The setting {pair!r} has no value.",
                "KEY=VALUE was expected, for example train.clip_norm=0.5.",
                "Write the name of the setting, = and its value.",
            )
        try:
            settings[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key.strip()] = text.strip()
    return settings


def _lay(tree: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        inner = tree.setdefault(section, {})
        if not isinstance(inner, dict):
            return  # validation reports that the section is not a table
        tree = inner
    tree[last] = value


def _explain(problem: ValidationError, where: str) -> RecipeError:
    first = problem.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _keys(first["loc"][:-1])
        deeper = [key for name in known for key in _keys([*first["loc"][:-1], name])]
        return RecipeError(
            f"{where}: unknown key {place}.{nearest(str(first['loc'][-1]), [*known, *deeper])}",
            f"Known here: {', '.join(known)}.",
            "Correct or remove the key.",
        )
    if first["type"] == "model_type":
        return RecipeError(
            f"{where}: {place} = {first['input']!r} is not possible.",
            f"{place} is a section.",
            f"Write [{place}], and its settings on the lines below.",
        )
    return RecipeError(
        f"{where}: {place} = {first['input']!r} is not possible.",
        f"{first['msg']}.",
        "Change the value; `hiddenstate fit --help` describes the settings.",
    )


def _keys(location: Sequence[int | str]) -> list[str]:
    section: type[BaseModel] = Recipe
    for part in location:
        inner = section.model_fields[str(part)].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        section = inner
    return list(section.model_fields)
