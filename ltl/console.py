"""What a person reads in the terminal: tables, and where they are printed."""

from collections.abc import Collection, Sequence

from rich.console import Console
from rich.table import Table


def terminal() -> Console:
    """Return the console: as wide as the terminal, or 200 columns in a file, where a wrapped table is unreadable."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def print_table(
    console: Console, header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[str]
) -> None:
    """Print a table, the columns named in `left` flush left and the others flush right."""
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in header:
        table.add_column(name, justify="left" if name in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
