"""Progress of long-running work: a progress bar in a terminal, an occasional line in a log."""

from collections.abc import Iterable, Iterator
from time import monotonic
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")
LOG_EVERY_SECONDS = 10


def track(items: Iterable[Item], what: str, total: int, unit: str = "") -> Iterator[Item]:
    """Yields the items and shows how many of `total` are done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from log_progress(items, what, total, unit)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield from progress.track(items, total=total, description=what)


def log_progress(items: Iterable[Item], what: str, total: int, unit: str) -> Iterator[Item]:
    console = Console(stderr=True, soft_wrap=True)
    began = last = monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = monotonic()
        if now - last > LOG_EVERY_SECONDS or done == total:
            last = now
            left = (now - began) / done * (total - done)
            console.print(f"{what}: {done}/{total} {unit}, {now - began:.0f} s, {left:.0f} s left", highlight=False)
