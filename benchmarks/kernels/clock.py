"""The stopwatch: candidates take turns, round after round, so that a busy moment hits all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# A short call is repeated until one sample lasts this long.
SAMPLE_S = 0.004
# Thread pools spin for a while after their work, ONNX Runtime's for some 50 ms; the next candidate
# waits until they sleep: until the process has used little of this time, or for as long as this.
QUIET_S, LONGEST_QUIET_S = 0.003, 0.2
LEAST_ROUNDS, MOST_ROUNDS = 7, 300


class Spread(NamedTuple):
    """Least, quartiles and median of samples."""

    least: float
    low: float
    median: float
    high: float

    @classmethod
    def of(cls, samples: list[float]) -> Spread:
        """Summarise at least one sample."""
        if len(samples) == 1:
            return cls(*samples * 4)
        return cls(min(samples), *statistics.quantiles(samples, n=4, method="inclusive"))


def interleaved(
    calls: Mapping[str, Callable[[], Any]], seconds: float, least_rounds: int = LEAST_ROUNDS
) -> dict[str, list[float]]:
    """Return seconds per call of each candidate, one sample a round; about `seconds` for each."""
    repeats = {}
    for name, call in calls.items():
        call()
        call()
        began = time.perf_counter()
        call()
        repeats[name] = max(1, round(SAMPLE_S / (time.perf_counter() - began)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    ends = time.perf_counter() + seconds * len(calls)
    rounds = 0
    while rounds < least_rounds or (time.perf_counter() < ends and rounds < MOST_ROUNDS):
        for name, call in calls.items():
            _wait_for_quiet()
            if repeats[name] > 1:
                call()  # wakes its own threads and brings its own data back into the caches
            began = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            samples[name].append((time.perf_counter() - began) / repeats[name])
        rounds += 1
    gc.enable()
    return samples


def _wait_for_quiet() -> None:
    ends = time.perf_counter() + LONGEST_QUIET_S
    quiet = False
    while not quiet and time.perf_counter() < ends:
        used = time.process_time()
        time.sleep(QUIET_S)
        quiet = time.process_time() - used < QUIET_S / 4
