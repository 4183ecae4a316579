"""Equations as data: the text of one variant, out of the block in a cell's docstring.

The block is headed `Equations` and ends at a blank line. Each line is a Python assignment in the
symbols of State, Gates and the parameters, executed from top to bottom with x and the old state in
scope. A part in brackets belongs to some variants only:

    [peephole: + p_i * c]      if the option is on (not False, 0 or None)
    [no forget_gate: f = 1]    if it is off
    [reset after: ...]         if it has this value
    [forget_gate, no coupled: ...]   all of them

Brackets may stand inside brackets. A block headed `Equations, option` is used instead of the
plain one when that option is on.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping

_BLOCK = re.compile(r"^Equations(?:, (\w+))?\n-+\n(.*?)(?=\n\s*\n|\Z)", re.S | re.M)
_INNERMOST = re.compile(r"\[([^\[\]:]+):\s*([^\[\]]*)\]")


def compose(docstring: str, options: Mapping[str, object]) -> str:
    """Return the equations of the variant with these options, one assignment a line.

    >>> block = "Equations\\n---------\\nh = tanh(W @ h [biased: + b])"
    >>> compose(block, {"biased": False})
    'h = tanh(W @ h)'
    """
    text = ""
    for option, block in _BLOCK.findall(inspect.cleandoc(docstring)):
        if not option or options[option]:
            text = block
    while _INNERMOST.search(text):
        text = _INNERMOST.sub(lambda part: f" {part[2]}" if _holds(part[1], options) else "", text)
    lines = (re.sub(r" +", " ", line).replace(" )", ")").strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def _holds(condition: str, options: Mapping[str, object]) -> bool:
    return all(_holds_one(part.split(), options) for part in condition.split(","))


def _holds_one(words: list[str], options: Mapping[str, object]) -> bool:
    match words:
        case ["no", option]:
            return not options[option]
        case [option]:
            return bool(options[option])
        case [option, value]:
            return str(options[option]) == value
    raise ValueError(f"an equation's condition reads {' '.join(words)!r}")
