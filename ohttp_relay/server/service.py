"""What relay, gateway and download proxy share: a session, an application, observation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web

from ohttp_relay.errors import ConfigurationError
from ohttp_relay.server.fast_http import RequestHandler, WholeRequest
from ohttp_relay.server.metrics import Metrics
from ohttp_relay.transport.http import header_pairs, hide_server
from ohttp_relay.transport.observation import Observer, Seen
from ohttp_relay.transport.targets import CheckedConnector


@dataclass(frozen=True, slots=True)
class FastPath:
    """The fast path of an application: what answers whole requests, and its metrics."""

    handler: RequestHandler
    metrics: Metrics | None
    middlewares: tuple[object, ...]

    def may_serve(self, app: web.Application) -> bool:
        """Tell whether the application has the middlewares it was made with, and so may be bypassed."""
        return tuple(app.middlewares) == self.middlewares


FAST_PATH: Final = web.AppKey("ohttp_relay.fast_path", FastPath)


class Service:
    """A session (its own if none is given), an application of routes, and an observer."""

    def __init__(
        self,
        session: aiohttp.ClientSession | None,
        open_own: Callable[[], aiohttp.ClientSession],
        *,
        checked: bool,
        observe: Observer | None,
        metrics: Metrics | None,
    ) -> None:
        """Hold the session; with `checked`, it must be one that checks addresses.  Raises ConfigurationError."""
        if checked and session is not None and not isinstance(session.connector, CheckedConnector):
            raise ConfigurationError("targets are fetched over a session made by open_target_session")
        self._session = session
        self._open_own = open_own
        self._owned: aiohttp.ClientSession | None = None
        self._observe = observe
        self._metrics = metrics

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session in use, opened at its first use."""
        if self._session is not None:
            return self._session
        if self._owned is None:
            self._owned = self._open_own()
        return self._owned

    async def close(self) -> None:
        """Close the session if it is this service's own."""
        if self._owned is not None:
            await self._owned.close()
            self._owned = None

    def _application(
        self,
        routes: Iterable[web.RouteDef],
        stop: Callable[[], None] | None = None,
        handler: RequestHandler | None = None,
    ) -> web.Application:
        """Return an application that serves this alone and closes it at the end; `stop` is called before.

        `handler` answers whole requests on the fast path, where the server has one.
        """
        app = web.Application(middlewares=[self._metrics.middleware] if self._metrics is not None else [])
        if handler is not None:
            app[FAST_PATH] = FastPath(handler, self._metrics, tuple(app.middlewares))
        app.add_routes(routes)
        app.on_response_prepare.append(hide_server)
        if stop is not None:
            app.on_shutdown.append(_signal(stop))
        app.on_cleanup.append(self._cleanup)
        return app

    async def _cleanup(self, _: web.Application) -> None:
        await self.close()

    def _see(self, event: str, request: web.Request, body: bytes = b"") -> None:
        """Tell the observer of a request that came by the HTTP library."""
        if self._observe is not None:
            pairs = header_pairs(request.headers.items())
            self._observe(event, Seen(request.remote or "", request.method, request.path, 0, pairs, body))

    def see_whole(self, event: str, request: WholeRequest) -> None:
        """Tell the observer of a request that came by the fast path."""
        head = request.head
        self._note(event, Seen(request.sender.peer, "POST", head.path, 0, head.pairs, request.body))

    @property
    def observed(self) -> bool:
        """Whether there is an observer."""
        return self._observe is not None

    def _note(self, event: str, seen: Seen) -> None:
        if self._observe is not None:
            self._observe(event, seen)


def _signal(stop: Callable[[], None]) -> Callable[[web.Application], Awaitable[None]]:
    async def signal(_: web.Application) -> None:
        stop()

    return signal
