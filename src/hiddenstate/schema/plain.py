"""Inputs that are codes and numbers from the start: nothing is fitted, nothing is unknown."""

from __future__ import annotations

from dataclasses import dataclass

from hiddenstate.schema.fields import Fields

TYPE = "plain"


@dataclass(frozen=True)
class Plain:
    """How many values each code of a step can take, and what its numbers are called.

    The same face as a `Schema`. For data that are made, not read.
    """

    code_sizes: tuple[int, ...]
    number_names: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return the description as a JSON object."""
        return {
            "type": TYPE,
            "code_sizes": list(self.code_sizes),
            "number_names": list(self.number_names),
        }

    @classmethod
    def from_json(cls, raw: object, where: str = "schema") -> Plain:
        """Read `to_json` back; raises SpecError naming a damaged field."""
        fields = Fields(raw, where)
        sizes = tuple(int(size) for size in fields.array("code_sizes"))
        return cls(sizes, fields.texts("number_names"))
