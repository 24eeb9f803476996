"""What an agent does by itself: follow rooms, look for invitations and requests, and tend the client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from mimi_mmr.client import DeviceInvitation, Joined
from mimi_mmr.errors import MmrError
from mimi_mmr.uris import MimiUri

if TYPE_CHECKING:
    from mimi_mmr.agent.agent import Agent

log = logging.getLogger(__name__)

WAIT_SECONDS = 20.0  # of a long poll
LOOK_SECONDS = 10.0  # between looks for requests; a command that wants one has it looked for at once
TEND_SECONDS = 300.0
KEPT_REFUSALS = 100
FIRST_RETRY, LAST_RETRY = 1.0, 60.0


class Background:
    """Tasks that live as long as the agent. What fails is tried again, ever later; `trouble` says what."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._tasks: dict[object, asyncio.Task[None]] = {}
        # What `tend` does too must not be done by two at once.
        self._answers = asyncio.Lock()
        self._codes = asyncio.Lock()
        self._tended = float("-inf")
        self.trouble: dict[str, str] = {}

    def start(self) -> None:
        """Begin; once there is an account."""
        self._run("rooms", self._watch_rooms())
        self._run("invitations", self._again_and_again("invitations", self._look_for_invitations))
        self._run("errands", self._again_and_again("errands", self._errands))

    async def stop(self) -> None:
        """End all of it; what was not written is asked for again by the next agent."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    def _run(self, key: object, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[key] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._tasks.pop(key, None) if self._tasks.get(key) is task else None)

    async def _again_and_again(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        retry = FIRST_RETRY
        while True:
            try:
                await work()
            except MmrError as error:
                log.info("a background task is to be tried again: %s", error.code)
                self.trouble[what] = str(error)
            except Exception as error:
                log.error("a background task failed: %s", type(error).__name__)  # noqa: TRY400  # a traceback may hold anything
                self.trouble[what] = f"{type(error).__name__}, which is a defect"
            else:
                retry = FIRST_RETRY
                self.trouble.pop(what, None)
                continue
            await self._agent.wanted.wait(retry)
            retry = min(2 * retry, LAST_RETRY)

    # --- rooms ---------------------------------------------------------------------------------------

    async def _watch_rooms(self) -> None:
        """One task for each queue; rooms come and go."""
        while True:
            for joined in list(self._agent.client.rooms.values()):
                key = joined.uri
                if self._follows(joined) and key not in self._tasks:
                    self._run(key, self._follow(key))
            await self._agent.happened.wait(LOOK_SECONDS)

    def _follows(self, joined: Joined) -> bool:
        """Whether a room is to be followed here: several rooms may share a queue, and one is enough."""
        first = next(other for other in self._agent.client.rooms.values() if other.inbox is joined.inbox)
        return first is joined and not joined.room.removed

    async def _follow(self, uri: MimiUri) -> None:
        async def once() -> None:
            joined = self._agent.client.rooms.get(uri)
            if joined is None or not self._follows(joined):
                raise asyncio.CancelledError
            if await self._agent.client.sync(joined, wait=WAIT_SECONDS):
                self._agent.happened.ring()

        await self._again_and_again(str(uri), once)

    # --- invitations, requests -----------------------------------------------------------------------

    async def _look_for_invitations(self) -> None:
        agent, started = self._agent, asyncio.get_running_loop().time()
        found = await agent.client.check_invitations(wait=LOOK_SECONDS)
        for joined in found:
            self._notice_room(joined)
        if found:
            self.tend_soon()  # a KeyPackage was used: there is to be another one
            agent.happened.ring()
        elif asyncio.get_running_loop().time() - started < 1.0:  # there was nothing to wait for
            await agent.wanted.wait(LOOK_SECONDS)

    def _notice_room(self, joined: Joined) -> None:
        agent = self._agent
        contacts = agent.client.contacts.values()
        contact = next((contact for contact in contacts if contact.room == joined.uri), None)
        if contact is not None:
            said = f"connected with {contact.user}"
        else:
            said = f"added to the room {joined.room.state.name or joined.uri.name[:8]}"
        agent.client.notices.add(said, agent.clock())

    async def _errands(self) -> None:
        """Tend what is due, hear of requests, and wait for answers to one's own."""
        agent = self._agent
        loop = asyncio.get_running_loop()
        if loop.time() - self._tended > TEND_SECONDS:
            await self.tend()
            agent.happened.ring()
        await agent.refresh_requests()
        if not await self._await_answers():
            await agent.wanted.wait(LOOK_SECONDS)

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

        async def once() -> None:
            async with self._codes:
                done = await self._agent.client.tend_invitation(invitation, wait=LOOK_SECONDS)
            if done or invitation.expiry < self._agent.clock():
                self._agent.happened.ring()
                self._agent.wanted.ring()
                raise asyncio.CancelledError

        self._run(invitation, self._again_and_again("a further device", once))
