"""Standard output: what the locale has no sign for becomes a question mark, and a failed write is an error."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer

from mimi_mmr.app.cli import failures
from mimi_mmr.app.commands.errors import OutputFailed


class _Checked(io.RawIOBase):
    """A descriptor on which the first failed write raises `OutputFailed`. What comes after it is dropped."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._failed = False

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether this is a terminal."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """Return the descriptor; -1 if standard output is closed."""
        return self._descriptor

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Write what the descriptor takes. Raise `OutputFailed`."""
        if self._failed:
            return len(data)
        try:
            return os.write(self._descriptor, data)
        except OSError as error:
            self._failed = True
            why = "it is closed" if self._descriptor < 0 else error.strerror
            raise OutputFailed(f"standard output can't be written to: {why}") from None


@contextmanager
def checked(as_json: bool = False) -> Iterator[None]:
    """Check everything that is written to standard output. On a failure say so on stderr, and exit with 1."""
    _fill_descriptors()
    _replace_stdout()
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OutputFailed as error:
        if sys.stderr is not None:
            with suppress(typer.Exit):
                failures.report("", error.code, str(error), as_json)
        raise SystemExit(failures.FAILED) from None


def _replace_stdout() -> None:
    closed = sys.stdout is None
    try:
        raw = _Checked(-1 if closed else sys.stdout.fileno())
    except io.UnsupportedOperation:
        return  # a caller in this process has put something in place of standard output
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding="utf-8" if closed else sys.stdout.encoding,
        errors="replace",
        line_buffering=raw.isatty(),
    )


def _fill_descriptors() -> None:
    """Put /dev/null where a standard descriptor is closed: no other file gets its number."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
