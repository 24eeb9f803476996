"""A migration of vaults that does not exist, for tests: to version 2, which program 9.8.7 is the first to know."""

from __future__ import annotations

import os
import signal

from mimi_mmr.client.storage.vault_migrations import Migration, Tables


def change(tables: Tables) -> None:
    """Make the rows of one table longer, rename all tables of messages, and add a table."""
    for key in list(tables.table("t")):
        tables.table("t")[key] += b"2"
    for name in tables.names():
        if name.startswith("messages "):
            tables.table(f"history {name}").update(tables.table(name))
            tables.table(name).clear()
    tables.table("made")[b"by"] = b"version 2"


def killed(tables: Tables) -> None:
    """The same, but the process ends in the middle."""
    change(tables)
    os.kill(os.getpid(), signal.SIGKILL)


TO_VERSION_2 = (Migration((9, 8, 7), change),)
KILLED = (Migration((9, 8, 7), killed),)
