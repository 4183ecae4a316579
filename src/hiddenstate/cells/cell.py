"""The contract of a recurrent cell: one step of mathematics, and facts about it as data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod, sqrt
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np

from hiddenstate.cells import initial
from hiddenstate.cells.arrays import Array, ArrayOps
from hiddenstate.cells.equations import compose
from hiddenstate.errors import ShapeError, SpecError

Params: TypeAlias = Mapping[str, Array]
Scheme: TypeAlias = Literal["orthogonal", "identity", "chrono", "uniform"]


@dataclass(frozen=True)
class Cell(ABC):
    """A recurrence h_t = f(h_{t-1}, x_t) as a plain value: sizes, variant, pure functions.

    Parameters are held outside, as a mapping from the names in `shapes()` to arrays of the
    namespace `xp`. The rows of stacked weights follow `blocks`.

    input_size:  D, features of x_t
    hidden_size: H
    biases:      0, 1 (b_x) or 2 (b_x and b_h, as torch and cuDNN have them)

    Raises SpecError for a size or option outside its range.
    """

    input_size: int
    hidden_size: int
    biases: int = 1

    name: ClassVar[str]
    State: ClassVar[type[Any]]
    Gates: ClassVar[type[Any]]
    options: ClassVar[Mapping[str, tuple[object, ...]]] = MappingProxyType({})
    """Each option with the values it may take, the default first."""
    linear_in_state: ClassVar[bool] = False
    keep_bias: ClassVar[float] = 0.0
    """The default bias of the gates that keep the state."""

    def __post_init__(self) -> None:
        """Refuse sizes and options outside their range."""
        for size in ("input_size", "hidden_size"):
            self._require_positive(size, getattr(self, size))
        for option, allowed in {"biases": (1, 0, 2), **self.options}.items():
            value = getattr(self, option)
            if not any(type(value) is type(each) and value == each for each in allowed):
                raise SpecError(
                    f"The cell {self.name} got {option}={value!r}.",
                    f"It takes {', '.join(map(repr, allowed))}.",
                    f"Leave it out for {allowed[0]!r}.",
                )

    # --- what it is

    @property
    @abstractmethod
    def blocks(self) -> tuple[str, ...]:
        """Names of the row blocks [H, .] in the stacked weights, in order."""

    @property
    @abstractmethod
    def convention(self) -> str:
        """The variant in words, as messages and model cards give it."""

    @property
    @abstractmethod
    def gate_ranges(self) -> Mapping[str, tuple[float, float]]:
        """Lowest and highest value that each gate can take."""

    @property
    def output_size(self) -> int:
        """P, the width of what `read` gives."""
        return self.hidden_size

    @property
    def equations(self) -> str:
        """This variant's equations, one Python assignment a line, as the docstring states them."""
        return compose(type(self).__doc__ or "", asdict(self))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters by name, in drawing order."""
        rows = len(self.blocks) * self.hidden_size
        shapes = {"w_x": (rows, self.input_size), "w_h": (rows, self.output_size)}
        biases = ("b_x", "b_h")[: self.biases]
        return {**shapes, **dict.fromkeys(biases, (rows,))}

    @property
    def parameter_count(self) -> int:
        """How many numbers are learned; the length of a sequence is not in it."""
        return sum(prod(shape) for shape in self.shapes().values())

    def state_shapes(self) -> dict[str, int]:
        """Width of each array in the state, in the order of State's fields."""
        return {"h": self.output_size}

    def to_json(self) -> dict[str, object]:
        """Return what `from_json` builds this cell from."""
        return {"cell": self.name, **asdict(self)}

    # --- what it computes

    def project(self, xp: ArrayOps, params: Params, x: Array) -> Array:
        """Map x [..., D] to the part [..., G*H] that does not depend on the past."""
        return xp.linear(x, params["w_x"], params.get("b_x"))

    @abstractmethod
    def step(self, xp: ArrayOps, params: Params, projected: Array, state: Any) -> tuple[Any, Any]:
        """Return the next State and its Gates [B, H] from `project`'s [B, G*H] and a State."""

    def read(self, state: Any) -> Array:
        """Return the output [B, P] of a state."""
        return state.h

    @abstractmethod
    def jacobian(self, params: Params, x_t: Array, state: Any) -> Array:
        """Return d state_t / d state_{t-1}, [B, S, S], in NumPy from x_t [B, D] and a State.

        S is the sum of the state's widths; rows and columns are in the order of `pack`.
        """

    # --- its state

    def initial_state(self, xp: ArrayOps, batch: int, like: Array) -> Any:
        """Return the State that None stands for everywhere: zeros [B, width]."""
        widths = self.state_shapes().values()
        return self.State(*(xp.zeros((batch, width), like) for width in widths))

    def pack(self, xp: ArrayOps, state: Any) -> Array:
        """Join a State into one array [B, S]."""
        return xp.concat(tuple(state))

    def unpack(self, flat: Array) -> Any:
        """Cut an array [B, S] into a State; the inverse of `pack`."""
        widths = self.state_shapes()
        if flat.shape[-1] != sum(widths.values()):
            raise ShapeError(
                f"A packed state of {flat.shape[-1]} numbers came to the cell {self.name}.",
                f"Its state has {sum(widths.values())}: {widths}.",
                "Use the state of a cell with the same sizes and options.",
            )
        ends = np.cumsum(list(widths.values())).tolist()
        starts = [0, *ends[:-1]]
        return self.State(*(flat[..., a:b] for a, b in zip(starts, ends)))

    # --- its first parameters

    @property
    def keep_rows(self) -> Mapping[str, int]:
        """Blocks whose bias decides how long the state is kept, with the sign that keeps it.

        The chrono scheme sets them all; a forget bias goes to the first.
        """
        return MappingProxyType({})

    def init(
        self,
        rng: np.random.Generator,
        scheme: Scheme = "orthogonal",
        *,
        forget_bias: float | None = None,
        longest_lag_steps: int | None = None,
    ) -> dict[str, initial.Floats]:
        """Draw first parameters in float64.

        orthogonal: each block of w_h orthogonal, w_x Glorot-uniform, biases zero except the keeping
            gates' (`forget_bias`; the LSTM's default is 1: Gers, Schmidhuber, Cummins 2000)
        identity:   the same with the identity in each block of w_h (Le, Jaitly, Hinton 2015)
        chrono:     the same with biases that keep the state for up to `longest_lag_steps`
        uniform:    everything from U(-1/sqrt(H), 1/sqrt(H)), as torch does; gains one

        Raises SpecError for an unknown scheme, or chrono where no gate's bias can keep the state.
        """
        self._require_scheme(scheme, longest_lag_steps)
        drawn = {name: self._draw(rng, name, scheme) for name in self.shapes()}
        if scheme != "uniform" and self.biases:
            height = self.hidden_size
            bias = self.keep_bias if forget_bias is None else forget_bias
            keep = np.full(height, bias)
            if scheme == "chrono" and longest_lag_steps is not None:
                keep = initial.chrono(rng, height, longest_lag_steps)
            rows = list(self.keep_rows.items())
            for block, sign in rows if scheme == "chrono" else rows[:1]:
                row = self.blocks.index(block) * height
                drawn["b_x"][row : row + height] = sign * keep
        return drawn

    def _draw(self, rng: np.random.Generator, name: str, scheme: Scheme) -> initial.Floats:
        shape, height = self.shapes()[name], self.hidden_size
        if name.startswith("gain"):
            return np.ones(shape)
        if scheme == "uniform":
            return rng.uniform(-1 / sqrt(height), 1 / sqrt(height), shape)
        if len(shape) == 1:
            return np.zeros(shape)
        if name != "w_h":
            return initial.glorot_uniform(rng, *shape)
        if scheme == "identity":
            return np.tile(np.eye(height, shape[1]), (len(self.blocks), 1))
        drawn = [initial.orthogonal(rng, height, shape[1]) for _ in self.blocks]
        return np.concatenate(drawn)

    def _require_scheme(self, scheme: str, longest_lag_steps: int | None) -> None:
        if scheme not in get_args(Scheme):
            raise SpecError(
                f"There is no initialisation {scheme!r}.",
                f"The schemes are {', '.join(get_args(Scheme))}.",
                "Leave it out for orthogonal.",
            )
        if scheme != "chrono":
            return
        if not (self.keep_rows and self.biases):
            raise SpecError(
                f"The cell {self.name} ({self.convention}, biases={self.biases}) cannot start "
                "with the chrono scheme.",
                "The scheme sets the bias of a gate that keeps the state.",
                "Use orthogonal, or a cell with such a gate and a bias.",
            )
        if longest_lag_steps is None or longest_lag_steps <= 2:
            raise SpecError(
                f"The chrono scheme got longest_lag_steps={longest_lag_steps}.",
                "It needs the longest lag to remember, at least 3 steps.",
                "Give about the length of the longest history.",
            )

    def _require_positive(self, field: str, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SpecError(
                f"The cell {self.name} got {field}={value!r}.",
                "Sizes are whole numbers of at least 1.",
                f"Give {field} as a positive int.",
            )
