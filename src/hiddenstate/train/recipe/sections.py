"""The sections that every kind of fit has: how data are read and split, network, training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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
    format: str | None = None
    """Format of the file: csv, parquet, jsonl or xes; of labelled sequences also lines, conll, ts,
    npz. By its ending when not given."""
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

    cell: Literal["gru", "lstm", "elman", "attention"] = "gru"
    """Recurrent cell, or attention: a transformer, to compare with."""
    hidden_size: Annotated[int, Field(ge=1, le=8192)] = 128
    """Width H of each layer's state."""
    layers: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of recurrent layers, or of a transformer's blocks."""
    bidirectional: bool = False
    """Read every sequence in both directions; such a model cannot be streamed."""
    pool: Literal["last", "mean", "max", "attention"] = "last"
    """How a whole sequence becomes one vector, for tasks with one answer to it."""
    tied: bool = False
    """Let the classes' weight be the embedding of the first input (language models)."""
    attention_heads: Annotated[int, Field(ge=1, le=256)] = 4
    """Heads of a transformer's attention."""
    positions: Literal["rotary", "sinusoidal", "none"] = "rotary"
    """How a transformer knows the order of its steps."""
    embedding_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Largest width of the embedding of a categorical input."""
    residual: bool = False
    """Add a layer's input to its output where the widths agree."""
    layer_norm: bool = False
    """Normalise the input of every layer but the first."""
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
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Time after which training ends; the learning rate then follows the clock, so that two fits
    are not the same to the last digit. No limit when not given."""
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
    device: Literal["cpu", "cuda"] | None = None
    """Where training runs; a GPU where there is one, when not given."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 lets a GPU compute large products in it (autocast); weights stay float32."""
    kernel: str | None = None
    """Kernel that runs the recurrence; the first that can when not given."""
    tensorboard: bool = False
    """Write TensorBoard scalars into the run folder."""
