"""Measure ohttp_relay: operations, gateway, relay, streaming.

`python -m benchmarks.ohttp` prints a table, writes JSON and a plot.  `--headline` ends within 50 seconds with one
line of JSON.  `--gateway` prints the figures of the gateway alone.  `--decisions` prints the figures of
docs/adr/0002 to 0004.  Ratios are taken within one run, on the same cores, so that they can be compared between
machines.  `cpu_us` is processor time, of user and system, that all processes of a server spent on a request.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import multiprocessing
import os
import select
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from aiohttp import web
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey, KEMKeyInterface

from ohttp_relay.bhttp import Request, Response
from ohttp_relay.capsule import ResponseOpener, decapsulate_request, encapsulate_request
from ohttp_relay.capsule.format import REQUEST_LABEL, RESPONSE_LABEL
from ohttp_relay.client import OhttpClient, PinnedKeys
from ohttp_relay.gateway import (
    DEFAULT_PATH,
    UNDATED_WINDOW,
    Gateway,
    KeyKeeper,
    ReplayGuard,
    SharedReplayCache,
)
from ohttp_relay.hpke import KEMS, AeadId, KemId, Suite, XWingPair, XWingPrivateKey, cipher_suite
from ohttp_relay.hpke.hkdf import HmacKey, extract, prf, prf_three, prf_two
from ohttp_relay.keys import DEFAULT_SUITES, GatewayKey, KeyRing
from ohttp_relay.relay import Relay
from ohttp_relay.server import Bind, Metrics, open_sockets, run_on
from ohttp_relay.server.service import FAST_PATH
from ohttp_relay.transport import Handler, StreamedResponse, TargetPolicy
from ohttp_relay.transport.dates import format_date

BODY = bytes(1024)
CONNECTIONS = 64
PAUSE = 0.0005
REMEMBERED = 2_000_000  # requests that the gateway's replay table has room for
ROUNDS = 9
WINDOW = 1.0  # seconds of load that count
WAVE = 0.2  # seconds of load before them, in which connections are opened and caches are filled
PLAIN = 1200  # bytes of a bare echo's bodies
SEALED = 2080  # bytes of an encapsulated answer: a bucket, nonce and tag
LOCAL = "https://echo.example"
AWAITED = "https://awaited.example"
ONE_SHOT_KEMS = {KemId.X25519: hpke.KEM.X25519, KemId.X_WING: hpke.KEM.MLKEM768_X25519}
Figures = dict[str, float]


# Operations


def microseconds(operation: Callable[[], object], seconds: float) -> float:
    """Return the best time of one call, in microseconds, over several rounds within `seconds`."""
    operation()
    count, best, end = 20, float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(count):
            operation()
        best = min(best, (time.perf_counter() - start) / count)
    return best * 1e6


def x25519() -> Callable[[], object]:
    """Make a bare exchange with a key that arrives as bytes, like a gateway's."""
    mine, theirs = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key().public_bytes_raw()
    return lambda: mine.exchange(X25519PublicKey.from_public_bytes(theirs))


def gateway_operation(kem: int, suite: Suite) -> Callable[[], object]:
    """Decapsulate a request of 1 KiB, export, seal a response of 1 KiB."""
    ring = KeyRing.generate([kem])
    capsule, _ = encapsulate_request(ring.public_configs()[0], BODY, suite)
    return lambda: decapsulate_request(ring, capsule).seal(BODY)


def client_operation(kem: int, suite: Suite) -> Callable[[], object]:
    """Encapsulate a request of 1 KiB."""
    config = KeyRing.generate([kem]).public_configs()[0]
    return lambda: encapsulate_request(config, BODY, suite)


def pyhpke_operation() -> Callable[[], object]:
    """Do the same as `gateway_operation` with X25519 and AES-128-GCM, written on pyhpke."""
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
    """Open 1 KiB by `cryptography`'s one-shot HPKE, which has no export and so cannot seal the response."""
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_128_GCM)
    key = X25519PrivateKey.generate()
    sealed = suite.encrypt(BODY, key.public_key(), info=REQUEST_LABEL)
    return lambda: suite.decrypt(sealed, key, info=REQUEST_LABEL)


def hmacs() -> dict[str, Callable[[], object]]:
    """Return one HMAC-SHA256 of 100 bytes under a key of 32, by four implementations."""
    import hmac

    from cryptography.hazmat.primitives import hmac as pyca
    from cryptography.hazmat.primitives.hashes import SHA256

    key, message = os.urandom(32), os.urandom(100)

    def cryptography() -> bytes:
        context = pyca.HMAC(key, SHA256())
        context.update(message)
        return context.finalize()

    return {
        "own": lambda: prf(key, message),
        "hmac.digest": lambda: hmac.digest(key, message, "sha256"),
        "hmac.new": lambda: hmac.new(key, message, "sha256").digest(),
        "cryptography": cryptography,
    }


def hmacs_of_a_request() -> dict[str, Callable[[], object]]:
    """Return the ten HMACs that a gateway computes for a request, by this package and by `hmac.digest`."""
    import hmac

    key, message = os.urandom(32), os.urandom(60)
    fixed = HmacKey(b"", b"prefix")

    def own() -> None:
        fixed.digest(key)
        for _ in range(3):
            prf(key, message)
        prf_three(key, message, message, message)
        extract(key, message)
        prf_two(key, message, message)

    def standard() -> None:
        for _ in range(10):
            hmac.digest(key, message, "sha256")

    return {"own": own, "hmac.digest": standard}


def sealings(kem: KemId) -> dict[str, Callable[[], object]]:
    """Seal and open 100 bytes under HPKE with AES-256-GCM, by pyhpke and by `cryptography`'s one-shot API."""
    suite = cipher_suite(kem, AeadId.AES_256_GCM)
    theirs = hpke.Suite(ONE_SHOT_KEMS[kem], hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    message, info = os.urandom(100), b"info"
    private: X25519PrivateKey | hpke.MLKEM768X25519PrivateKey
    if kem is KemId.X_WING:
        pair = XWingPair.of(os.urandom(96))
        public = pair.public
        key: KEMKeyInterface = XWingPrivateKey(pair)
        private = hpke.MLKEM768X25519PrivateKey(pair.lattice, pair.curve)
    else:
        private = X25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        key = KEMKey.from_pyca_cryptography_key(private)
    recipient = private.public_key()
    sealed = theirs.encrypt(message, recipient, info)
    enc, ciphertext = sealed[:-116], sealed[-116:]

    def seal() -> object:
        enc, sender = suite.create_sender_context(suite.kem.deserialize_public_key(public), info)
        return enc + sender.seal(message)

    return {
        "pyhpke seal": seal,
        "one-shot seal": lambda: theirs.encrypt(message, recipient, info),
        "pyhpke open": lambda: suite.create_recipient_context(enc, key, info).open(ciphertext),
        "one-shot open": lambda: theirs.decrypt(sealed, private, info),
    }


def in_turns(operations: dict[str, Callable[[], object]], seconds: float) -> Figures:
    """Time operations, which take turns; the median turn of each counts.  Microseconds."""
    turns = [
        [microseconds(operation, seconds / ROUNDS) for operation in operations.values()]
        for _ in range(ROUNDS)
    ]
    medians = (statistics.median(column) for column in zip(*turns, strict=True))
    return dict(zip(operations, medians, strict=True))


def decisions(seconds: float, turns: Turns, folder: Path) -> Figures:
    """Return the figures of docs/adr/0002 to 0004."""
    figures = fronts(turns, folder)
    figures |= {f"0003 HMAC {name} us": value for name, value in in_turns(hmacs(), seconds).items()}
    timed = in_turns(hmacs_of_a_request(), seconds)
    figures |= {f"0003 ten HMACs {name} us": value for name, value in timed.items()}
    figures |= {f"0004 {name}": value for name, value in operations(seconds, every=False).items()}
    for kem in ONE_SHOT_KEMS:
        timed = in_turns(sealings(kem), seconds)
        figures |= {f"0004 {kem.name} {name} us": value for name, value in timed.items()}
        for kind in ("seal", "open"):
            ratio = timed[f"pyhpke {kind}"] / timed[f"one-shot {kind}"]
            figures[f"0004 {kem.name} {kind}, pyhpke over one-shot"] = ratio
    return figures


def operations(seconds: float, *, every: bool) -> Figures:
    """Time the operations; `every` suite, or the usual one."""
    compared = (x25519(), gateway_operation(KemId.X25519, DEFAULT_SUITES[0]), pyhpke_operation())
    turns = [[microseconds(operation, seconds / ROUNDS) for operation in compared] for _ in range(ROUNDS)]
    bare, usual, peer = (statistics.median(column) for column in zip(*turns, strict=True))
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
def served(
    make: Callable[[], web.Application], workers: int, enter: Callable[[int], None] | None = None
) -> Iterator[tuple[str, int]]:
    """Run an application on loopback; yield its origin and the id of its process."""
    bind = Bind("127.0.0.1", 0, workers=workers, grace=0.5)
    sockets = open_sockets(bind)
    port = sockets[0].getsockname()[1]
    context = multiprocessing.get_context("fork")
    process = context.Process(target=run_on, args=(make, bind, sockets, None, enter))
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
    """Do what a gateway does around the protocol: read a body, answer with one."""
    return web.Response(body=await request.read(), content_type="message/ohttp-res")


def echo_app() -> web.Application:
    """Return a bare echo."""
    app = web.Application()
    app.router.add_post("/", echo)
    return app


def echo_locally(request: Request) -> Response:
    """Answer as an in-process target."""
    return Response(200, (("content-type", "text/plain"),), request.content)


async def echo_awaited(request: Request) -> Response:
    """Answer as a coroutine, which takes the gateway a task and a timer."""
    return echo_locally(request)


@contextmanager
def served_gateway(
    folder: Path,
    origins: list[str],
    workers: int,
    change: Callable[[web.Application], web.Application] = lambda app: app,
) -> Iterator[tuple[str, int]]:
    """Run a gateway as the command does: stores shared by the workers, keys on disk, metrics."""
    KeyRing.generate().save(folder)
    metrics = Metrics("gateway", workers)

    def make() -> web.Application:
        ring = KeyRing.load(folder)
        dated = SharedReplayCache(folder / "dated", capacity=REMEMBERED)
        undated = SharedReplayCache(folder / "undated", UNDATED_WINDOW)
        policy = TargetPolicy.of(origins, ["127.0.0.0/8"])
        local: dict[str, Handler] = {LOCAL: echo_locally, AWAITED: echo_awaited}
        app = Gateway(ring, policy, local, replay=ReplayGuard(dated, undated), metrics=metrics).app()
        KeyKeeper(ring, folder, lifetime=86_400.0).attach(app)
        return change(app)

    with served(make, workers, metrics.enter) as gateway:
        yield gateway


def fronts(turns: Turns, folder: Path) -> Figures:
    """Return rate and processor time of a gateway's in-process echo, one worker: fast path, aiohttp alone."""

    def by_library(app: web.Application) -> web.Application:
        del app[FAST_PATH]
        return app

    with (
        served_gateway(folder / "fast", [], 1) as (fast, fast_pid),
        served_gateway(folder / "library", [], 1, by_library) as (library, library_pid),
    ):
        loads = {
            name: Load(url, pid, dated(folder / name, LOCAL), SEALED)
            for name, url, pid in (("fast", fast, fast_pid), ("library", library, library_pid))
        }
        runs = turns.of(loads)
    figures: Figures = {}
    for name, each in runs.items():
        figures[f"0002 {name} rps"] = statistics.median(run.rate for run in each)
        figures[f"0002 {name} cpu us"] = statistics.median(run.cpu for run in each)
    return figures


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


Sent = tuple[bytes, ResponseOpener | None]
"""A request as it goes over the wire, and for a sample of them what opens the answer."""


@dataclass
class Run:
    """What came of a load: answers, and the processor seconds that the server spent while they came."""

    answer_size: int
    times: list[float] = field(default_factory=list)
    samples: list[tuple[ResponseOpener, bytes]] = field(default_factory=list)
    seconds: float = 0.0
    used: float = 0.0
    out_of_requests: bool = False
    start: bytes = b"none yet"
    size: int = 0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.times) / self.seconds

    @property
    def cpu(self) -> float:
        """Processor time a request, in microseconds."""
        return self.used / len(self.times) * 1e6

    @property
    def latency(self) -> float:
        """The median time of an answer, in milliseconds."""
        return statistics.median(self.times) * 1e3

    def whole(self, data: bytes) -> bool:
        """Tell whether an answer is all there; it must be a 200 of the right type and length."""
        if len(data) == self.size and data.startswith(self.start):
            return True  # all but its Date and its content are as those of the last
        head, found, content = data.partition(b"\r\n\r\n")
        if not found:
            return False
        start, date, _ = head.partition(b"Date:")
        lines = start.lower().splitlines()
        assert lines[0] == b"http/1.1 200 ok", head
        assert b"content-type: message/ohttp-res" in lines, head
        assert b"content-length: %d" % self.answer_size in lines, head
        assert len(content) <= self.answer_size
        if len(content) < self.answer_size:
            return False
        self.start, self.size = start + date, len(data)
        return True


@dataclass
class Load:
    """A load on the server at `origin`, the process `pid`.  `prepare` makes a number of requests, or more."""

    origin: str
    pid: int
    prepare: Callable[[int], Iterable[Sent]]
    answer_size: int
    expected: float = 4_000.0
    """Requests a second, so that there are enough of them."""

    def run(self, window: float) -> Run:
        """Send requests; return what came in `window` seconds, after a wave that does not count.

        If there were too few requests, all of it is done again with more.
        """
        while True:
            enough = int(self.expected * (WAVE + window) * 1.3) + CONNECTIONS
            made = self._run(iter(self.prepare(enough)), window)
            for opener, sealed in made.samples:
                answer = Response.from_bytes(opener.open(sealed))
                assert (answer.status, answer.content) == (200, BODY)
            if not made.out_of_requests:
                self.expected = made.rate
                return made
            self.expected *= 2

    def _run(self, requests: Iterator[Sent], window: float) -> Run:
        """Send requests over `CONNECTIONS` connections, on each the next one after an answer.

        The load shares two cores with what it measures, so it must be cheap: plain sockets, and a look for answers
        every half a millisecond, when there are several.
        """
        host, _, port = self.origin.removeprefix("http://").partition(":")
        connections = [socket.create_connection((host, int(port))) for _ in range(CONNECTIONS)]
        by_number = {connection.fileno(): connection for connection in connections}
        buffers, openers, sent = (
            dict.fromkeys(by_number, b""),
            dict.fromkeys(by_number),
            dict.fromkeys(by_number, 0.0),
        )
        made = Run(self.answer_size)
        now = time.perf_counter()
        started, counted, used = now + WAVE, False, 0.0

        def send(number: int) -> None:
            request, openers[number] = next(requests, (b"", None))
            sent[number] = now
            if request:
                by_number[number].sendall(request)
            else:
                made.out_of_requests = True

        with select.epoll() as poll:
            for number in by_number:
                poll.register(number, select.EPOLLIN)
                send(number)
            while not (counted and now >= started + window) and not made.out_of_requests:
                time.sleep(PAUSE)
                events = poll.poll()
                now = time.perf_counter()
                if not counted and now >= started:
                    started, counted, used = now, True, spent(self.pid)
                    made.times.clear()
                for number, _ in events:
                    data = buffers[number] + by_number[number].recv(65536)
                    if not made.whole(data):
                        buffers[number] = data
                        continue
                    buffers[number] = b""
                    made.times.append(now - sent[number])
                    opener = openers[number]
                    if opener is not None:
                        made.samples.append((opener, data[-self.answer_size :]))
                    send(number)
        made.used = spent(self.pid) - used
        made.seconds = time.perf_counter() - started
        for connection in connections:
            connection.close()
        return made


@dataclass(frozen=True)
class Turns:
    """How often each of several loads takes its turn, and for how many seconds its answers count."""

    turns: int = 5
    window: float = WINDOW

    def of(self, loads: dict[str, Load]) -> dict[str, list[Run]]:
        """Run loads in turns, so that other load on the machine affects all of them alike."""
        runs: dict[str, list[Run]] = {name: [] for name in loads}
        for _ in range(self.turns):
            for name, one in loads.items():
                runs[name].append(one.run(self.window))
        return runs


def wire(path: str, body: bytes) -> bytes:
    """Return a request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: message/ohttp-req\r\nContent-Length: "
    return f"{head}{len(body)}\r\n\r\n".encode() + body


def plain(path: str) -> Callable[[int], Iterable[Sent]]:
    """Return what makes the same request for ever, its body as long as an encapsulated one."""
    request = wire(path, bytes(PLAIN)), None
    return lambda _: itertools.repeat(request)


def dated(folder: Path, origin: str) -> Callable[[int], Iterable[Sent]]:
    """Return what makes distinct encapsulated requests to the gateway of the keys in `folder`, dated now."""
    config = KeyRing.load(folder).public_configs()[0]
    scheme, _, authority = origin.partition("://")

    def prepare(count: int) -> list[Sent]:
        fields = (("date", format_date(time.time())),)
        request = Request("POST", scheme, authority, "/", fields, BODY).to_bytes()
        made = (encapsulate_request(config, request) for _ in range(count))
        return [
            (wire(DEFAULT_PATH, body), None if at % 100 else opener) for at, (body, opener) in enumerate(made)
        ]

    return prepare


def gateways(turns: Turns, workers: int, folder: Path, exchange: float) -> Figures:
    """Return rate, processor time and latency: bare echo, gateway with in-process echoes, gateway that fetches.

    The median turn of each counts.  `exchange`: seconds of one key exchange, for the ceiling of a gateway: the rate
    of a bare echo that also makes one exchange.  The share is of the ceiling in the same turn.
    """
    with served(echo_app, workers) as (bare, bare_pid), served_gateway(folder, [bare], workers) as (url, pid):
        loads = {
            "bare_echo": Load(bare, bare_pid, plain("/"), PLAIN),
            "gateway_echo": Load(url, pid, dated(folder, LOCAL), SEALED),
            "gateway_awaited": Load(url, pid, dated(folder, AWAITED), SEALED),
            "gateway_fetch": Load(url, pid, dated(folder, bare), SEALED),
        }
        runs = turns.of(loads)
    figures: Figures = {}
    of = f"{workers}_worker" + "s" * (workers > 1)
    for name, each in runs.items():
        figures[f"{name}_rps_{of}"] = statistics.median(run.rate for run in each)
        figures[f"{name}_cpu_us_{of}"] = statistics.median(run.cpu for run in each)
        figures[f"{name}_p50_ms_{of}"] = statistics.median(run.latency for run in each)
    ceilings = [1 / (1 / run.rate + exchange / workers) for run in runs["bare_echo"]]
    shares = [run.rate / most for run, most in zip(runs["gateway_echo"], ceilings, strict=True)]
    figures[f"gateway_echo_ceiling_rps_{of}"] = statistics.median(ceilings)
    figures[f"gateway_echo_ceiling_share_{of}"] = statistics.median(shares)
    return figures


def forward_app(origin: str) -> Callable[[], web.Application]:
    """Return the least that a relay can be: read a body, POST it, return the answer."""
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


def relays(turns: Turns) -> Figures:
    """Return the time of a relay as a multiple of bare forwarding, one worker each; they take turns."""
    metrics = Metrics("relay")

    def relay(origin: str) -> Callable[[], web.Application]:
        return Relay({"g": origin + "/"}, allow_insecure_loopback=True, metrics=metrics).app

    with (
        served(echo_app, 1) as (origin, _),
        served(forward_app(origin), 1) as (forward, forward_pid),
        served(relay(origin), 1) as (relayed, relayed_pid),
    ):
        runs = turns.of(
            {
                "bare": Load(forward, forward_pid, plain("/g"), PLAIN),
                "relay": Load(relayed, relayed_pid, plain("/g"), PLAIN),
            }
        )
    bare, ours = (statistics.median(run.rate for run in runs[name]) for name in ("bare", "relay"))
    return {"bare_forward_rps": bare, "relay_rps": ours, "relay_over_bare_forward": bare / ours}


# Streaming


async def stream_locally(request: Request) -> StreamedResponse:
    """Answer with an asset of as many bytes as the path says."""
    size = int(request.path.removeprefix("/"))

    async def pieces() -> AsyncIterator[bytes]:
        piece = bytes(256 * 1024)
        for at in range(0, size, len(piece)):
            yield piece[: size - at]

    return StreamedResponse(200, (("content-type", "application/octet-stream"),), pieces())


def streaming(size: int, folder: Path) -> Figures:
    """Return bytes a second of an asset through relay and gateway, chunked, and the growth of their memory."""
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
    """Draw requests a second, if matplotlib is installed."""
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
    parser.add_argument("--gateway", action="store_true", help="the figures of the gateway alone")
    parser.add_argument("--decisions", action="store_true", help="the figures of the decision records")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds for each group of operations")
    parser.add_argument("--turns", type=int, help="how often each load takes its turn")
    parser.add_argument("--window", type=float, default=WINDOW, help="seconds that count of each turn")
    parser.add_argument(
        "--out", type=Path, default=Path("build/benchmarks"), help="directory for JSON and plot"
    )
    options = parser.parse_args()
    short = options.headline
    turns = Turns(options.turns or (2 if short else 5), options.window)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.decisions:
            sys.stdout.write(table(decisions(options.seconds, turns, folder)) + "\n")
            return
        figures = operations(
            0.7 if short else min(1.0, options.seconds), every=not (short or options.gateway)
        )
        for workers in (1, 2):
            figures |= gateways(turns, workers, folder / str(workers), figures["x25519_us"] / 1e6)
        if options.gateway:
            sys.stdout.write(table(figures) + "\n")
            return
        figures |= relays(turns)
        figures |= streaming((512 if short else 1000) * 1_000_000, folder)
    figures["gateway_echo_ceiling_share"] = figures["gateway_echo_ceiling_share_2_workers"]
    if short:
        sys.stdout.write(json.dumps({name: round(value, 3) for name, value in figures.items()}) + "\n")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "ohttp.json").write_text(json.dumps(figures, indent=2) + "\n")
    plot(figures, options.out / "ohttp.png")
    sys.stdout.write(table(figures) + "\n")


if __name__ == "__main__":
    main()
