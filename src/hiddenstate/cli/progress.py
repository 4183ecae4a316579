"""What is seen of a fit while it runs: a live line on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from hiddenstate.cli.output import NOTES, note
from hiddenstate.train.progress import Progress

Observer = Callable[[Progress | str], None]


@contextmanager
def watch(quiet: bool) -> Iterator[Observer]:
    """Give an observer that shows each Progress and each remark on stderr."""
    if quiet:
        yield lambda _: None
        return
    if not NOTES.is_terminal:
        yield _write_line
        return
    with Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[told]}"),
        console=NOTES,
        transient=True,
    ) as bar:
        line = bar.add_task("reading", total=None, told="")

        def observe(news: Progress | str) -> None:
            if isinstance(news, str):
                NOTES.print(news, markup=False)
                return
            bar.update(
                line,
                description=f"epoch {news.epoch}/{news.epochs}",
                total=news.epochs * news.steps,
                completed=(news.epoch - 1) * news.steps + news.step,
                told=_tell(news),
            )

        yield observe


def _write_line(news: Progress | str) -> None:
    if isinstance(news, str):
        note(news)


def _tell(news: Progress) -> str:
    best = (
        "" if news.best_loss is None else f"  best {news.best_loss:.4f} (epoch {news.best_epoch})"
    )
    return (
        f"loss {news.train_loss:.4f}{best}  {news.events_per_s:,.0f} events/s  "
        f"{_clock(news.seconds_left)} left at most"
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
