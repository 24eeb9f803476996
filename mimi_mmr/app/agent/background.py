"""An agent's background tasks: follow rooms, look for invitations and requests, and tend the client."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from mimi_mmr.app.agent.account import AccountHolder
from mimi_mmr.app.agent.connection_requests import ConnectionRequests
from mimi_mmr.app.agent.wakeup import Wakeup
from mimi_mmr.app.commands.names import contact_in, label
from mimi_mmr.client import Client, DeviceInvitation, Membership
from mimi_mmr.errors import MmrError, PrivatePathFailed, StateError
from mimi_mmr.uris import MimiUri

log = logging.getLogger(__name__)

WAIT_SECONDS = 20.0  # seconds of a long poll
SPREAD_SECONDS = 5.0
LOOK_SECONDS = 10.0  # seconds between looks for requests; `wake` starts the next look at once
TEND_SECONDS = 300.0
FIRST_RETRY, LAST_RETRY = 1.0, 60.0
READ_SECONDS = 10.0  # seconds that a command waits for the room that it names
ROOMS, INVITATIONS = "following rooms", "looking for invitations"
ERRANDS = "looking for requests and answers"

Work = Callable[[], Awaitable[bool]]  # returns whether the work is finished


class Background:
    """Tasks that live as long as the agent.

    A failed task is tried again after growing pauses; `trouble` says what fails, and why.
    """

    def __init__(
        self,
        account: AccountHolder,
        requests: ConnectionRequests,
        changed: Wakeup,
        clock: Callable[[], float],
    ) -> None:
        self._failing: dict[object, str] = {}  # why, by the key of the task
        self._account = account
        self._requests = requests
        self._changed = changed
        self._clock = clock
        self._wanted = Wakeup()
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self._tended = float("-inf")
        self._looked = asyncio.Event()  # once invitations were looked for
        # Locks for two kinds of work that `tend` does, too: two tasks must not do them at the same time.
        self._answers = asyncio.Lock()
        self._codes = asyncio.Lock()

    @property
    def _client(self) -> Client:
        return self._account.client

    def start(self) -> None:
        """Start the tasks that do not run yet, once there is an account."""
        self._run(ROOMS, self._watch_rooms)
        self._run(INVITATIONS, self._look_for_invitations)
        self._run(ERRANDS, self._errands)

    async def stop(self) -> None:
        """End all tasks. The next agent fetches again what they had not stored yet."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """Have all tasks look for work now."""
        self._wanted.wake()

    @property
    def trouble(self) -> dict[str, str]:
        """What does not work at the moment, as people call it now, and why."""
        return {self._what(key): why for key, why in self._failing.items()}

    def _what(self, key: object) -> str:
        if isinstance(key, DeviceInvitation):
            return "waiting for a further device"
        room = self._client.rooms.get(key) if isinstance(key, MimiUri) else None
        if room is None:
            return str(key)
        own = room is self._client.devices.room
        return f"following {'the other devices' if own else label(self._client, room)}"

    def _run(self, key: object, work: Work) -> None:
        """Do `work` again and again, as the task of this key, unless that task runs already.

        A key is a room's URI, an invitation of a device, or what the task does in people's words.
        """
        if key in self._tasks:
            return
        task = self._tasks[key] = asyncio.create_task(self._repeat(key, work))
        task.add_done_callback(lambda _: self._tasks.pop(key))

    async def _repeat(self, key: object, work: Work) -> None:
        retry, done = FIRST_RETRY, False
        while not done:
            try:
                done = await work()
            except MmrError as error:
                log.info("a background task is to be tried again: %s", error.code)
                self._failing[key] = str(error)
            except Exception as error:
                # without the traceback, which may hold secrets
                log.error("a background task failed: %s", type(error).__name__)  # noqa: TRY400
                self._failing[key] = f"{type(error).__name__}, which is a defect"
            else:
                retry = FIRST_RETRY
                self._failing.pop(key, None)
                continue
            await self._wanted.wait(retry)
            retry = min(2 * retry, LAST_RETRY)

    # --- rooms ---------------------------------------------------------------------------------------

    async def _watch_rooms(self) -> bool:
        """Keep one task running for each queue of the current rooms."""
        seen = self._changed.count
        for membership in list(self._client.rooms.values()):
            if membership.uri not in self._tasks and self._follows(membership):
                self._run(membership.uri, partial(self._follow, membership.uri))
        await self._changed.wait(LOOK_SECONDS, after=seen)
        return False

    def _follows(self, membership: Membership) -> bool:
        """Return whether to follow this room: only one of the rooms that share a queue is followed."""
        first = next(other for other in self._client.rooms.values() if other.queue is membership.queue)
        return first is membership and not membership.room.removed

    async def _follow(self, uri: MimiUri) -> bool:
        membership = self._client.rooms.get(uri)
        if membership is None or not self._follows(membership):
            return True
        await self._client.rooms.sync(membership)
        self._failing.pop(uri, None)  # the next page may take long to come
        self._changed.wake()
        try:
            # Random pause: sockets that all open when an agent starts could be linked to one client.
            if await self._client.rooms.sync(
                membership, wait=SPREAD_SECONDS * secrets.randbelow(1000) / 1000
            ):
                self._changed.wake()
            async for _ in self._client.rooms.follow(membership):
                self._changed.wake()
                if not self._follows(membership):
                    break
        except PrivatePathFailed:
            # The WebSocket failed. The long poll uses the same private path, and raises if that fails, too.
            if await self._client.rooms.sync(membership, wait=WAIT_SECONDS):
                self._changed.wake()
        return False

    async def read_now(self, membership: Membership) -> str | None:
        """Read a room from the provider, unless it is being followed already.

        Returns None, or why it could not be read within `READ_SECONDS` and as of when it is known.
        """
        queue = membership.queue
        sharing = (other.uri for other in self._client.rooms.values() if other.queue is queue)
        if membership.removed or (queue.read_at and self._failing.keys().isdisjoint(sharing)):
            return None
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._client.rooms.read_all(membership)
        except StateError:
            raise
        except MmrError as error:
            why = str(error)
        except TimeoutError:
            why = f"no answer within {READ_SECONDS:g} s"
        else:
            return None
        when = "before this agent started"
        if queue.read_at:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(queue.read_at))
        return f"the provider could not be asked ({why}); it was last read to its end {when}"

    # --- invitations, requests -----------------------------------------------------------------------

    async def _look_for_invitations(self) -> bool:
        loop = asyncio.get_running_loop()
        started, seen = loop.time(), self._wanted.count
        wait = LOOK_SECONDS if self._looked.is_set() else 0.0
        try:
            found = await self._client.rooms.check_invitations(wait)
        finally:
            self._looked.set()
        for membership in found:
            said = "connected with" if contact_in(self._client, membership) else "added to the room"
            self._client.notices.add(f"{said} {label(self._client, membership)}", self._clock())
        if found:
            self.tend_soon()  # a KeyPackage was used and has to be replaced
            self._changed.wake()
        elif wait and loop.time() - started < 1.0:  # no KeyPackage is outstanding
            await self._wanted.wait(LOOK_SECONDS, after=seen)
        return False

    async def first_look(self) -> None:
        """Wait until invitations were looked for once since the start, at most `READ_SECONDS`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(READ_SECONDS):
                await self._looked.wait()

    async def _errands(self) -> bool:
        """Tend the client if that is due, look for requests, and wait for responses to this user's requests."""
        if asyncio.get_running_loop().time() - self._tended > TEND_SECONDS:
            await self._tend()
        seen = self._wanted.count
        await self._requests.refresh()
        if not await self._await_answers():
            await self._wanted.wait(LOOK_SECONDS, after=seen)
        return False

    def tend_soon(self) -> None:
        """Have the client tended as soon as possible, since there is work for it."""
        self._tended = float("-inf")
        self._wanted.wake()

    async def _tend(self) -> None:
        async with self._answers, self._codes:
            self._tended = asyncio.get_running_loop().time()
            await self._client.tend()
        self._wanted.wake()  # there may be outstanding KeyPackages that no task watches yet
        self._changed.wake()

    async def _await_answers(self) -> bool:
        """Make a long poll for each open request to connect; return whether there was one."""
        async with self._answers:
            waiting = list(self._client.people.outgoing.values())
            looks = [
                self._client.people.complete_connection(request, wait=LOOK_SECONDS) for request in waiting
            ]
            answers = await asyncio.gather(*looks, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            if answer is not None:
                self._client.notices.add(f"{answer.user} accepted: you are connected", self._clock())
                self._changed.wake()
                self.tend_soon()  # KeyPackages have to be published for the new contact
        return bool(waiting)

    # --- devices -------------------------------------------------------------------------------------

    def await_device(self, invitation: DeviceInvitation) -> None:
        """Serve a device code in a task, until the device was added or the code has expired."""
        self._run(invitation, partial(self._let_in, invitation))

    async def _let_in(self, invitation: DeviceInvitation) -> bool:
        async with self._codes:
            done = await self._client.devices.tend_invitation(invitation, wait=LOOK_SECONDS)
        if done:
            self._changed.wake()
            self.tend_soon()
        return done or invitation.expiry < self._clock()
