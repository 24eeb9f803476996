"""Metrics and logs that say how a relay or gateway does and nothing of whom it serves.

No label and no log field holds an address, a path, a header, a key or a time finer than a histogram's.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import Final, TextIO

import structlog
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Middleware = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]

MULTIPROCESS_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SWITCHED: Final = 101
_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one role (`relay`, `gateway`, `proxy`) in a registry of its own.

    Labels are the role, the outer status, and the name of the reason for an encapsulated refusal.
    """

    def __init__(self, role: str) -> None:
        # Imported here: the library decides at its import whether workers share a directory.
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.role = role
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "ohttp_requests",
            "Requests answered, by outer status.",
            ["role", "status"],
            registry=self.registry,
        )
        self._refusals = Counter(
            "ohttp_refusals", "Encapsulated refusals, by reason.", ["role", "reason"], registry=self.registry
        )
        self._seconds = Histogram(
            "ohttp_request_seconds", "Time to answer.", ["role"], buckets=_SECONDS, registry=self.registry
        )
        self._in_flight = Gauge(
            "ohttp_in_flight",
            "Requests being answered, and sockets.",
            ["role"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._sockets = Gauge(
            "ohttp_sockets", "Sockets open.", ["role"], registry=self.registry, multiprocess_mode="livesum"
        )
        self._socket_answers = Counter(
            "ohttp_socket_answers", "Requests on sockets answered.", ["role"], registry=self.registry
        )
        self._socket_ends = Counter(
            "ohttp_socket_ends", "Sockets ended, by reason.", ["role", "reason"], registry=self.registry
        )

    def refused(self, reason: str) -> None:
        """Count an encapsulated refusal; `reason` is an error class's name."""
        self._refusals.labels(self.role, reason).inc()

    def socket_opened(self) -> None:
        """Count a socket."""
        self._sockets.labels(self.role).inc()

    def socket_answered(self) -> None:
        """Count an answer on a socket."""
        self._socket_answers.labels(self.role).inc()

    def socket_closed(self, reason: str) -> None:
        """Count a socket's end; `reason` is the name of a close code."""
        self._sockets.labels(self.role).dec()
        self._socket_ends.labels(self.role, reason).inc()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count and time a request."""
        started = time.perf_counter()
        status = 500
        self._in_flight.labels(self.role).inc()
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            raise
        else:
            return response
        finally:
            self._in_flight.labels(self.role).dec()
            self._requests.labels(self.role, str(status)).inc()
            if status != _SWITCHED:  # how long a socket was open is no time to answer
                self._seconds.labels(self.role).observe(time.perf_counter() - started)

    def render(self) -> bytes:
        """Return the metrics as Prometheus reads them: of all workers, if they share a directory."""
        from prometheus_client import CollectorRegistry, generate_latest, multiprocess

        if MULTIPROCESS_DIR not in os.environ:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def admin_app(self) -> web.Application:
        """Return an application with `/metrics` and `/health`, for a port of its own."""

        async def metrics(_: web.Request) -> web.Response:
            return web.Response(body=self.render(), headers={"Content-Type": CONTENT_TYPE})

        async def health(_: web.Request) -> web.Response:
            return web.json_response({"status": "ok", "role": self.role})

        app = web.Application()
        app.add_routes([web.get("/metrics", metrics), web.get("/health", health)])
        return app


def configure_logs(stream: TextIO, level: int = logging.INFO) -> None:
    """Write this package's logs as JSON lines: time, level, logger, event."""
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
    # The HTTP library's own log lines may hold addresses and paths: errors only, and without traceback.
    aiohttp_log = logging.getLogger("aiohttp")
    aiohttp_log.handlers = [handler]
    aiohttp_log.setLevel(logging.CRITICAL)
    aiohttp_log.propagate = False
