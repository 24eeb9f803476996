"""Metrics of a relay, gateway or proxy.

No label holds an address, a path, a header or a key, and no time is finer than a bucket of the histogram.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Hashable, Iterator
from itertools import accumulate
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from ohttp_relay import errors
from ohttp_relay.server.counts import Counts
from ohttp_relay.transport.websocket import Close

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Middleware = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SWITCHED: Final = 101
_SECONDS: Final = (
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
    float("inf"),
)
_STATUSES: Final = range(100, 600)
_OTHER: Final = "other"
_REASONS: Final = (*sorted(n for n, v in vars(errors).items() if isinstance(v, type)), _OTHER)
_ENDS: Final = tuple(close.name for close in Close)
_GAUGES: Final = ("in flight", "sockets")


class Metrics:
    """Counters of one role (`relay`, `gateway`, `proxy`) over all its `workers`, in a registry of their own.

    Labels are the role, the outer status, and the reason of an encapsulated refusal or of a WebSocket's end.
    A forked worker calls `enter` first.
    """

    def __init__(self, role: str, workers: int = 1) -> None:
        self.role = role
        self.registry = CollectorRegistry()
        self.registry.register(self)
        names: list[Hashable] = [*_GAUGES, "socket answers", "seconds"]
        names += [("within", at) for at in range(len(_SECONDS))]
        names += [*_STATUSES, *(("end", name) for name in _ENDS), *(("refusal", name) for name in _REASONS)]
        self._counts = Counts(names, workers)

    def enter(self, worker: int) -> None:
        """Count for the worker of this number, from 0 on, from now on."""
        self._counts.enter(worker, _GAUGES)

    def refused(self, reason: str) -> None:
        """Count an encapsulated refusal; `reason` is the name of an error class."""
        self._counts.add(("refusal", reason))

    def socket_opened(self) -> None:
        """Count a WebSocket that was opened."""
        self._counts.add("sockets")

    def socket_answered(self) -> None:
        """Count an answer on a WebSocket."""
        self._counts.add("socket answers")

    def socket_closed(self, reason: str) -> None:
        """Count a WebSocket that ended; `reason` is the name of a close code."""
        self._counts.add("sockets", -1)
        self._counts.add(("end", reason))

    def begun(self) -> None:
        """Count a request as being answered."""
        self._counts.add("in flight")

    def ended(self) -> None:
        """Count a request as no longer being answered."""
        self._counts.add("in flight", -1)

    def answered(self, status: int, seconds: float) -> None:
        """Count an answer; `seconds` is the time from its request."""
        self._counts.add(status)
        if status != _SWITCHED:  # the life of a WebSocket is not a time to answer
            self._counts.add("seconds", seconds)
            self._counts.add(("within", bisect_left(_SECONDS, seconds)))

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count and time a request."""
        started = time.perf_counter()
        status = 500
        self.begun()
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            raise
        else:
            return response
        finally:
            self.ended()
            self.answered(status, time.perf_counter() - started)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, as the Prometheus library asks for them."""
        total, role = self._counts.total, self.role
        requests = CounterMetricFamily(
            "ohttp_requests", "Requests answered, by outer status.", labels=["role", "status"]
        )
        for status in _STATUSES:
            if count := total(status):
                requests.add_metric([role, str(status)], count)
        yield requests
        for what, name, help_text, reasons in (
            ("refusal", "ohttp_refusals", "Encapsulated refusals, by reason.", _REASONS),
            ("end", "ohttp_socket_ends", "Sockets ended, by reason.", _ENDS),
        ):
            family = CounterMetricFamily(name, help_text, labels=["role", "reason"])
            for reason in reasons:
                if count := total((what, reason)):
                    family.add_metric([role, reason], count)
            yield family
        yield self._seconds()
        answers = CounterMetricFamily(
            "ohttp_socket_answers", "Requests on sockets answered.", labels=["role"]
        )
        answers.add_metric([role], total("socket answers"))
        yield answers
        for what, name, help_text in (
            ("in flight", "ohttp_in_flight", "Requests being answered, and sockets."),
            ("sockets", "ohttp_sockets", "Sockets open."),
        ):
            gauge = GaugeMetricFamily(name, help_text, labels=["role"])
            gauge.add_metric([role], total(what))
            yield gauge

    def _seconds(self) -> Metric:
        within = list(accumulate(self._counts.total(("within", at)) for at in range(len(_SECONDS))))
        family = HistogramMetricFamily("ohttp_request_seconds", "Time to answer.", labels=["role"])
        if within[-1]:
            bounds = [*map(str, _SECONDS[:-1]), "+Inf"]
            buckets = list(zip(bounds, within, strict=True))
            family.add_metric([self.role], buckets, self._counts.total("seconds"))
        return family

    def render(self) -> bytes:
        """Return the metrics of all workers in Prometheus's text format."""
        return generate_latest(self.registry)

    def admin_app(self) -> web.Application:
        """Return an application with `/metrics` and `/health`, for a port of its own."""

        async def metrics(_: web.Request) -> web.Response:
            return web.Response(body=self.render(), headers={"Content-Type": CONTENT_TYPE})

        async def health(_: web.Request) -> web.Response:
            return web.json_response({"status": "ok", "role": self.role})

        app = web.Application()
        app.add_routes([web.get("/metrics", metrics), web.get("/health", health)])
        return app
