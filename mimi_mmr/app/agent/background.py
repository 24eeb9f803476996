"""What an agent does by itself: follow rooms, look for invitations and requests, and tend the client."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from mimi_mmr.app.agent.naming import label
from mimi_mmr.app.agent.views import contact_in
from mimi_mmr.client import DeviceInvitation, Joined
from mimi_mmr.errors import MmrError, PrivatePathFailed
from mimi_mmr.uris import MimiUri

if TYPE_CHECKING:
    from mimi_mmr.app.agent.agent import Agent

log = logging.getLogger(__name__)

WAIT_SECONDS = 20.0  # of a long poll
SPREAD_SECONDS = 5.0
LOOK_SECONDS = 10.0  # between looks for requests; a command that wants one has it looked for at once
TEND_SECONDS = 300.0
KEPT_REFUSALS = 100
FIRST_RETRY, LAST_RETRY = 1.0, 60.0

Work = Callable[[], Awaitable[bool]]  # whether that was all


class Background:
    """Tasks that live as long as the agent. What fails is tried again, ever later; `trouble` says what."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self._tended = float("-inf")
        # What `tend` does too must not be done by two at once.
        self._answers = asyncio.Lock()
        self._codes = asyncio.Lock()
        self.trouble: dict[str, str] = {}

    def start(self) -> None:
        """Begin; once there is an account."""
        self._run("rooms", "following rooms", self._watch_rooms)
        self._run("invitations", "looking for invitations", self._look_for_invitations)
        self._run("errands", "looking for requests and answers", self._errands)

    async def stop(self) -> None:
        """End all of it; what was not written is asked for again by the next agent."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self, key: object, what: str, work: Work) -> None:
        """Do `work` again and again, as the task of this key; `what` it is, for a person."""
        task = self._tasks[key] = asyncio.create_task(self._again_and_again(what, work))
        task.add_done_callback(lambda _: self._tasks.pop(key))

    async def _again_and_again(self, what: str, work: Work) -> None:
        retry, done = FIRST_RETRY, False
        while not done:
            try:
                done = await work()
            except MmrError as error:
                log.info("a background task is to be tried again: %s", error.code)
                self.trouble[what] = str(error)
            except Exception as error:
                # not with its traceback, which may hold anything
                log.error("a background task failed: %s", type(error).__name__)  # noqa: TRY400
                self.trouble[what] = f"{type(error).__name__}, which is a defect"
            else:
                retry = FIRST_RETRY
                self.trouble.pop(what, None)
                continue
            await self._agent.wanted.wait(retry)
            retry = min(2 * retry, LAST_RETRY)

    # --- rooms ---------------------------------------------------------------------------------------

    async def _watch_rooms(self) -> bool:
        """One task for each queue; rooms come and go."""
        rung = self._agent.happened.rung
        for joined in list(self._agent.client.rooms.values()):
            if joined.uri not in self._tasks and self._follows(joined):
                what = f"following {label(self._agent.client, joined)}"
                self._run(joined.uri, what, partial(self._follow, joined.uri, what))
        await self._agent.happened.wait(LOOK_SECONDS, after=rung)
        return False

    def _follows(self, joined: Joined) -> bool:
        """Whether a room is to be followed here: several rooms may share a queue, and one is enough."""
        first = next(other for other in self._agent.client.rooms.values() if other.inbox is joined.inbox)
        return first is joined and not joined.room.removed

    async def _follow(self, uri: MimiUri, what: str) -> bool:
        joined = self._agent.client.rooms.get(uri)
        if joined is None or not self._follows(joined):
            return True
        await self._agent.client.sync(joined)
        self.trouble.pop(what, None)  # what follows may be silent for long
        self._agent.happened.ring()
        try:
            # Sockets that are opened in one moment, when an agent starts, would look like one client's.
            if await self._agent.client.sync(joined, wait=SPREAD_SECONDS * secrets.randbelow(1000) / 1000):
                self._agent.happened.ring()
            async for _ in self._agent.client.follow(joined):
                self._agent.happened.ring()
                if not self._follows(joined):
                    break
        except PrivatePathFailed:
            # No WebSocket, or not any more: the long poll goes the same private way, and says if that is gone too.
            if await self._agent.client.sync(joined, wait=WAIT_SECONDS):
                self._agent.happened.ring()
        return False

    # --- invitations, requests -----------------------------------------------------------------------

    async def _look_for_invitations(self) -> bool:
        agent, loop = self._agent, asyncio.get_running_loop()
        started, rung = loop.time(), agent.wanted.rung
        found = await agent.client.check_invitations(wait=LOOK_SECONDS)
        for joined in found:
            contact = contact_in(agent.client, joined)
            said = "connected with" if contact else "added to the room"
            agent.client.notices.add(f"{said} {label(agent.client, joined)}", agent.clock())
        if found:
            self.tend_soon()  # a KeyPackage was used: there is to be another one
            agent.happened.ring()
        elif loop.time() - started < 1.0:  # there was nothing to wait for
            await agent.wanted.wait(LOOK_SECONDS, after=rung)
        return False

    async def _errands(self) -> bool:
        """Tend what is due, hear of requests, and wait for answers to one's own."""
        agent = self._agent
        if asyncio.get_running_loop().time() - self._tended > TEND_SECONDS:
            await self.tend()
        rung = agent.wanted.rung
        await agent.refresh_requests()
        if not await self._await_answers():
            await agent.wanted.wait(LOOK_SECONDS, after=rung)
        return False

    def tend_soon(self) -> None:
        """There is something for the client to do."""
        self._tended = float("-inf")
        self._agent.wanted.ring()

    async def tend(self) -> None:
        """Have the client do what is due."""
        async with self._answers, self._codes:
            self._tended = asyncio.get_running_loop().time()
            await self._agent.client.tend()
        del self._agent.client.refused[:-KEPT_REFUSALS]
        self._agent.wanted.ring()  # there may be KeyPackages out that nobody looks after yet
        self._agent.happened.ring()

    async def _await_answers(self) -> bool:
        """A long poll for each request that is out; whether there was one."""
        agent = self._agent
        async with self._answers:
            waiting = list(agent.client.outgoing.values())
            looks = [agent.client.complete_connection(request, wait=LOOK_SECONDS) for request in waiting]
            answers = await asyncio.gather(*looks, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            if answer is not None:
                agent.client.notices.add(f"{answer.user} accepted: you are connected", agent.clock())
                agent.happened.ring()
                self.tend_soon()  # there is a shelf to fill
        return bool(waiting)

    # --- devices -------------------------------------------------------------------------------------

    def await_device(self, invitation: DeviceInvitation) -> None:
        """Go on with whoever types a device code, until they are in or it has expired."""
        self._run(invitation, "waiting for a further device", partial(self._go_on_with, invitation))

    async def _go_on_with(self, invitation: DeviceInvitation) -> bool:
        async with self._codes:
            done = await self._agent.client.tend_invitation(invitation, wait=LOOK_SECONDS)
        if done:
            self._agent.happened.ring()
            self.tend_soon()
        return done or invitation.expiry < self._agent.clock()
