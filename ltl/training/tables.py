"""`rounds.csv` and `layers.csv` while they grow: rows are formatted once, kept in order, and written whole."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ltl.results import Key, Row, read_rows, write_atomic


class Table:
    """A CSV file whose rows are ordered by trial, arm (ticket first), draw, round and the order they came in."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, columns
        self.lines: dict[Key, list[str]] = {}
        self.add(list(read_rows(path, columns, whole=("trial", "draw", "round"))))

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows; `write` makes them visible."""
        for row in rows:
            text = io.StringIO()
            csv.DictWriter(text, self.columns, restval="", lineterminator="\n").writerow(row)
            self.lines.setdefault(self._key(row), []).append(text.getvalue())

    def drop(self, keys: Sequence[Key]) -> None:
        """Forget the rows of `keys`."""
        for key in keys:
            self.lines.pop(key, None)

    def has(self, key: Key) -> bool:
        """Return whether there is a row of `key`."""
        return key in self.lines

    def write(self) -> None:
        """Write the whole table."""
        order = sorted(self.lines, key=lambda key: (key[0], key[1] != "ticket", *key[1:]))
        body = "".join(line for key in order for line in self.lines[key])
        write_atomic(self.path, (",".join(self.columns) + "\n" + body).encode())

    @staticmethod
    def _key(row: Row) -> Key:
        return int(row["trial"]), str(row["arm"]), int(row["draw"]), int(row["round"])
