"""The rooms of this client: the part that an application sees."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.rooms.adding import Adding, Waiting
from mimi_mmr.client.rooms.adding_again import AddingAgain
from mimi_mmr.client.rooms.assets import Assets
from mimi_mmr.client.rooms.commits import Commits
from mimi_mmr.client.rooms.creating import Creating
from mimi_mmr.client.rooms.delivery import CommitDelivery
from mimi_mmr.client.rooms.invitations import Invitations
from mimi_mmr.client.rooms.join_links import RoomLinks
from mimi_mmr.client.rooms.joining import Joining
from mimi_mmr.client.rooms.leaving import Leaving
from mimi_mmr.client.rooms.lost_keys import LostKeys
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.pseudonyms import Pseudonyms
from mimi_mmr.client.rooms.reading import Reading
from mimi_mmr.client.rooms.roster import Roster
from mimi_mmr.client.rooms.sending import Sending
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.whois import Whois
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.queues import QueuePage
from mimi_mmr.protocol.room.join_links import JoinLink
from mimi_mmr.protocol.room.members_only import MembersOnlyState
from mimi_mmr.protocol.room.policy import Identities, Role
from mimi_mmr.uris import MimiUri
from treewrap import DEFAULT_ARITY


class Rooms(Mapping[MimiUri, Membership]):
    """The rooms that this client is in, by URI. `links` are their join links, `assets` the files in them."""

    def __init__(
        self,
        *,
        memberships: Memberships,
        roster: Roster,
        delivery: CommitDelivery,
        reading: Reading,
        commits: Commits,
        sending: Sending,
        assets: Assets,
        creating: Creating,
        adding: Adding,
        joining: Joining,
        invitations: Invitations,
        leaving: Leaving,
        pseudonyms: Pseudonyms,
        links: RoomLinks,
        lost_keys: LostKeys,
        adding_again: AddingAgain,
    ) -> None:
        """Hold the parts; all but `links` and `assets` are internal."""
        self.memberships = memberships
        self.roster = roster
        self.delivery = delivery
        self.reading = reading
        self.commits = commits
        self.sending = sending
        self.assets = assets
        self.creating = creating
        self.adding = adding
        self.joining = joining
        self.invitations = invitations
        self.leaving = leaving
        self.pseudonyms = pseudonyms
        self.links = links
        self.lost_keys = lost_keys
        self.adding_again = adding_again

    # --- which there are -----------------------------------------------------------------------------

    def __getitem__(self, room: MimiUri) -> Membership:
        return self.memberships[room]

    def __iter__(self) -> Iterator[MimiUri]:
        return iter(self.memberships)

    def __len__(self) -> int:
        return len(self.memberships)

    # --- coming in -----------------------------------------------------------------------------------

    async def create(
        self, identities: Identities = Identities.EVERYONE, arity: int = DEFAULT_ARITY, *, name: str = ""
    ) -> Membership:
        """Make a minimal metadata room on the user's own provider, with this user as admin."""
        return await self.creating.create(identities, arity, name=name)

    async def check_invitations(self, wait: float = 0.0) -> list[Membership]:
        """Join the rooms that others have added this client to; wait up to `wait` seconds for one."""
        return await self.invitations.check(wait)

    async def join(self, link: JoinLink | str, wait: float = 60.0) -> Membership:
        """Join a room by a join link; see `RoomLinks.join`."""
        return await self.links.join(link, wait)

    # --- reading and writing -------------------------------------------------------------------------

    async def sync(self, membership: Membership, wait: float = 0.0) -> int:
        """Process a room's queue, waiting up to `wait` seconds for events; return how many events were taken."""
        return await self.reading.sync(membership, wait)

    async def read_all(self, membership: Membership) -> None:
        """Process a room's queue to its end."""
        await self.reading.read_all(membership)

    def follow(self, membership: Membership) -> AsyncIterator[int]:
        """Process a room's queue continuously over a WebSocket; see `Reading.follow`."""
        return self.reading.follow(membership)

    async def take_page(self, membership: Membership, page: QueuePage) -> int:
        """Process a page of a room's queue that the caller has collected; return how many events were taken."""
        return await self.reading.take_page(membership, page)

    async def send(self, membership: Membership, content: Content | str) -> None:
        """Send a message to the room; it is encrypted again if a commit was accepted meanwhile."""
        await self.sending.send(membership, content)

    # --- members -------------------------------------------------------------------------------------

    def who(self, membership: Membership, progress: Callable[[int, int], None] | None = None) -> list[Whois]:
        """Return every member, resolved as far as policy and credentials allow; `progress` gets (done, total).

        Contacts' identity keys are checked: a contact's user name with another identity key is unverified in every
        room.
        """
        return self.roster.who(membership.room, progress)

    async def add(
        self, membership: Membership, contacts: Sequence[Contact], waiting: Waiting | None = None
    ) -> list[MimiUri]:
        """Add contacts who are not in the room yet; may be called again when an answer was lost.

        Returns whom it added.

        Their KeyPackages may be valid only later by this device's clock, if their clock is ahead. This waits for
        that, up to an hour, and calls `waiting` before, with a `NotYet` that says how long and why.
        """
        return await self.adding.add(membership, contacts, waiting or self.adding.notify)

    async def remove(self, membership: Membership, leaves: Sequence[int]) -> None:
        """Remove members by leaf. Another member who has taken such a leaf meanwhile stays.

        Raises `RoomError` if nobody is at one of the leaves.
        """
        members = membership.room.members
        await self.commits.commit(membership, CommitIntent(removes=members.at(leaves)))

    async def make_admin(self, membership: Membership, user: MimiUri, *, admin: bool = True) -> None:
        """Give a user pseudonym the role ADMIN, or take it away, as an admin."""
        await self.leaving.set_role(membership, user, Role.ADMIN if admin else Role.MEMBER)

    async def leave(self, membership: Membership) -> None:
        """Ask to be removed with every device of this user; another member commits the removal later."""
        await self.leaving.leave(membership)

    async def forget(self, membership: Membership) -> None:
        """Delete a room that this client is no longer in, with its messages."""
        await self.memberships.forget(membership)

    # --- the room itself -----------------------------------------------------------------------------

    async def rename(self, membership: Membership, name: str, topic: str | None = None) -> None:
        """Give the room a name (and a topic) that only members can read."""

        def renamed(state: MembersOnlyState) -> MembersOnlyState:
            return replace(state, name=name, topic=state.topic if topic is None else topic)

        await self.commits.commit(membership, CommitIntent(state=renamed))

    async def reveal(self, membership: Membership) -> None:
        """Show this user's identity in a room whose policy hides it; this can't be undone."""
        await self.commits.commit(membership, CommitIntent(reveal=True))

    async def heal(self, membership: Membership) -> None:
        """Replace the keys on this leaf's path.

        Somebody who knows the old keys then can't follow the room any more.
        """
        await self.commits.commit(membership)

    async def reopen(self, membership: Membership) -> None:
        """Have the hub undo the last commit, as an admin, since members can't process it; then heal."""
        await self.commits.reopen(membership)

    async def change_pseudonym(self, membership: Membership) -> None:
        """Take a fresh pseudonym and a fresh leaf in a room; see `Pseudonyms.change`."""
        await self.pseudonyms.change(membership)
