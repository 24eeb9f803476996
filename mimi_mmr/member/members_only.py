"""The members-only state of a room: sealed with a commit, and opened by the members who follow it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mimi_mmr.errors import StateRejected
from mimi_mmr.member.local import LocalRoom, OpenedState
from mimi_mmr.protocol.room.members_only import (
    STATE_SECRET,
    MembersOnlyState,
    StateSecret,
    open_state,
    seal_state,
)
from treewrap import Change, RoomSecret, SetRoomSecret


@dataclass(frozen=True, slots=True)
class SealedForCommit:
    """The newly sealed state with the room secret for the Tree Wrap root, or neither."""

    sealed: bytes | None = field(default=None, repr=False)
    changes: tuple[Change, ...] = ()


class MembersOnly:
    """The part of a room that seals and opens what members share: its name, its topic, its join links."""

    def __init__(self, local: LocalRoom) -> None:
        self._local = local

    @property
    def state(self) -> MembersOnlyState:
        """The state; the last one that opened if newer ones do not."""
        return self._local.members_only.state

    @property
    def sealed(self) -> bytes | None:
        """The sealed state that the hub stores; None in a room that never had one."""
        return self._local.members_only.sealed

    @property
    def stale(self) -> bool:
        """Whether a member sealed it wrongly, so that this member's next commit seals it anew."""
        return self._local.members_only.stale

    def secret(self) -> StateSecret | None:
        """Return the room secret that the state is sealed under; None if the Tree Wrap root has none."""
        try:
            return StateSecret(self._local.tree.room_secret(STATE_SECRET).reveal())
        except KeyError:
            return None

    def seal(
        self, epoch: int, state: MembersOnlyState | None, *, removes: bool, renews: bool = False
    ) -> SealedForCommit:
        """Seal for the epoch that a commit begins: `state`, or the current one if that needs a fresh secret.

        A removal needs a fresh secret and ends all join links, because the removed member knows both.
        With `renews`, the commit ends the current secret for another reason.
        """
        if state is None and not (self.sealed is not None and (removes or renews or self.stale)):
            return SealedForCommit()
        state = state or self.state
        state = replace(state, links=()) if removes else state
        secret = StateSecret.generate()
        change = SetRoomSecret(STATE_SECRET, RoomSecret(secret.reveal()))
        return SealedForCommit(seal_state(state, secret, self._local.uri, epoch), (change,))

    def open(self, sealed: bytes) -> MembersOnlyState:
        """Open a sealed state under the current secret; raise `StateRejected`."""
        secret = self.secret()
        if secret is None:
            raise StateRejected("the Tree Wrap root has no secret for the members-only state")
        return open_state(sealed, secret, self._local.uri)

    def take(self, sealed: bytes | None) -> str:
        """Take over the state of a commit or snapshot, or check the current one; return its problem, or ""."""
        held = self._local.members_only
        current = held.sealed if sealed is None else sealed
        state, problem = held.state, ""
        if current is not None:
            try:
                state = self.open(current)
            except StateRejected as error:
                problem = str(error)
        stale = bool(problem) or (held.stale and sealed is None)
        self._local.members_only = OpenedState(current, state, stale)
        return problem

    def follow(self, sealed: bytes | None, before: StateSecret | None, *, removes: bool) -> str:
        """Take over the state of another member's commit; return what is wrong with it, or "".

        `before` is the secret of the previous epoch: a removed member can open what is sealed under it.
        """
        same = self.secret() == before
        if same and sealed is None and not removes:
            return ""
        problem = self.take(sealed)
        if not problem and same and self.sealed is not None:
            problem = "the members-only state is under a secret that was used before"
        state = self.state
        if not problem and removes and state.links:
            state = replace(state, links=())
            problem = "the members-only state still has join links, which end with a removal"
        self._local.members_only = OpenedState(self.sealed, state, self.stale or bool(problem))
        return problem
