"""Names that a shell completes. These requests have no words on the command line: only completion makes them."""

from __future__ import annotations

from mimi_mmr.app.commands.context import AgentContext, Say
from mimi_mmr.app.commands.model import Command
from mimi_mmr.app.commands.names import address, people_rooms, room_names, short_id


class RoomNames(Command, name="complete.rooms", line="", result=list[str]):
    """List what rooms may be called: names that only one room has, and every id."""

    async def run(self, agent: AgentContext, say: Say) -> list[str]:
        """Return the names, sorted."""
        client = agent.client
        rooms = people_rooms(client)
        names = [name for membership in rooms for name in room_names(client, membership)]
        once = {name for name in names if names.count(name) == 1 and "://" not in name}
        return sorted(once | {short_id(membership.uri) for membership in rooms})


class UserNames(Command, name="complete.users", line="", result=list[str]):
    """List contacts, and people with an open request to or from this user."""

    async def run(self, agent: AgentContext, say: Say) -> list[str]:
        """Return their addresses, sorted."""
        client = agent.client
        asking = (incoming.device.user for incoming in agent.requests.known)
        return sorted({address(user) for user in (*client.people.contacts, *client.people.outgoing, *asking)})


COMMANDS: tuple[type[Command], ...] = (RoomNames, UserNames)
