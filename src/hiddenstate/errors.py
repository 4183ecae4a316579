"""What can go wrong, always told in three parts: what is wrong, what was expected, what to do.

Everything that a user can cause raises a `HiddenstateError`; the command line prints its text
and leaves with `exit_code`. Any other exception is a fault of hiddenstate itself.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HiddenstateError(Exception):
    """An error with its remedy.

    wrong:    what is wrong, with names and sizes
    expected: what was expected, and who decided it
    remedy:   what to do
    """

    exit_code = 1

    def __init__(self, wrong: str, expected: str, remedy: str) -> None:
        self.wrong, self.expected, self.remedy = wrong, expected, remedy
        super().__init__(f"{wrong} {expected} {remedy}")


class UsageError(HiddenstateError):
    """A command or call was put together wrongly; nothing was read or written."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe has an unknown key or a value out of range."""


class SpecError(HiddenstateError):
    """A cell or model specification cannot be built."""


class ShapeError(HiddenstateError):
    """An array at a public boundary has the wrong axes, size or type."""


class DataError(HiddenstateError):
    """A file or frame cannot be read as an event log."""


class ArtifactError(HiddenstateError):
    """A folder is not a whole, undamaged artifact."""


class TrainingError(HiddenstateError):
    """Training cannot go on."""


class KernelRefusal(HiddenstateError):
    """No kernel, or not the kernel asked for, can run a request."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ' Did you mean X?' for the closest known name, or ''.

    >>> nearest("epoch", ["epochs", "seed"])
    ' Did you mean epochs?'
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]}?" if close else ""
