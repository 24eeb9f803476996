"""The attack of Bob after his removal: he tries all secrets he kept on the hub's public tree of every epoch."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mimi_mmr.crypto.secret import IdentityLinkKey
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import LinkRejected
from mimi_mmr.hub.state import HubRoom
from mimi_mmr.mls.engine import MlsClient, MlsEngine, MlsGroup
from mimi_mmr.mls.mls_rs import MlsRsEngine
from mimi_mmr.protocol.credentials import PseudonymousCredential, open_link
from treewrap import EpochSecret, TreeWrapError, WrapTree


@dataclass(slots=True)
class HoardingEngine:
    """An MLS engine that keeps every secret it ever exports."""

    kept: list[bytes] = field(default_factory=list, repr=False)
    _inner: MlsEngine = field(default_factory=MlsRsEngine)

    def client(
        self, identity: bytes, key: SigningKey, rows: MutableMapping[bytes, bytes] | None = None
    ) -> MlsClient:
        """Make a client whose groups keep every epoch's secrets."""
        return _HoardingClient(self._inner.client(identity, key, rows), self.kept)


class _HoardingClient:
    def __init__(self, inner: MlsClient, kept: list[bytes]) -> None:
        self._inner = inner
        self._kept = kept

    def key_package(self) -> bytes:
        return self._inner.key_package()

    def create_group(self, group_id: bytes) -> MlsGroup:
        return _hoarding(self._inner.create_group(group_id), self._kept)

    def join(self, welcome: bytes, ratchet_tree: bytes) -> MlsGroup:
        return _hoarding(self._inner.join(welcome, ratchet_tree), self._kept)

    def load(self, group_id: bytes) -> MlsGroup:
        return _hoarding(self._inner.load(group_id), self._kept)


class _HoardingGroup:
    def __init__(self, inner: MlsGroup, kept: list[bytes]) -> None:
        self._inner = inner
        self._kept = kept

    def export_secret(self, label: bytes, context: bytes, length: int) -> bytes:
        secret = self._inner.export_secret(label, context, length)
        self._kept.append(secret)
        return secret

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _hoarding(inner: MlsGroup, kept: list[bytes]) -> MlsGroup:
    group: Any = _HoardingGroup(inner, kept)
    hoarding: MlsGroup = group
    return hoarding


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of the attack: trees opened by epoch, link keys learnt, keys tried on the target, the outcome."""

    opened_epochs: tuple[int, ...]
    tried: int
    resolved: bool


def attack(kept: Sequence[bytes], epochs: Sequence[HubRoom], target: PseudonymousCredential) -> Attempt:
    """Try every kept secret on every epoch's tree, and then every key learnt on the target's identity link."""
    keys: set[bytes] = set(kept)
    opened = set()
    for state in epochs:
        for secret in kept:
            tree = _open(state, secret)
            if tree is not None:
                opened.add(state.epoch)
                keys |= {tree.secret(leaf).reveal() for leaf in tree.leaves()}
    resolved = any(_opens(target, key) for key in keys)
    return Attempt(tuple(sorted(opened)), len(keys), resolved)


def _open(state: HubRoom, secret: bytes) -> WrapTree | None:
    try:
        return WrapTree.open(state.wrap, EpochSecret(secret), state.wrap.tree_hash)
    except TreeWrapError:
        return None


def _opens(target: PseudonymousCredential, key: bytes) -> bool:
    try:
        open_link(target, IdentityLinkKey(key))
    except LinkRejected:
        return False
    return True
