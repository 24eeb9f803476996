"""A provider's settings that are right, to be spoilt one at a time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mimi_mmr.lab.demo.world import World

SECRET = "s3cret-s3cret-s3cret-s3cret"


@dataclass
class Place:
    """One provider's directory, and how to run the command there."""

    world: World
    directory: Path

    @property
    def config(self) -> Path:
        return self.directory / "config.toml"

    def rewrite(self, pattern: str, replacement: str) -> None:
        """Change the settings file; the pattern must be there."""
        text, count = re.subn(pattern, lambda _: replacement, self.config.read_text(), flags=re.MULTILINE)
        assert count == 1, pattern
        self.config.write_text(text)

    def put_first(self, line: str) -> None:
        self.config.write_text(f"{line}\n{self.config.read_text()}")

    def run(
        self, *arguments: str, command: str = "serve", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command, which is expected to end by itself."""
        return subprocess.run(
            [sys.executable, "-m", "mimi_mmr", command, *arguments],
            env=clean_environment() | (env or {}),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            pass_fds=[party.socket.fileno() for party in self.world.providers.values()],
        )


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MIMI_MMR_")}
