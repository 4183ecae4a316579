"""`hiddenstate`: the commands, and what happens when one of them fails."""

from __future__ import annotations

import sys

import typer

from hiddenstate.cli import (
    compare,
    convert,
    data,
    demo,
    diagnose,
    evaluate,
    fit,
    generate,
    kernels,
    predict,
    rest,
    score,
    translate,
    truncation,
    tune,
)
from hiddenstate.errors import HiddenstateError

# What is needed for training and reading, and what some tasks need beside.
EXTRAS = {
    "train": ("torch", "polars", "pydantic", "tomli_w"),
    "interop": ("flax", "h5py", "jax", "keras", "onnx", "onnxruntime"),
    "train,tasks": ("optuna", "sacrebleu", "scipy", "tokenizers"),
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Recurrent sequence models: train it, see it, keep it.\n\n"
    "From a log of event histories to the next action for every open case:\n\n"
    "  hiddenstate fit tickets.csv --out runs/tickets\n\n"
    "  hiddenstate predict runs/tickets open_cases.csv --out predictions.parquet",
)
app.command("fit")(fit.fit)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("translate")(translate.translate)
app.command("rest")(rest.rest)
app.command("generate")(generate.generate)
app.command("score")(score.score)
app.command("truncation")(truncation.truncation)
app.command("demo")(demo.demo)
app.command("compare")(compare.compare)
app.command("tune")(tune.tune)
app.command("convert")(convert.convert)
app.command("kernels")(kernels.kernels)
app.command("diagnose")(diagnose.diagnose)
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    """Recurrent sequence models: train it, see it, keep it."""
    if version:
        from hiddenstate import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; errors of the user's making end in words and an exit code."""
    try:
        app(prog_name="hiddenstate")
    except HiddenstateError as problem:
        typer.echo(f"Error: {problem.wrong}\n{problem.expected}\n{problem.remedy}", err=True)
        sys.exit(problem.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as problem:
        typer.echo(
            f"Error: {f'{problem.filename}: ' * bool(problem.filename)}"
            f"{problem.strerror or problem}.\n"
            "It had to be read or written.\n"
            "Check the path, its rights and the space that is left.",
            err=True,
        )
        sys.exit(1)
    except ModuleNotFoundError as problem:
        extra = next((e for e, names in EXTRAS.items() if problem.name in names), None)
        if extra is None:
            raise
        typer.echo(
            f"Error: {problem.name} is not installed.\n"
            f"This command needs hiddenstate's [{extra}] extra.\n"
            f"Install it: pip install 'hiddenstate[{extra}]'",
            err=True,
        )
        sys.exit(1)
