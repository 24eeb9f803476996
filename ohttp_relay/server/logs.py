"""Logs as JSON lines, which hold no address, path, header or key."""

from __future__ import annotations

import logging
from typing import TextIO

import structlog


def configure_logs(stream: TextIO, level: int = logging.INFO) -> None:
    """Write the logs of this package as JSON lines: time, level, logger, event."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
        foreign_pre_chain=shared,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger("ohttp_relay")
    root.handlers = [handler]
    root.setLevel(level)
    root.propagate = False
    # Log lines of the HTTP library may hold addresses and paths: only critical ones are written.
    aiohttp_log = logging.getLogger("aiohttp")
    aiohttp_log.handlers = [handler]
    aiohttp_log.setLevel(logging.CRITICAL)
    aiohttp_log.propagate = False
