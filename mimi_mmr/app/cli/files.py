"""Files that people name: this process opens them, where it runs and with its own descriptors, never the agent."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mimi_mmr.app.commands.errors import FileProblem, SystemFailed
from mimi_mmr.app.commands.trust import MAX_ANCHORS


def read(path: Path, limit: int, option: str) -> bytes:
    """Return the content of a file or a pipe, which is read to its end.

    Raise `FileProblem`, which names the option or argument, if it can't be read or has more than `limit` bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise FileProblem(f"{option}: {path}: {error.strerror or error}") from None
    if len(data) > limit:
        raise FileProblem(f"{option}: {path}: expected at most {limit} bytes")
    return data


def read_trust(trust: Path, tls_ca: Path | None) -> bytes:
    """Return the content of a directory of trust anchors and of a file of roots for TLS, as the agent takes it.

    Hidden files are left out. Raise `FileProblem`.
    """
    anchors = {
        path.stem: _text(path, "--trust")
        for path in sorted(trust.glob("*.pem"))
        if not path.name.startswith(".")
    }
    roots = _text(tls_ca, "--tls-ca") if tls_ca else None
    content = json.dumps({"trust": anchors, "tls_ca": roots}).encode()
    if len(content) > MAX_ANCHORS:
        raise FileProblem(f"--trust, --tls-ca: expected at most {MAX_ANCHORS} bytes of certificates")
    return content


def _text(path: Path, option: str) -> str:
    try:
        return read(path, MAX_ANCHORS, option).decode()
    except UnicodeDecodeError:
        raise FileProblem(f"{option}: {path}: expected certificates in PEM") from None


def target(out: Path, name: str) -> Path:
    """Return where a file of this name goes: into the directory `out`, or to the new file `out`.

    Raise `FileProblem` if it exists.
    """
    path = out / name if out.is_dir() else out
    if os.path.lexists(path):
        raise FileProblem(f"{path} exists, and nothing is overwritten").with_hint(
            "name another file with --out"
        )
    if not path.parent.is_dir():
        raise FileProblem(f"{path.parent} is no directory")
    return path


def write(path: Path, data: bytes) -> None:
    """Write a new file, whole or not at all. Raise `FileProblem` if it exists, `SystemFailed` if that fails."""
    from mimi_mmr.provider.new_files import write_new  # slow to import

    try:
        write_new(path, data)
    except FileExistsError:
        raise FileProblem(f"{path} exists, and nothing is overwritten") from None
    except OSError as error:
        raise SystemFailed(f"{path} can't be written: {error.strerror or error}") from None
