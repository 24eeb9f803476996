"""Logs: one JSON line per event, on stderr. Addresses, identities, rooms and keys are never logged."""

from __future__ import annotations

import logging
import sys

import structlog

_QUIET = ("aiohttp", "asyncio", "sqlalchemy")  # libraries' own lines may name the peer's address, or a query


def configure(level: str) -> None:
    """Log to stderr from `level` on."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.JSONRenderer(),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=render, foreign_pre_chain=shared))
    for name in ("mimi_mmr", "ohttp_relay"):
        logger = logging.getLogger(name)
        logger.setLevel(level.upper())
        logger.handlers = [handler]
        logger.propagate = False
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
