"""Running an application: one or several workers on one port, and an orderly stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

from aiohttp import web

from ohttp_relay.errors import ConfigurationError
from ohttp_relay.server.certificates import ServerCertificate
from ohttp_relay.server.connections import ConnectionLimits, Connections, raise_descriptor_limit
from ohttp_relay.server.fast_http import FastServer
from ohttp_relay.server.service import FAST_PATH

log = logging.getLogger(__name__)

_RESTARTS_TO_GIVE_UP: Final = 10
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
_HANDLED: Final = (*_ENDING, signal.SIGHUP)
AppFactory = Callable[[], web.Application]


@dataclass(frozen=True, slots=True)
class Bind:
    """Where and how to listen.

    `grace`: seconds that requests in flight have after the signal to stop.  `idle`: seconds after which an
    unused connection is closed.  `admin_port`: a second port, plain http on loopback, for metrics and health.
    `tls` as a ServerCertificate is read again after SIGHUP, and when its files have changed.
    """

    host: str
    port: int
    tls: ssl.SSLContext | ServerCertificate | None = None
    workers: int = 1
    grace: float = 30.0
    idle: float = 75.0
    admin_port: int | None = None
    backlog: int = 4096
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)

    @property
    def context(self) -> ssl.SSLContext | None:
        """The TLS context of the listener."""
        return self.tls.context if isinstance(self.tls, ServerCertificate) else self.tls

    def reload(self) -> None:
        """Read the certificate again, if there is one; a handler for SIGHUP."""
        if isinstance(self.tls, ServerCertificate):
            self.tls.reload()


def run(
    make_app: AppFactory,
    bind: Bind,
    make_admin: AppFactory | None = None,
    enter: Callable[[int], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Each worker calls `enter` with its number, from 0 on, then `make_app`, so that it opens its own files and
    sessions.
    Raises ConfigurationError if the address cannot be listened on.
    """
    _ignore_hangup()
    sockets = open_sockets(bind)
    host, port = sockets[0].getsockname()[:2]
    scheme = "https" if bind.tls else "http"
    log.info("listening on %s://%s:%d with %d workers", scheme, host, port, bind.workers)
    run_on(make_app, bind, sockets, make_admin, enter)


def run_on(
    make_app: AppFactory,
    bind: Bind,
    sockets: list[socket.socket],
    make_admin: AppFactory | None = None,
    enter: Callable[[int], None] | None = None,
) -> None:
    """Serve on sockets made by `open_sockets`, one worker each, until SIGTERM or SIGINT."""
    _ignore_hangup()
    raise_descriptor_limit()
    if len(sockets) == 1:
        _run_worker(make_app, bind, sockets[0], make_admin)
    else:
        _supervise(make_app, bind, sockets, make_admin, enter)


def _ignore_hangup() -> None:
    """Ignore SIGHUP until the certificate can be read again; later the server looks at the files by itself."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def open_sockets(bind: Bind) -> list[socket.socket]:
    """Return one bound socket a worker, all on one port (SO_REUSEPORT).  Raises ConfigurationError."""
    port = bind.port
    sockets: list[socket.socket] = []
    try:
        for _ in range(bind.workers):
            family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
            made = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(made)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if bind.workers > 1:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.bind((bind.host, port))
            made.listen(bind.backlog)  # a client that connects before a worker is up waits
            port = made.getsockname()[1]
    except OSError as error:
        for made in sockets:
            made.close()
        raise ConfigurationError(f"cannot listen on {bind.host} port {bind.port}: {error.strerror}") from None
    return sockets


async def serve(
    app: web.Application,
    bind: Bind,
    listener: socket.socket,
    admin: web.Application | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until `stop` is set (by default: SIGTERM or SIGINT), then finish the requests in flight."""
    stop = stop or _stop_on_signals(bind)
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=bind.grace,
        keepalive_timeout=bind.idle,
        lingering_time=2.0,
        handler_cancellation=True,
        auto_decompress=False,
    )
    runners = [runner]
    fast: FastServer | None = None
    listening: Connections | None = None
    looking: asyncio.Task[None] | None = None
    try:
        await runner.setup()
        library = cast(web.Server, runner.server)
        fast_path = app.get(FAST_PATH)
        if fast_path is not None and fast_path.may_serve(app):
            fast = FastServer(fast_path.handler, library, fast_path.metrics, bind.idle)
        listening = Connections(fast or library, library, [listener], bind.context, bind.limits)
        if isinstance(bind.tls, ServerCertificate):
            looking = asyncio.create_task(bind.tls.watch())
        if admin is not None and bind.admin_port is not None:
            runners.append(web.AppRunner(admin, access_log=None, shutdown_timeout=1.0))
            await runners[1].setup()
            await web.TCPSite(runners[1], "127.0.0.1", bind.admin_port).start()
        await stop.wait()
    finally:
        if looking is not None:
            looking.cancel()
        if listening is not None:
            listening.close()
        if fast is not None and runner.server is not None:
            await runner.shutdown()  # first: WebSockets end only when the application shuts down
            await asyncio.gather(fast.close(bind.grace), _close(runner.server, bind.grace))
        for started in runners:
            await started.cleanup()


async def _close(library: web.Server, grace: float) -> None:
    await asyncio.sleep(0)  # connections that were handed over just now begin
    library.pre_shutdown()
    await library.shutdown(grace)


def _stop_on_signals(bind: Bind) -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, bind.reload)
    return stop


def _run_worker(
    make_app: AppFactory,
    bind: Bind,
    listener: socket.socket,
    make_admin: AppFactory | None,
    parent: int | None = None,
) -> None:
    """Serve in this process, until a signal or until the other end of the pipe `parent` is closed."""

    async def main() -> None:
        stop = _stop_on_signals(bind)
        if parent is not None:
            asyncio.get_running_loop().add_reader(parent, stop.set)
        gc.freeze()  # objects made so far live on: the garbage collector need not visit them
        await serve(make_app(), bind, listener, make_admin() if make_admin is not None else None, stop)

    try:
        import uvloop
    except ImportError:  # not on every platform
        asyncio.run(main())
    else:
        uvloop.run(main())


def _supervise(
    make_app: AppFactory,
    bind: Bind,
    sockets: list[socket.socket],
    make_admin: AppFactory | None,
    enter: Callable[[int], None] | None,
) -> None:
    """Fork a worker for each socket; restart workers that die; stop all of them on a signal."""
    ending = False
    parent, held = os.pipe()  # the system closes `held` when this process ends, however it ends
    workers: dict[int, int] = {}

    def start(index: int) -> None:
        # A signal must not reach the child while it has the supervisor's handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        child = os.fork()
        if child:
            workers[child] = index
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
            return
        status = 1
        try:
            for number in _ENDING:
                signal.signal(number, signal.SIG_DFL)
            _ignore_hangup()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
            os.close(held)
            for other in sockets[:index] + sockets[index + 1 :]:
                other.close()
            if enter is not None:
                enter(index)
            _run_worker(make_app, bind, sockets[index], make_admin if index == 0 else None, parent)
            status = 0
        except Exception as error:  # logged here: the supervisor sees only the exit status
            log.error("a worker failed: %s", type(error).__name__)  # noqa: TRY400
        finally:
            os._exit(status)  # a worker must never run on as a supervisor

    def end(*_: object) -> None:
        nonlocal ending
        ending = True
        # The workers' copies must be the last ones, or connections would wait in a queue that nobody reads.
        for listener in sockets:
            listener.close()
        for child in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)

    def reload(*_: object) -> None:
        bind.reload()  # for workers that start later
        for child in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGHUP)

    for number in _ENDING:
        signal.signal(number, end)
    signal.signal(signal.SIGHUP, reload)
    for index in range(len(sockets)):
        start(index)
    restarts = 0
    while workers:
        child, _ = os.wait()
        index = workers.pop(child)
        if ending:
            continue
        restarts += 1
        log.error("a worker died")
        if restarts > _RESTARTS_TO_GIVE_UP:
            end()
        else:
            start(index)
        if ending:  # the signal came during the fork, and the newest worker did not get it
            end()
    if restarts > _RESTARTS_TO_GIVE_UP:
        raise ConfigurationError("the workers keep failing; see the log")
