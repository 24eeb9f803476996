"""What members share and the hub can't read, and the join links that stand there."""

from __future__ import annotations

from dataclasses import replace

from mimi_mmr.errors import JoinRefused, NotAllowed, StateRejected
from mimi_mmr.member.members import Members
from mimi_mmr.protocol.key_packages import OpenKeyPackage, check_set
from mimi_mmr.protocol.room.join_links import JoinLink, LinkSeed, LiveLink, open_join_request
from mimi_mmr.protocol.room.link_orders import (
    MAX_USES,
    JoinRequest,
    LinkKind,
    LinkOrder,
    LinkOrderTBS,
    sign_link_order,
)
from mimi_mmr.protocol.room.members_only import (
    STATE_SECRET,
    MembersOnlyState,
    StateSecret,
    open_state,
    seal_state,
)
from treewrap import Change, RoomSecret, SetRoomSecret


class Shared(Members):
    """A room with its members-only state."""

    __slots__ = ()

    @property
    def state(self) -> MembersOnlyState:
        """What members share: name, topic, join links; as it was last if what came since does not open."""
        return self._state

    def _seal_state(
        self, epoch: int, state: MembersOnlyState | None, *, removes: bool
    ) -> tuple[bytes | None, list[Change]]:
        """The members-only state sealed for the coming epoch, if need be, with the room secret that it takes."""
        stale = self._sealed_state is not None and (removes or self._state_stale)
        if state is None and not stale:
            return None, []
        state = state or self._state
        state = replace(state, links=()) if removes else state
        secret = StateSecret.generate()
        change = SetRoomSecret(STATE_SECRET, RoomSecret(secret.reveal()))
        return seal_state(state, secret, self.uri, epoch), [change]

    def _state_secret(self) -> StateSecret | None:
        try:
            return StateSecret(self._tree.room_secret(STATE_SECRET).reveal())
        except KeyError:
            return None

    def _open_state(self, sealed: bytes) -> MembersOnlyState:
        secret = self._state_secret()
        if secret is None:
            raise StateRejected("the Tree Wrap root has no secret for the members-only state")
        return open_state(sealed, secret, self.uri)

    def _take_state(self, sealed: bytes | None) -> str:
        """Take over what a commit or a snapshot brought, or check what there is; what is wrong with it, or ""."""
        if sealed is not None:
            self._sealed_state = sealed
        problem = ""
        if self._sealed_state is not None:
            try:
                self._state = self._open_state(self._sealed_state)
            except StateRejected as error:
                problem = str(error)
        self._state_stale = bool(problem) or (self._state_stale and sealed is None)
        return problem

    # --- join links -----------------------------------------------------------------------------------------

    def make_link(self, expiry: int, uses: int) -> LiveLink:
        """A link that lets `uses` people ask to join until `expiry` (seconds); raises `NotAllowed`.

        It lives once it stands in the members-only state (`state_with_link`), and then the hub has its order
        (`link_order`); that way round, or a request might come that no member can open.
        """
        credential = self._leaf.identity.credential
        self.policy.policy.allow_invite(credential.user_pseudonym)
        if not 0 < uses <= MAX_USES:
            raise NotAllowed(f"a join link is for 1 to {MAX_USES} uses, not {uses}")
        return LiveLink(LinkSeed.generate().reveal(), credential.client_pseudonym, expiry, uses)

    def state_with_link(self, live: LiveLink, now: float) -> MembersOnlyState:
        """The members-only state with one more link, and without those that have expired."""
        links = (one for one in self._state.links if one.expiry > now)
        return replace(self._state, links=(*links, live))

    def join_link(self, live: LiveLink) -> JoinLink:
        """What to give to people."""
        return live.link(self.uri, self.policy.policy.identities)

    def link_order(self, live: LiveLink, kind: LinkKind = LinkKind.CREATE) -> LinkOrder:
        """Tell the hub of a link, or revoke it; for the room's current epoch."""
        link = self.join_link(live)
        key = link.signing_key.public
        content = LinkOrderTBS(
            self.uri, self.epoch, self.own_leaf, kind, link.id, key, live.expiry, live.uses_left
        )
        return sign_link_order(content, self._leaf.key)

    def open_join_request(self, event: JoinRequest, now: float) -> list[OpenKeyPackage]:
        """The KeyPackages of somebody who asks to join by one of the room's links, to be added in one commit.

        Raises `JoinRefused`; `IdentityError`, `ParseError` or `InvalidCommit` if they are not a sound set. Stage
        the Add with `state_after_join`, which counts the use: the hub's count is its own.
        """
        live, link = self._live_link(event)
        live.check(now)
        event.verify(link.signing_key.public)
        packages = open_join_request(link, event.content.box)
        leaves = check_set([package.key_package for package in packages], now)
        if self.clients() & {leaf.credential.client_pseudonym for leaf in leaves}:
            raise JoinRefused("whoever asks to join has been added already")
        return list(packages)

    def state_after_join(self, event: JoinRequest) -> MembersOnlyState:
        """The members-only state with one use of the request's link less; raises `JoinRefused`."""
        live, _ = self._live_link(event)
        links = (one.used() if one == live else one for one in self._state.links)
        return replace(self._state, links=tuple(one for one in links if one.uses_left))

    def _live_link(self, event: JoinRequest) -> tuple[LiveLink, JoinLink]:
        for live in self._state.links:
            link = self.join_link(live)
            if (event.content.room, event.content.link_id) == (self.uri, link.id):
                return live, link
        raise JoinRefused("a request to join by none of the room's links")
