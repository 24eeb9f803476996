"""How fast is ohttp_relay: operations, gateway, relay, streaming.

`python -m benchmarks.ohttp` prints a table, writes JSON and a plot; `--headline` ends within 50 seconds
with one line of JSON.  Ratios are taken within one run, on the same cores, so that they can be compared
between machines.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop
from aiohttp import web
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pyhpke import AEADId, CipherSuite, KDFId, KEMId

from ohttp_relay.bhttp import Request, Response
from ohttp_relay.capsule import REQUEST_LABEL, RESPONSE_LABEL, decapsulate_request, encapsulate_request
from ohttp_relay.client import OhttpClient, PinnedKeys
from ohttp_relay.gateway import DEFAULT_PATH, Gateway
from ohttp_relay.hpke import AeadId, Suite
from ohttp_relay.kem import KEMS, KemId
from ohttp_relay.keys import DEFAULT_SUITES, GatewayKey, KeyRing
from ohttp_relay.relay import Relay
from ohttp_relay.replay import ReplayGuard, format_date
from ohttp_relay.replay_shared import SharedReplayCache
from ohttp_relay.serve import Bind, open_sockets, run_on
from ohttp_relay.streams import StreamedResponse
from ohttp_relay.targets import TargetPolicy

BODY = bytes(1024)
CONNECTIONS = 32
LOCAL = "https://echo.example"
Figures = dict[str, float]


# Operations


def microseconds(operation: Callable[[], object], seconds: float) -> float:
    """Best time of one call, in microseconds, over several rounds within `seconds`."""
    operation()
    count, best, end = 20, float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(count):
            operation()
        best = min(best, (time.perf_counter() - start) / count)
    return best * 1e6


def x25519() -> Callable[[], object]:
    """One bare exchange with a key that arrives as bytes, as a gateway's does."""
    mine, theirs = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key().public_bytes_raw()
    return lambda: mine.exchange(X25519PublicKey.from_public_bytes(theirs))


def gateway_operation(kem: int, suite: Suite) -> Callable[[], object]:
    """Decapsulate a request of 1 KiB, export, seal a response of 1 KiB."""
    ring = KeyRing.generate([kem])
    capsule, _ = encapsulate_request(ring.public_configs()[0], BODY, suite)
    return lambda: decapsulate_request(ring, capsule).sealer.seal(BODY)


def client_operation(kem: int, suite: Suite) -> Callable[[], object]:
    """Encapsulate a request of 1 KiB."""
    config = KeyRing.generate([kem]).public_configs()[0]
    return lambda: encapsulate_request(config, BODY, suite)


def pyhpke_operation() -> Callable[[], object]:
    """The same as `gateway_operation`, X25519 and AES-128-GCM, written on pyhpke."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

    suite = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES128_GCM)
    pair = suite.kem.derive_key_pair(os.urandom(32))
    header = bytes.fromhex("01002000010001")
    info = REQUEST_LABEL + b"\0" + header
    enc, sender = suite.create_sender_context(pair.public_key, info=info)
    sealed = sender.seal(BODY)

    def operation() -> bytes:
        context = suite.create_recipient_context(enc, pair.private_key, info=info)
        context.open(sealed)
        secret, nonce = context.export(RESPONSE_LABEL, 16), os.urandom(16)
        prk = HKDF.extract(SHA256(), enc + nonce, secret)
        key = HKDFExpand(SHA256(), 16, b"key").derive(prk)
        return nonce + AESGCM(key).encrypt(HKDFExpand(SHA256(), 12, b"nonce").derive(prk), BODY, b"")

    return operation


def one_shot_operation() -> Callable[[], object]:
    """Open 1 KiB by `cryptography`'s one-shot HPKE, which has no export and so can't seal the response."""
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_128_GCM)
    key = X25519PrivateKey.generate()
    sealed = suite.encrypt(BODY, key.public_key(), info=REQUEST_LABEL)
    return lambda: suite.decrypt(sealed, key, info=REQUEST_LABEL)


def operations(seconds: float, *, every: bool) -> Figures:
    """Time the operations; `every` suite, or the usual one."""
    bare = microseconds(x25519(), seconds)
    usual = microseconds(gateway_operation(KemId.X25519, DEFAULT_SUITES[0]), seconds)
    peer = microseconds(pyhpke_operation(), seconds)
    figures = {
        "x25519_us": bare,
        "gateway_crypto_us": usual,
        "gateway_crypto_over_x25519": usual / bare,
        "pyhpke_us": peer,
        "speedup_over_pyhpke": peer / usual,
        "one_shot_open_us": microseconds(one_shot_operation(), seconds),
    }
    for kem, suite in [(k, s) for k in KEMS for s in DEFAULT_SUITES] if every else []:
        name = f"{KemId(kem).name}/{AeadId(suite.aead).name}".lower()
        figures[f"gateway {name} us"] = microseconds(gateway_operation(kem, suite), seconds)
        figures[f"client {name} us"] = microseconds(client_operation(kem, suite), seconds)
    return figures


# Servers, each in processes of its own


@contextmanager
def served(make: Callable[[], web.Application], workers: int) -> Iterator[tuple[str, int]]:
    """Run an application on loopback; give its origin and the process's id."""
    bind = Bind("127.0.0.1", 0, workers=workers, grace=0.5)
    sockets = open_sockets(bind)
    port = sockets[0].getsockname()[1]
    context = multiprocessing.get_context("fork")
    process = context.Process(target=run_on, args=(make, bind, sockets))
    process.start()
    for listener in sockets:
        listener.close()
    try:
        assert process.pid is not None
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.join()


async def echo(request: web.Request) -> web.Response:
    """What a gateway does around the protocol: read a body, answer with one."""
    return web.Response(body=await request.read(), content_type="message/ohttp-res")


def echo_app() -> web.Application:
    """A bare echo."""
    app = web.Application()
    app.router.add_post("/", echo)
    return app


async def echo_locally(request: Request) -> Response:
    """An in-process target."""
    return Response(200, (("content-type", "text/plain"),), request.content)


def gateway_app(ring: KeyRing, folder: Path, origins: list[str]) -> Callable[[], web.Application]:
    """A gateway with its replay store shared by the workers."""

    def make() -> web.Application:
        replay = ReplayGuard(SharedReplayCache(folder / "replay"), None)
        policy = TargetPolicy.of(origins, ["127.0.0.0/8"])
        return Gateway(ring, policy, {LOCAL: echo_locally}, replay=replay).app()

    return make


def usage(pid: int) -> tuple[float, float]:
    """Return (bytes resident, processor seconds used) of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    used = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    return float(pages * os.sysconf("SC_PAGE_SIZE")), used


def spent(pid: int) -> float:
    """Return processor seconds used by a server and its workers."""
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(usage(process)[1] for process in (pid, *map(int, workers)))


# Load


class Connection(asyncio.Protocol):
    """Sends requests one after another on one connection, and reads answers by their length."""

    def __init__(self, requests: Iterator[bytes], done: asyncio.Future[None], load: Load) -> None:
        self._requests, self._done, self._load = requests, done, load
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None or time.perf_counter() > self._load.end:
            self._transport.close()
        else:
            self._started = time.perf_counter()
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Read; when an answer is whole, send the next request."""
        self._buffer = data if not self._buffer else self._buffer + data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(None, 1)[0])
        if len(rest) < length:
            return
        assert head.startswith(b"HTTP/1.1 200"), head
        self._load.times.append(time.perf_counter() - self._started)
        self._buffer = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that this connection is through."""
        self._done.set_result(None)


@dataclass
class Load:
    """A run of load: requests a second, latencies."""

    end: float
    times: list[float]
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.times) / self.seconds


async def load(origin: str, path: str, bodies: Iterator[bytes], kind: str, seconds: float) -> Load:
    """POST bodies over `CONNECTIONS` connections for `seconds`."""
    host, _, port = origin.removeprefix("http://").partition(":")
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: {kind}\r\nContent-Length: "

    def wire() -> Iterator[bytes]:
        for body in bodies:
            yield f"{head}{len(body)}\r\n\r\n".encode() + body

    loop = asyncio.get_running_loop()
    requests, started = wire(), time.perf_counter()
    made = Load(started + seconds, [])
    futures = [loop.create_future() for _ in range(CONNECTIONS)]
    for done in futures:
        await loop.create_connection(lambda done=done: Connection(requests, done, made), host, int(port))  # type: ignore[misc]
    await asyncio.gather(*futures)
    made.seconds = time.perf_counter() - started
    return made


def forever(body: bytes) -> Iterator[bytes]:
    """The same body again and again."""
    while True:
        yield body


def capsules(ring: KeyRing, origin: str, count: int) -> list[bytes]:
    """Distinct encapsulated requests, dated now."""
    config = ring.public_configs()[0]
    scheme, _, authority = origin.partition("://")
    fields = (("date", format_date(time.time())),)
    request = Request("POST", scheme, authority, "/", fields, BODY).to_bytes()
    return [encapsulate_request(config, request)[0] for _ in range(count)]


def drive(origin: str, path: str, bodies: Iterator[bytes], kind: str, seconds: float) -> Load:
    """Run a load to its end; a short one first, that nothing is cold."""
    return uvloop.run(load(origin, path, bodies, kind, seconds))


def gateways(seconds: float, workers: int, folder: Path) -> Figures:
    """Requests a second: bare echo, gateway with an in-process echo, gateway that fetches."""
    ring = KeyRing.generate()
    count = int(seconds * 14_000)
    figures: Figures = {}
    with served(echo_app, workers) as (origin, pid):
        drive(origin, "/", forever(bytes(1200)), "message/ohttp-req", 0.3)
        before = spent(pid)
        bare = drive(origin, "/", forever(bytes(1200)), "message/ohttp-req", seconds)
        figures[f"bare_echo_rps_{workers}_workers"] = bare.rate
        figures[f"bare_echo_cpu_us_{workers}_workers"] = (spent(pid) - before) / len(bare.times) * 1e6
        with served(gateway_app(ring, folder, [origin]), workers) as (gateway, pid):
            drive(gateway, DEFAULT_PATH, iter(capsules(ring, LOCAL, 500)), "message/ohttp-req", 0.3)
            before = spent(pid)
            local = drive(
                gateway, DEFAULT_PATH, iter(capsules(ring, LOCAL, count)), "message/ohttp-req", seconds
            )
            figures[f"gateway_echo_rps_{workers}_workers"] = local.rate
            figures[f"gateway_echo_cpu_us_{workers}_workers"] = (spent(pid) - before) / len(local.times) * 1e6
            figures[f"gateway_echo_p50_ms_{workers}_workers"] = statistics.median(local.times) * 1e3
            fetched = iter(capsules(ring, origin, count // 2))
            figures[f"gateway_fetch_rps_{workers}_workers"] = drive(
                gateway, DEFAULT_PATH, fetched, "message/ohttp-req", seconds
            ).rate
    return figures


def forward_app(origin: str) -> Callable[[], web.Application]:
    """The least a relay can be: read a body, POST it on, answer with the answer."""
    import aiohttp

    def make() -> web.Application:
        app = web.Application()

        async def forward(request: web.Request) -> web.Response:
            body = await request.read()
            async with app["session"].post(origin + "/", data=body) as answer:
                return web.Response(body=await answer.read(), content_type="message/ohttp-res")

        async def session(app: web.Application) -> AsyncIterator[None]:
            async with aiohttp.ClientSession() as made:
                app["session"] = made
                yield

        app.cleanup_ctx.append(session)
        app.router.add_post("/g", forward)
        return app

    return make


def relays(seconds: float) -> Figures:
    """How many times as long a relay takes as bare forwarding does, one worker each."""
    with served(echo_app, 1) as (origin, _):
        rates = []
        for make in (
            forward_app(origin),
            Relay({"g": origin + "/"}, allow_insecure_loopback=True).app,
        ):
            with served(make, 1) as (url, _):
                drive(url, "/g", forever(bytes(1200)), "message/ohttp-req", 0.3)
                rates.append(drive(url, "/g", forever(bytes(1200)), "message/ohttp-req", seconds).rate)
    bare, relay = rates
    return {"bare_forward_rps": bare, "relay_rps": relay, "relay_over_bare_forward": bare / relay}


# Streaming


async def stream_locally(request: Request) -> StreamedResponse:
    """An asset of as many bytes as the path says."""
    size = int(request.path.removeprefix("/"))

    async def pieces() -> AsyncIterator[bytes]:
        piece = bytes(256 * 1024)
        for at in range(0, size, len(piece)):
            yield piece[: size - at]

    return StreamedResponse(200, (("content-type", "application/octet-stream"),), pieces())


def streaming(size: int, folder: Path) -> Figures:
    """Bytes a second of an asset through relay and gateway, chunked, and how their memory grows."""
    ring = KeyRing([GatewayKey.generate(1, KemId.X25519, DEFAULT_SUITES, 0.0)])

    def gateway() -> web.Application:
        return Gateway(ring, (), {LOCAL: stream_locally}).app()

    async def fetch(relay: str, amount: int) -> float:
        keys = PinnedKeys(ring.public_list())
        async with OhttpClient(relay, keys, chunked=True, allow_insecure_loopback=True) as client:
            started, total = time.perf_counter(), 0
            async with client.get(f"{LOCAL}/{amount}") as response:
                async for piece in response.iter_any():
                    total += len(piece)
            assert total == amount
            return time.perf_counter() - started

    async def latency(relay: str) -> float:
        times = []
        async with OhttpClient(relay, PinnedKeys(ring.public_list()), allow_insecure_loopback=True) as client:
            for _ in range(300):
                started = time.perf_counter()
                async with client.get(f"{LOCAL}/100") as response:
                    await response.read()
                times.append(time.perf_counter() - started)
        return statistics.median(times)

    with served(gateway, 1) as (origin, gateway_pid):
        relay = Relay({"g": origin + DEFAULT_PATH}, allow_insecure_loopback=True).app
        with served(relay, 1) as (url, relay_pid):
            one = uvloop.run(latency(url + "/g"))
            pids = gateway_pid, relay_pid, os.getpid()
            uvloop.run(fetch(url + "/g", 32 << 20))
            before = [usage(pid) for pid in pids]
            seconds = uvloop.run(fetch(url + "/g", size))
            after = [usage(pid) for pid in pids]
            growth, cpu = ([a[i] - b[i] for a, b in zip(after, before, strict=True)] for i in (0, 1))
    return {
        "end_to_end_p50_ms": one * 1e3,
        "stream_mb_per_s": size / seconds / 1e6,
        "stream_rss_growth_mb": max(growth) / 1e6,
        "stream_gateway_mb_per_cpu_s": size / cpu[0] / 1e6,
        "stream_relay_mb_per_cpu_s": size / cpu[1] / 1e6,
        "stream_client_mb_per_cpu_s": size / cpu[2] / 1e6,
    }


# Report


def table(figures: Figures) -> str:
    """Return the figures as a table."""
    width = max(len(name) for name in figures)
    return "\n".join(f"{name:{width}}  {value:12,.2f}" for name, value in figures.items())


def plot(figures: Figures, path: Path) -> None:
    """Draw requests a second; nothing without matplotlib."""
    try:
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        return
    rates = {name: value for name, value in figures.items() if "_rps" in name}
    figure, axes = pyplot.subplots(figsize=(8, 4))
    axes.barh(list(rates), list(rates.values()))
    axes.set_xlabel("requests a second")
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--headline", action="store_true", help="a short run, one line of JSON")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of each load")
    parser.add_argument(
        "--out", type=Path, default=Path("build/benchmarks"), help="directory for JSON and plot"
    )
    options = parser.parse_args()
    short = options.headline
    seconds = 2.5 if short else options.seconds
    figures = operations(0.7 if short else 1.0, every=not short)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for workers in (2,) if short else (1, 2):
            figures |= gateways(seconds, workers, folder / str(workers))
        figures |= relays(seconds)
        figures |= streaming((512 if short else 1000) * 1_000_000, folder)
    if short:
        sys.stdout.write(json.dumps({name: round(value, 3) for name, value in figures.items()}) + "\n")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "ohttp.json").write_text(json.dumps(figures, indent=2) + "\n")
    plot(figures, options.out / "ohttp.png")
    sys.stdout.write(table(figures) + "\n")


if __name__ == "__main__":
    main()
