"""What relay, gateway and download proxy share: a session, a place in an application, observation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web

from ohttp_relay.errors import ConfigurationError
from ohttp_relay.server.fast_http import Resident, Visit
from ohttp_relay.server.metrics import Metrics
from ohttp_relay.transport.http import header_pairs, hide_server
from ohttp_relay.transport.observation import Observer, Seen
from ohttp_relay.transport.targets import CheckedConnector


@dataclass(frozen=True, slots=True)
class AtTheDoor:
    """What answers whole requests for an application, and what it counts in."""

    resident: Resident
    metrics: Metrics | None
    middlewares: tuple[object, ...]

    def stands_for(self, app: web.Application) -> bool:
        """Tell whether nobody put anything between requests and the application since it was made."""
        return tuple(app.middlewares) == self.middlewares


AT_THE_DOOR: Final = web.AppKey("ohttp_relay.at_the_door", AtTheDoor)


class Service:
    """Holds a session, its own if none is given; makes an application of routes; tells an observer."""

    def __init__(
        self,
        session: aiohttp.ClientSession | None,
        open_own: Callable[[], aiohttp.ClientSession],
        *,
        checked: bool,
        observe: Observer | None,
        metrics: Metrics | None,
    ) -> None:
        """`checked`: a session given must be one that checks addresses.  Raises ConfigurationError."""
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
        resident: Resident | None = None,
    ) -> web.Application:
        """Return an application that serves this alone and closes it at the end; `stop` is told before.

        `resident` is what answers whole requests at the door, where the server has one.
        """
        app = web.Application(middlewares=[self._metrics.middleware] if self._metrics is not None else [])
        if resident is not None:
            app[AT_THE_DOOR] = AtTheDoor(resident, self._metrics, tuple(app.middlewares))
        app.add_routes(routes)
        app.on_response_prepare.append(hide_server)
        if stop is not None:
            app.on_shutdown.append(_signal(stop))
        app.on_cleanup.append(self._cleanup)
        return app

    async def _cleanup(self, _: web.Application) -> None:
        await self.close()

    def _see(self, event: str, request: web.Request, body: bytes = b"") -> None:
        """Tell what came in on a socket."""
        if self._observe is not None:
            pairs = header_pairs(request.headers.items())
            self._observe(event, Seen(request.remote or "", request.method, request.path, 0, pairs, body))

    def see_whole(self, event: str, visit: Visit) -> None:
        """Tell what came in at the door."""
        head = visit.head
        self._note(event, Seen(visit.visitor.peer, "POST", head.path, 0, head.pairs, visit.body))

    @property
    def observed(self) -> bool:
        """Whether anyone is told."""
        return self._observe is not None

    def _note(self, event: str, seen: Seen) -> None:
        if self._observe is not None:
            self._observe(event, seen)


def _signal(stop: Callable[[], None]) -> Callable[[web.Application], Awaitable[None]]:
    async def signal(_: web.Application) -> None:
        stop()

    return signal
