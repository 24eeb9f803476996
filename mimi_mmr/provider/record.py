"""Recording of everything that a party sees, for the ledger. Off unless a directory is configured.

A record is one role's view: every frame in and out, with peer address, headers and body. It is meant for tests,
demonstrations and audits with planted data; a deployment has no reason to turn it on.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from mimi_mmr.errors import ConfigError


class Recorder:
    """Appends frames to `<directory>/<role>.frames.jsonl`; without a directory it does nothing."""

    def __init__(self, directory: Path | None = None) -> None:
        """Record below `directory`; record nothing if it is None."""
        self._directory = directory
        self._lock = threading.Lock()
        if directory is not None:
            try:
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise ConfigError(f"record_dir: {directory}: {error.strerror}") from None

    @property
    def active(self) -> bool:
        """Whether anything is recorded."""
        return self._directory is not None

    def write(
        self,
        role: str,
        direction: str,
        *,
        peer: str = "",
        method: str = "",
        path: str = "",
        status: int = 0,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> None:
        """Record one frame."""
        if self._directory is None:
            return
        frame = {
            "direction": direction,
            "peer": peer,
            "method": method,
            "path": path,
            "status": status,
            "headers": list(headers),
            "body": base64.b64encode(body).decode(),
        }
        line = json.dumps(frame) + "\n"
        frames = self._directory / f"{role}.frames.jsonl"
        with self._lock, open(frames, "a", opener=_private) as file:  # `Path.open` takes no opener
            file.write(line)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
