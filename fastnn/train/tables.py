"""A table of the epochs, written during training."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from typing import IO, Any

from fastnn import files
from fastnn.errors import DataError, OptionError, check_flags
from fastnn.train.hooks import Callback, Logs


class CSVLogger(Callback):
    """Writes one row to `filename` after each epoch: its number and the values of its logs.

    The file is complete after every epoch. `append` continues an existing file: its rows and
    columns are kept, and a new value gets a new column, empty in earlier rows. (So does a value
    that first appears in a later epoch; the whole file is then rewritten.) A missing value is left
    empty. If a run continues from a checkpoint, the rows of earlier epochs are kept, whatever
    `append` says, and later ones are rewritten.

    Raises OptionError for a separator that is not one character, DataError if the file to continue
    is not such a table.

    >>> callbacks = [fnn.callbacks.CSVLogger("history.csv")]  # for Trainer.fit
    """

    passive = True

    def __init__(
        self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        self.path = files.as_path(filename, "CSVLogger: filename")
        if not isinstance(separator, str) or len(separator) != 1 or separator in '"\r\n\0':
            raise OptionError(f"CSVLogger: expected one character as separator, got {separator!r}")
        self.separator = separator
        check_flags("CSVLogger", append=append)
        self.append = append
        self._file: IO[str] | None = None
        self._columns: list[str] = []

    def on_train_begin(self, logs: Logs) -> None:
        self._columns = []
        resumed = getattr(getattr(self, "trainer", None), "pending", None) is not None
        if (self.append or resumed) and os.path.lexists(self.path):
            rows = self._rows()
            if resumed:
                rows = self._before(rows, self.trainer.epoch)
            if rows:
                self._columns = rows[0]
                self._write(rows)  # whole, with an end of line after the last row
        else:
            files.write(self.path, b"", "table")
        self._open()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        assert self._file is not None, "on_train_begin opens the file"
        values: dict[str, Any] = {"epoch": epoch} | logs | {"epoch": epoch}
        new = [name for name in values if name not in self._columns]
        if new:
            self._close()
            rows = self._rows()[1:] if self._columns else []
            self._columns = [*self._columns, *new]
            self._write([self._columns, *(row + [""] * len(new) for row in rows)])
            self._open()
        row = self._text([[values.get(column, "") for column in self._columns]])
        with files.told(f"table {str(self.path)!r} cannot be written", "make room"):
            self._file.write(row)
            self._file.flush()

    def on_train_end(self, logs: Logs) -> None:
        self._close()

    def _open(self) -> None:
        with files.told(f"table {str(self.path)!r} cannot be written", "choose another place"):
            self._file = self.path.open("a", newline="", encoding="utf-8")

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _rows(self) -> list[list[str]]:
        """The rows of the file, its header first, all of the header's length."""
        text = files.read_text(self.path, "table")
        try:
            rows = [r for r in csv.reader(io.StringIO(text), delimiter=self.separator) if r]
        except csv.Error as error:
            raise DataError(f"table {str(self.path)!r}: not a table ({error})") from None
        if not rows:
            return []
        header = rows[0]
        if "epoch" not in header or len(set(header)) != len(header):
            raise DataError(
                f"table {str(self.path)!r}: expected columns between {self.separator!r}, 'epoch' "
                f"among them, got {files.one_line(header, 80)}; give the separator that it was "
                "written with, or another file"
            )
        width = len(header)
        if any(len(row) > width for row in rows):
            raise DataError(
                f"table {str(self.path)!r}: a row has more than its {width} columns; repair it, or "
                "choose another file"
            )
        return [row + [""] * (width - len(row)) for row in rows]

    @staticmethod
    def _before(rows: list[list[str]], epoch: int) -> list[list[str]]:
        """The header, and the rows of the epochs before this one."""
        if not rows:
            return rows
        place = rows[0].index("epoch")
        return [rows[0], *(r for r in rows[1:] if not r[place].isdigit() or int(r[place]) < epoch)]

    def _write(self, rows: list[list[str]]) -> None:
        files.write_text(self.path, self._text(rows), "table")

    def _text(self, rows: list[list[Any]]) -> str:
        buffer = io.StringIO(newline="")
        csv.writer(buffer, delimiter=self.separator).writerows(rows)
        return buffer.getvalue()
