"""A vault behaves like a dict of dicts that can be taken back."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.errors import StateError

NAMES = st.sampled_from(["contacts", "rooms", "", "room\x00s"])
KEYS = st.binary(max_size=3)
VALUES = st.binary(max_size=600)


class LikeDicts(RuleBasedStateMachine):
    """Every rule does the same to a vault and to dicts; transactions nest, and go or stay as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.vault = Vault.in_memory()
        self.model: dict[str, dict[bytes, bytes]] = {}
        self.open: list[tuple[AbstractContextManager[None], dict[str, dict[bytes, bytes]]]] = []

    def teardown(self) -> None:
        for transaction, _ in reversed(self.open):
            transaction.__exit__(None, None, None)
        self.vault.close()

    @rule(name=NAMES, key=KEYS, value=VALUES)
    def put(self, name: str, key: bytes, value: bytes) -> None:
        self.vault.table(name)[key] = value
        self.model.setdefault(name, {})[key] = value

    @rule(name=NAMES, key=KEYS)
    def take(self, name: str, key: bytes) -> None:
        assert self.vault.table(name).pop(key, None) == self.model.get(name, {}).pop(key, None)

    @rule(name=NAMES, key=KEYS)
    def look(self, name: str, key: bytes) -> None:
        assert self.vault.table(name).get(key) == self.model.get(name, {}).get(key)

    @rule(name=NAMES)
    def drop(self, name: str) -> None:
        self.vault.drop(name)
        self.model.pop(name, None)

    @precondition(lambda self: len(self.open) < 3)
    @rule()
    def begin(self) -> None:
        transaction = self.vault.transaction()
        transaction.__enter__()
        self.open.append((transaction, copy.deepcopy(self.model)))

    @precondition(lambda self: self.open)
    @rule(fails=st.booleans())
    def end(self, fails: bool) -> None:
        transaction, before = self.open.pop()
        if fails:
            assert not transaction.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
            self.model = before
        else:
            transaction.__exit__(None, None, None)

    @invariant()
    def alike(self) -> None:
        for name in ("contacts", "rooms", "", "room\x00s"):
            table = self.vault.table(name)
            assert list(table.items()) == list(self.model.get(name, {}).items())
            assert len(table) == len(self.model.get(name, {}))


LikeDicts.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestLikeDicts = LikeDicts.TestCase


def test_order_and_rewrites_survive_a_restart(tmp_path: Path) -> None:
    with Vault.create(tmp_path / "state", "p") as vault:
        table = vault.table("t")
        for key in (b"b", b"a", b"c"):
            table[key] = b"1"
        table[b"b"] = bytes(1000)
        del table[b"a"]
        table[b"a"] = b""
    with Vault.open(tmp_path / "state", "p") as vault:
        assert list(vault.table("t").items()) == [(b"b", bytes(1000)), (b"c", b"1"), (b"a", b"")]


def test_what_is_missing_is_a_key_error_and_what_is_too_large_is_said() -> None:
    with Vault.in_memory() as vault:
        with pytest.raises(KeyError):
            vault.table("t")[b"k"]
        with pytest.raises(KeyError):
            del vault.table("t")[b"k"]
        with pytest.raises(StateError, match="at most"):
            vault.table("t")[b"k"] = bytes(1 << 28)
        assert len(vault.table("t")) == 0
        with pytest.raises(StateError, match="no passphrase"):
            vault.change_passphrase("new")
