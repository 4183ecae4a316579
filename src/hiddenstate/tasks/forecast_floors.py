"""What a forecast has to beat: the last value, the same time of the last period, a linear model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hiddenstate.schema.channels import LEAST_SCALE
from hiddenstate.tasks.forecasts import Floats, Forecast, ForecastJudge, Longs, Origins
from hiddenstate.tasks.judged_values import JudgedValues

# Rows of past and future that the linear model is fitted to, at most, and its ridges.
MOST_ROWS = 40_000
RIDGES = (1.0, 100.0, 10_000.0)
MOST_LAGS = 336
# Origins whose errors give the floors' intervals.
MOST_ERRORS = 500


@dataclass(frozen=True, eq=False)
class Linear:
    """The next H steps of a channel as a linear function of its last L: one for all channels.

    weights: [L, H], of the values before the last one's was taken off where `centred`
    """

    weights: Floats
    centred: bool
    ridge: float

    def ahead(self, past: Floats) -> Floats:
        """Return the next steps [..., H] after the last ones [..., L], oldest first."""
        level = past[..., -1:] if self.centred else 0.0
        return np.asarray((past - level) @ self.weights + level)

    def predict(self, filled: Floats, rows: Longs) -> Floats:
        """Return [n, H, C] after the rows [n] of values [N, C] without gaps."""
        return np.moveaxis(self.ahead(_past(filled, rows, len(self.weights))), -1, 1)

    @classmethod
    def fit(
        cls, filled: Floats, parts: tuple[Origins, Origins], lags: int
    ) -> tuple[Linear, Linear]:
        """Choose the ridge on the second part by weights of the first.

        Returns the model of the first part, and that of both.
        """
        best: tuple[float, bool, float] = (np.inf, False, RIDGES[0])
        for centred in (False, True):
            moments = _moments(filled, parts[0], lags, centred)
            judged = parts[1] if len(parts[1].rows) else parts[0]
            few = judged.every(max(1, len(judged.rows) // 2000))
            truth = few.truth(filled)
            for ridge in RIDGES:
                tried = cls(_solve(*moments, ridge), centred, ridge)
                loss = float(((tried.predict(filled, few.rows) - truth) ** 2).mean())
                if loss < best[0]:
                    best = (loss, centred, ridge)
        _, centred, ridge = best
        both = [_moments(filled, part, lags, centred) for part in parts if len(part.rows)]
        gram, cross = (np.sum([each[k] for each in both], axis=0) for k in range(2))
        first = cls(_solve(*both[0], ridge), centred, ridge)
        return first, cls(_solve(gram, cross, ridge), centred, ridge)


@dataclass(frozen=True, eq=False)
class ForecastFloors:
    """The floors of a forecast, fitted on training and validation part.

    periods: by name (day, week, period), steps after which the signal is expected to repeat
    linear:  fitted on both parts; `first` on the training part alone, for a model to start from
    levels:  of the quantiles that the floors give, () for none
    errors:  by floor, quantiles of its errors [H, C, Q] where there are levels
    scales:  by floor, deviation of its errors [H, C]; for normal distributions only
    """

    periods: Mapping[str, int]
    linear: Linear
    first: Linear
    levels: tuple[float, ...]
    errors: Mapping[str, Floats]
    scales: Mapping[str, Floats]
    chosen_on: str

    @property
    def names(self) -> tuple[str, ...]:
        """The floors, simplest first."""
        return ("last_value", *self.periods, "linear")

    @property
    def compared(self) -> tuple[str, ...]:
        """The floors that verdicts are given for."""
        return (*list(self.periods)[:1], "linear") if self.periods else ("last_value", "linear")

    @property
    def description(self) -> str:
        """What was chosen, in words."""
        steps = ", ".join(f"{name} {period} steps" for name, period in self.periods.items())
        around = " around the last value" if self.linear.centred else ""
        return (
            (f"the same time one period before ({steps}); " if steps else "")
            + f"linear in the last {len(self.linear.weights)} values of the same channel{around}, "
            f"one model for all, ridge {self.linear.ridge:g} chosen on {self.chosen_on}"
        )

    def point(self, name: str, filled: Floats, rows: Longs, horizon: int) -> Floats:
        """Return one floor's forecasts [n, H, C] after rows [n] of values without gaps [N, C]."""
        if name == "linear":
            return self.linear.predict(filled, rows)
        ahead = np.arange(1, horizon + 1)
        if name == "last_value":
            return np.repeat(filled[rows][:, None], horizon, axis=1)
        period = self.periods[name]
        return np.asarray(filled[rows[:, None] + ahead - period * -(-ahead // period)])

    def judge(self, values: Floats, filled: Floats, origins: Origins) -> dict[str, JudgedValues]:
        """Judge every floor after the origins, in the order of `names`."""
        judged = {}
        for name in self.names:
            judge = ForecastJudge(origins, values, self.levels)
            for chosen in origins.chunks(values.shape[1]):
                point = self.point(name, filled, origins.rows[chosen], origins.horizon)
                judge.add(chosen, self._spread(name, point))
            judged[name] = judge.result()
        return judged

    def _spread(self, name: str, point: Floats) -> Forecast:
        if name in self.scales:
            scale = np.broadcast_to(self.scales[name], point.shape)
            return Forecast.normal(point, scale, self.levels)
        if name in self.errors:
            return Forecast(point, point[..., None] + self.errors[name])
        return Forecast(point)

    def to_json(self) -> dict[str, Any]:
        """Return what is not an array as JSON values."""
        return {
            "kind": "forecast",
            "periods": dict(self.periods),
            "levels": list(self.levels),
            "centred": self.linear.centred,
            "ridge": self.linear.ridge,
            "errors": list(self.errors),
            "scales": list(self.scales),
            "chosen_on": self.chosen_on,
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        return {
            "linear": self.linear.weights,
            "first": self.first.weights,
            **{f"errors/{name}": array for name, array in self.errors.items()},
            **{f"scales/{name}": array for name, array in self.scales.items()},
        }

    @classmethod
    def read(cls, value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Read what `to_json` and `to_arrays` wrote."""
        return cls(
            {str(name): int(steps) for name, steps in value["periods"].items()},
            Linear(arrays["linear"], bool(value["centred"]), float(value["ridge"])),
            Linear(arrays["first"], bool(value["centred"]), float(value["ridge"])),
            tuple(float(level) for level in value["levels"]),
            {name: arrays[f"errors/{name}"] for name in value["errors"]},
            {name: arrays[f"scales/{name}"] for name in value["scales"]},
            str(value["chosen_on"]),
        )

    @classmethod
    def fit(
        cls,
        values: Floats,
        filled: Floats,
        parts: tuple[Origins, Origins],
        *,
        periods: Mapping[str, int],
        lags: int,
        levels: Sequence[float] = (),
        normal: bool = False,
    ) -> Self:
        """Fit on the origins of training and validation part, scaled values [N, C].

        normal: give normal distributions and not the errors' own quantiles
        """
        has_validation = bool(len(parts[1].rows))
        first, linear = Linear.fit(filled, parts, min(lags, MOST_LAGS))
        chosen_on = "the validation part" if has_validation else "the training part itself"
        bare = cls(dict(periods), linear, first, tuple(levels), {}, {}, chosen_on)
        if not levels:
            return bare
        judged = parts[1] if has_validation else parts[0]
        few = judged.every(max(1, len(judged.rows) // MOST_ERRORS))
        truth = few.truth(values)
        errors: dict[str, Floats] = {}
        scales: dict[str, Floats] = {}
        for name in bare.names:
            error = truth - bare.point(name, filled, few.rows, few.horizon)
            # A channel without any truth here has no error to learn from: it is given none.
            error[:, ~np.isfinite(error).any(axis=0)] = 0.0
            if normal:
                scales[name] = np.sqrt(np.nanmean(error**2, axis=0)) + LEAST_SCALE
            else:
                errors[name] = np.moveaxis(np.nanquantile(error, levels, axis=0), 0, -1)
        return cls(bare.periods, linear, first, bare.levels, errors, scales, chosen_on)


def _past(filled: Floats, rows: Longs, lags: int) -> Floats:
    """Return the last L values up to each row, oldest first [n, C, L]."""
    return np.moveaxis(filled[rows[:, None] + np.arange(1 - lags, 1)], 1, -1)


def _moments(filled: Floats, origins: Origins, lags: int, centred: bool) -> tuple[Floats, Floats]:
    """Return the sums of past past' [L, L] and past future' [L, H] over origins and channels."""
    stride = max(1, len(origins.rows) * filled.shape[1] // MOST_ROWS)
    few = origins.every(stride)
    gram, cross = np.zeros((lags, lags)), np.zeros((lags, origins.horizon))
    for chosen in few.chunks(filled.shape[1]):
        past = _past(filled, few.rows[chosen], lags)
        future = np.moveaxis(few.truth(filled, chosen), 1, -1)
        level = past[..., -1:] if centred else 0.0
        flat = (past - level).reshape(-1, lags)
        gram += flat.T @ flat
        cross += flat.T @ (future - level).reshape(-1, origins.horizon)
    return gram, cross


def _solve(gram: Floats, cross: Floats, ridge: float) -> Floats:
    return np.asarray(np.linalg.solve(gram + ridge * np.eye(len(gram)), cross))
