"""ONNX Runtime on the processor, quiet and on one thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from hiddenstate.errors import SpecError

Array = NDArray[Any]
FATAL = 4
SLACK = 64
"""How many times our own loss by rounding is allowed: ONNX Runtime approximates sigmoid and tanh,
and an ulp of theirs comes in at every step of every layer."""


class Session:
    """A model that ONNX Runtime runs. Only graphs that were looked through come here."""

    def __init__(self, model: ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as problem:  # its errors share no class of their own
            raise _unrunnable(problem) from None
        self.inputs = tuple(each.name for each in self._session.get_inputs())
        self.outputs = tuple(each.name for each in self._session.get_outputs())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs by name, for all of the inputs by name."""
        try:
            found = self._session.run(None, {name: feeds[name] for name in self.inputs})
        except Exception as problem:
            raise _unrunnable(problem) from None
        return dict(zip(self.outputs, found, strict=True))


def _unrunnable(problem: Exception) -> SpecError:
    told = str(problem).partition("Status Message: ")[2] or str(problem)
    return SpecError(
        f"ONNX Runtime {onnxruntime.__version__} does not run the model: {told[:200].strip()}.",
        "A conversion counts once both sides have run.",
        "Try another version of onnxruntime, or leave out what it names.",
    )
