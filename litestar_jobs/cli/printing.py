"""How things look in a terminal and in a pipe: all of rich is here.

Text from jobs is never markup, and its control characters are shown, not sent to the terminal.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich import box, filesize
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from litestar_jobs.row import JobRow

__all__ = ("age", "count", "moment", "print_json", "print_line", "print_table", "print_text", "said", "size")

UNITS = ((86_400, 2, "days"), (3_600, 2, "h"), (60, 2, "min"), (1, 0, "s"))
"""Seconds, from how many of them on, and their name."""
PIPED = 200
"""Columns of a table in a pipe."""


def print_line(*parts: str | tuple[str, str], indent: int = 0) -> None:
    """Texts and (text, style) pairs in a row. A terminal gets them wrapped, a pipe does not."""
    console = _console()
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    if console.is_terminal:
        line = Text.assemble(*((_plain(text), style) for text, style in pairs))
        console.print(Padding(line, (0, 0, 0, indent), expand=False))
    else:
        print_text("".join(text for text, _ in pairs), indent=indent)


def print_text(text: str, *, indent: int = 0, style: str = "") -> None:
    """Some lines as they are, such as a traceback or a command: none is wrapped, so that they can be copied."""
    lines = "\n".join(" " * indent + line for line in _plain(text).split("\n"))
    _console().print(Text(lines, style=style), soft_wrap=True)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], total: Sequence[str] | None = None) -> None:
    """The first column is text, the others are figures."""
    table = Table(box=box.SIMPLE_HEAD, show_footer=total is not None, padding=(0, 0, 0, 1), pad_edge=False)
    for place, name in enumerate(head):
        footer = Text(_plain(total[place])) if total else ""
        table.add_column(name, footer, justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_plain(cell), style="dim" if cell in {"0", "-"} else "") for cell in row))
    _console().print(table)


def print_json(value: Any) -> None:
    """One JSON document, nothing else."""
    _console().out(msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), highlight=False)


def age(seconds: float) -> str:
    """How long, in the unit that fits."""
    seconds = max(0.0, seconds)
    unit, name = next((unit, name) for unit, least, name in UNITS if seconds >= unit * least)
    return f"{seconds / unit:.0f} {name}"


def moment(when: datetime) -> str:
    """A time in this machine's zone, and how far away it is."""
    distance = (when - datetime.now(UTC)).total_seconds()
    shown = when.astimezone().isoformat(sep=" ", timespec="seconds")
    return f"{shown} (in {age(distance)})" if distance > 0 else f"{shown} ({age(-distance)} ago)"


def count(number: int, noun: str) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(number: int) -> str:
    """Bytes, in the unit that fits."""
    return filesize.decimal(number)


def said(job: JobRow) -> str | None:
    """What a running job says of its progress."""
    if job.progress is None:
        return None
    return f"{job.progress:.0%}" if job.progress_message is None else f"{job.progress:.0%}: {job.progress_message}"


def _console() -> Console:
    """Made anew each time: stdout is another one in tests. In a pipe nothing has to fit a screen."""
    console = Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console.width = PIPED
    return console


def _plain(text: str) -> str:
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode() for each in text
    )
