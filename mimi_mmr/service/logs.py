"""Logs: one JSON line an event, on stderr. No address, identity, room or key is ever an argument of one."""

from __future__ import annotations

import datetime
import json
import logging
import sys


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="seconds")
        line = {"time": when, "level": record.levelname.lower(), "logger": record.name}
        return json.dumps(line | {"event": record.getMessage()})


def configure(level: str) -> None:
    """Log to stderr from `level` on. Libraries' own logs stay off: aiohttp's name the peer's address."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json())
    for name in ("mimi_mmr", "ohttp_relay"):
        logger = logging.getLogger(name)
        logger.setLevel(level.upper())
        logger.handlers = [handler]
        logger.propagate = False
    for name in ("aiohttp", "asyncio", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
