"""What chunked requests for a target in this process hold together is bounded, as that of whole requests is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ohttp_relay.bhttp.message import Request, Response
from ohttp_relay.gateway import Gateway, GatewayLimits
from ohttp_relay.keys.ring import KeyRing

PIECE = 256 * 1024
LIMIT = 4 * PIECE


class Sender:
    """A chunked request whose content comes to an end when it is told so."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self.taken = 0
        self.whole = asyncio.Event()
        self.changed = asyncio.Event()

    async def body(self) -> AsyncIterator[bytes]:
        for _ in range(self.pieces):
            yield bytes(PIECE)
            self.taken += 1  # the piece before was kept
            self.changed.set()
        await self.whole.wait()

    async def until_taken(self, pieces: int) -> None:
        while self.taken < pieces:
            self.changed.clear()
            await self.changed.wait()


async def test_unfinished_chunked_requests_together_hold_no_more_than_the_budget() -> None:
    sizes: list[int] = []

    async def target(request: Request) -> Response:
        sizes.append(len(request.content))
        return Response(200)

    limits = GatewayLimits(request=LIMIT, requests=LIMIT, idle_seconds=0.2)
    gateway = Gateway(KeyRing.generate(), (), {"https://a.example": target}, limits=limits)
    request = Request("POST", "https", "a.example", "/", (), b"")

    def ask(sender: Sender, number: int) -> asyncio.Task[int]:
        async def status() -> int:
            answer = await gateway._answerer.streamed(request, bytes([number]) * 32, sender.body())
            return answer.status

        return asyncio.create_task(status())

    first, others = Sender(3), [Sender(3) for _ in range(8)]
    asked = ask(first, 0)
    await first.until_taken(3)
    assert gateway._budget.held == 3 * PIECE
    assert [await task for task in [ask(sender, 1 + n) for n, sender in enumerate(others)]] == [503] * 8
    assert all(sender.taken <= 1 for sender in others)
    assert gateway._budget.held == 3 * PIECE
    first.whole.set()
    assert await asked == 200
    assert sizes == [3 * PIECE]
    assert gateway._budget.held == 0
    await gateway.close()
