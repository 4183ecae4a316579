"""hiddenstate: recurrent sequence models. Train it, see it, keep it.

    import hiddenstate

    model = hiddenstate.fit("tickets.csv", out="runs/tickets")
    print(model.metrics["scores"]["accuracy"])
    model.predict("open_cases.csv")

The names below are imported when they are first used, so that `import hiddenstate.runtime`
loads neither torch nor polars.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiddenstate.diagnose.tracing.capture import trace
    from hiddenstate.job.fit import fit
    from hiddenstate.job.model import Model, load

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "fit", "load", "trace"]

_HOME = {
    "Model": "hiddenstate.job.model",
    "fit": "hiddenstate.job.fit",
    "load": "hiddenstate.job.model",
    "trace": "hiddenstate.diagnose.tracing.capture",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hiddenstate' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
