"""Names that a shell completes. These requests have no words on the command line: only completion makes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mimi_mmr.app.commands.context import AgentContext, Say
from mimi_mmr.app.commands.model import Command
from mimi_mmr.app.commands.names import address, own_name, people_rooms, short_id


class RoomNames(Command, name="complete.rooms", line="", result=list[str]):
    """List what rooms may be called: names that only one has, the contacts of direct rooms, and every id."""

    async def run(self, agent: AgentContext, say: Say) -> list[str]:
        """Return the names, sorted."""
        client = agent.client
        rooms, contacts = people_rooms(client), client.people.contacts
        direct = {user for user, contact in contacts.items() if contact.room is not None}
        ids = {short_id(membership.uri) for membership in rooms}
        names = Counter([own_name(membership) for membership in rooms] + [user.name for user in contacts])
        elsewhere = {user.name for user in contacts} - {user.name for user in direct}
        clear = {
            name
            for name, count in names.items()
            if name and count == 1 and name not in elsewhere and not _begins_one(name, ids)
        }
        return sorted(clear | {address(user) for user in direct} | ids)


def _begins_one(name: str, ids: Iterable[str]) -> bool:
    return any(known.startswith(name.lower()) for known in ids)


class UserNames(Command, name="complete.users", line="", result=list[str]):
    """List contacts, and people with an open request to or from this user."""

    async def run(self, agent: AgentContext, say: Say) -> list[str]:
        """Return their addresses, sorted."""
        client = agent.client
        asking = (incoming.device.user for incoming in agent.requests.known)
        return sorted({address(user) for user in (*client.people.contacts, *client.people.outgoing, *asking)})


COMMANDS: tuple[type[Command], ...] = (RoomNames, UserNames)
