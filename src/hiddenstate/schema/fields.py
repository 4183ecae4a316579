"""One JSON object read field by field, so that damage is reported by the field's name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hiddenstate.errors import SpecError


class Fields:
    """Typed access to a JSON object; `where` is its path, as in 'schema.numeric[2]'.

    Raises SpecError naming the field that is absent, of the wrong type or out of range.
    """

    def __init__(self, raw: object, where: str) -> None:
        self.where = where
        self.raw: Mapping[str, Any] = raw if isinstance(raw, Mapping) else {}
        if not isinstance(raw, Mapping):
            self._refuse(where, raw, "a JSON object")

    def text(self, name: str) -> str:
        """Return a string."""
        value = self._get(name)
        return value if isinstance(value, str) else self._refuse(name, value, "a string")

    def flag(self, name: str) -> bool:
        """Return a boolean."""
        value = self._get(name)
        return value if isinstance(value, bool) else self._refuse(name, value, "true or false")

    def number(self, name: str, *, positive: bool = False) -> float:
        """Return a finite number, above zero if asked."""
        value = self._get(name)
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if not numeric or not math.isfinite(value) or (positive and value <= 0):
            self._refuse(name, value, "a finite number" + " above 0" * positive)
        return float(value)

    def array(self, name: str) -> list[Any]:
        """Return a list of anything."""
        value = self._get(name)
        return value if isinstance(value, list) else self._refuse(name, value, "a list")

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of distinct strings."""
        values = self.array(name)
        if not all(isinstance(value, str) for value in values) or len(set(values)) != len(values):
            self._refuse(name, values, "a list of distinct strings")
        return tuple(values)

    def optional(self, name: str) -> Fields | None:
        """Return the object of that name, or None where it is null."""
        return None if self._get(name) is None else self.inside(name)

    def inside(self, name: str) -> Fields:
        """Return the object of that name."""
        return Fields(self._get(name), f"{self.where}.{name}")

    def each(self, name: str) -> list[Fields]:
        """Return a list of objects."""
        return [
            Fields(raw, f"{self.where}.{name}[{place}]")
            for place, raw in enumerate(self.array(name))
        ]

    def _get(self, name: str) -> Any:
        if name not in self.raw:
            self._refuse(name, None, "to be there")
        return self.raw[name]

    def _refuse(self, name: str, value: object, expected: str) -> Any:
        path = name if name == self.where else f"{self.where}.{name}"
        shown = "absent" if value is None else repr(value)
        raise SpecError(
            f"The field {path} is {shown[:80]}.",
            f"It was expected to be {expected}." if value is not None else f"Expected: {expected}.",
            "The file is damaged or from another version; write it again with hiddenstate.",
        )
