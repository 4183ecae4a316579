"""Write docs/settings.md from the recipe and the command line, docs/rules.md from the rules.

python -m docs.generate
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

from docs import conventions, rules
from hiddenstate.cli.main import app
from hiddenstate.train.recipe import Recipe

PAGE = Path(__file__).parent / "settings.md"
INTRODUCTION = """# Commands and settings

Written by `python -m docs.generate` from the code; a test holds it to that.

A recipe is a TOML file given with `--recipe`. Every setting below can stand in it, and every one
can be given on the command line by its name: `--set train.clip_norm=0.5`. Those used most have a
flag of their own (`hiddenstate fit --help`). The resolved recipe is saved with the run as
`recipe.toml`.

Environment variables: `HIDDENSTATE_ISA` forces an instruction set of the compiled kernels
(`avx512`, `avx2`, `neon`, `generic`; `hiddenstate kernels` says what is here);
`HIDDENSTATE_THREADS` is the number of threads that share a call without torch (all
processors; in torch its own number counts); `HIDDENSTATE_DATA` names a folder with public logs for
tests and benchmarks.
"""


def page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION]
    for name, field in Recipe.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            about = " ".join((field.annotation.__doc__ or "").split())
            parts += [f"## [{name}]", about, *_table(field.annotation.model_fields, f"{name}.")]
        else:
            parts += ["## At the top", *_table({name: field}, "")]
    parts += ["## Commands", *_commands(get_command(app), "hiddenstate")]
    return "\n\n".join(parts) + "\n"


def _table(fields: dict[str, FieldInfo], prefix: str) -> list[str]:
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in fields.items():
        meaning = " ".join((field.description or "").split())
        rows.append(f"| `{prefix}{name}` | {_default(field.default)} | {meaning} |")
    return ["\n".join(rows)]


def _default(value: Any) -> str:
    # JSON writes these values as TOML does.
    return "" if value is None else f"`{json.dumps(value)}`"


def _commands(command: Any, name: str) -> list[str]:
    inner = getattr(command, "commands", None)
    if inner:
        return [line for key, each in inner.items() for line in _commands(each, f"{name} {key}")]
    flags = [
        f"- `{', '.join([*option.opts, *option.secondary_opts])}`: "
        + " ".join((getattr(option, "help", "") or "").split())
        for option in command.params
        if option.name != "help"
    ]
    about = (command.help or "").replace("[bold]", "**").replace("[/bold]", "**")
    return [f"### {name}", about, "\n".join(flags)]


if __name__ == "__main__":
    PAGE.write_text(page())
    rules.PAGE.write_text(rules.page())
    conventions.PAGE.write_text(conventions.page())
