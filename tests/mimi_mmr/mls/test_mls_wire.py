"""Public messages: real ones are read whole, everything else is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimi_mmr.crypto.signing import key_package_ref
from mimi_mmr.errors import InvalidCommit, MmrError, ParseError, SignatureRejected
from mimi_mmr.mls.wire import (
    Add,
    ContentType,
    KeyPackage,
    LeafNode,
    LeafNodeSource,
    PrivateMessage,
    PublicCommit,
    Remove,
    WelcomeMessage,
    parse_application,
    parse_commit,
    parse_message,
    verify_key_package,
)
from mimi_mmr.presentation import vec
from tests.mimi_mmr.mls.mls_world import (
    GROUP,
    World,
    forged_key_package,
    key_package_bytes,
    leaf_bytes,
    person,
    place_of,
)

HEADER = b"\x00\x01\x00\x05"


def _messages() -> dict[str, bytes]:
    world = World()
    newcomers = [person().client.key_package() for _ in range(2)]
    adding = world.groups[0].stage_commit(newcomers)
    adding.reject()
    world.commit(add=3)
    world.commit()
    removing = world.groups[0].stage_commit(remove=[2])
    removing.reject()
    healing = world.groups[1].stage_commit()
    return {
        "adding": adding.commit,
        "removing": removing.commit,
        "healing": healing.commit,
        "welcome": adding.welcome,
        "key package": HEADER + newcomers[0],
        "private": world.groups[1].encrypt(b"hello"),
    }


MESSAGES = _messages()


def test_an_adding_commit() -> None:
    commit = parse_message(MESSAGES["adding"])
    assert isinstance(commit, PublicCommit)
    assert (commit.group_id, commit.epoch, commit.sender, commit.path) == (GROUP, 0, 0, None)
    assert all(isinstance(proposal, Add) for proposal in commit.proposals)
    welcome = parse_message(MESSAGES["welcome"])
    assert isinstance(welcome, WelcomeMessage)
    assert set(welcome.refs) == {proposal.key_package.ref for proposal in commit.proposals}


def test_a_removing_commit_and_its_path() -> None:
    commit = parse_message(MESSAGES["removing"])
    assert isinstance(commit, PublicCommit)
    assert commit.proposals == (Remove(2),)
    assert commit.path is not None
    assert commit.path.leaf_node.source is LeafNodeSource.COMMIT
    assert [len(node.encrypted_path_secret) for node in commit.path.nodes] == [1, 1]


def test_a_private_message_shows_its_header() -> None:
    assert parse_message(MESSAGES["private"]) == PrivateMessage(
        GROUP, 2, ContentType.APPLICATION, b"", MESSAGES["private"]
    )


def test_a_message_of_another_kind_than_expected_is_refused() -> None:
    assert parse_commit(MESSAGES["healing"]) == parse_message(MESSAGES["healing"])
    assert parse_application(MESSAGES["private"]) == parse_message(MESSAGES["private"])
    for parse, wrong, words in (
        (parse_commit, "private", "expected a commit as an MLS PublicMessage"),
        (parse_application, "healing", "expected an application message as an MLS PrivateMessage"),
    ):
        with pytest.raises(InvalidCommit, match=words):
            parse(MESSAGES[wrong])
        with pytest.raises(ParseError, match="at byte"):
            parse(b"no message")
        with pytest.raises(InvalidCommit, match="not used"):
            parse(b"\x00\x01\x00\x04")


def test_a_key_package() -> None:
    one = person()
    data = one.client.key_package()
    key_package = KeyPackage.from_bytes(data)
    verify_key_package(key_package)
    assert key_package == parse_message(HEADER + data)
    assert (key_package.encoded, key_package.ref) == (data, key_package_ref(data))
    leaf = key_package.leaf_node
    assert (leaf.identity, leaf.signature_key) == (one.identity, one.key.public)
    not_before, not_after = leaf.lifetime
    assert not_before < not_after
    assert LeafNode.from_bytes(leaf.encoded) == leaf


@pytest.mark.parametrize("name", MESSAGES)
def test_every_truncation_is_refused(name: str) -> None:
    data = MESSAGES[name]
    for end in range(len(data)):
        with pytest.raises(ParseError):
            parse_message(data[:end])
    with pytest.raises(ParseError, match="too many"):
        parse_message(data + b"\x00")


@settings(max_examples=400)
@given(st.sampled_from(sorted(MESSAGES)), st.data())
def test_garbled_messages_are_refused_or_read(name: str, data) -> None:
    garbled = bytearray(MESSAGES[name])
    for _ in range(data.draw(st.integers(1, 3))):
        garbled[data.draw(st.integers(0, len(garbled) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = parse_message(bytes(garbled))
    except (ParseError, InvalidCommit):
        return
    if isinstance(message, PublicCommit | WelcomeMessage):
        assert message.encoded == garbled


@given(st.binary(max_size=300), st.integers(0, 6))
def test_noise_is_refused(noise: bytes, wire_format: int) -> None:
    with pytest.raises((ParseError, InvalidCommit)):
        parse_message(b"\x00\x01\x00" + bytes([wire_format]) + noise)
    for read in (KeyPackage.from_bytes, LeafNode.from_bytes):
        with pytest.raises(ParseError):
            read(noise)


def test_an_oversized_message_is_not_looked_at() -> None:
    with pytest.raises(ParseError, match="at most"):
        parse_message(bytes((1 << 24) + 1))


def public(proposals: bytes, sender: bytes = b"\x01" + bytes(4), content_type: int = 3) -> bytes:
    body = vec(GROUP) + bytes(8) + sender + b"\x00" + bytes([content_type]) + vec(proposals) + b"\x00"
    return b"\x00\x01\x00\x01" + body + vec(bytes(64)) + vec(bytes(32)) + vec(bytes(32))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (public(b"\x02" + vec(bytes(32))), "by reference"),
        (public(b"\x01\x00\x04"), "PSK"),
        (public(b"\x01\x00\x05"), "REINIT"),
        (public(b"\x01\x00\x06"), "EXTERNAL_INIT"),
        (public(b"\x01\x00\x07"), "GROUP_CONTEXT_EXTENSIONS"),
        (public(b"", sender=b"\x02" + bytes(4)), "EXTERNAL sender"),
        (public(b"", sender=b"\x03"), "NEW_MEMBER_PROPOSAL"),
        (public(b"", sender=b"\x04"), "NEW_MEMBER_COMMIT"),
        (public(b"", content_type=1), "PrivateMessage"),
        (b"\x00\x01\x00\x04", "GroupInfo"),
    ],
)
def test_what_this_profile_does_not_use_is_refused_by_name(data: bytes, words: str) -> None:
    with pytest.raises(InvalidCommit, match=words):
        parse_message(data)


def test_an_update_in_a_commit_is_refused() -> None:
    one = person()
    leaf = KeyPackage.from_bytes(one.client.key_package()).leaf_node
    update = leaf_bytes(leaf, one.key, place_of(0), source=LeafNodeSource.UPDATE, lifetime=None)
    with pytest.raises(InvalidCommit, match="Update"):
        parse_message(public(b"\x01\x00\x02" + update.encoded))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x00\x02\x00\x01", "version 2"),
        (b"\x00\x01\x00\x09", "WireFormat 9"),
        (public(b"\x01\x00\x63"), "ProposalType 99"),
        (public(b"\x03"), "_ProposalOrRefType 3"),
    ],
)
def test_unknown_codes(data: bytes, words: str) -> None:
    with pytest.raises(ParseError, match=words):
        parse_message(data)


def test_an_x509_credential_is_refused() -> None:
    data = bytearray(person().client.key_package())
    at = 4 + 33 + 33 + 33
    assert data[at : at + 2] == b"\x00\x01"
    data[at + 1] = 2
    with pytest.raises(ParseError, match="credential type 2"):
        KeyPackage.from_bytes(bytes(data))


# --- KeyPackages that are well-formed, and wrong ---------------------------------------------------------------


def test_a_key_package_whose_own_signature_is_forged() -> None:
    key_package = KeyPackage.from_bytes(person().client.key_package())
    forged = KeyPackage.from_bytes(key_package.encoded[:-1] + bytes([key_package.encoded[-1] ^ 1]))
    with pytest.raises(SignatureRejected, match=r"^KeyPackage:"):
        verify_key_package(forged)


def test_a_key_package_whose_leaf_is_forged() -> None:
    one, other = person(), person()
    leaf = KeyPackage.from_bytes(one.client.key_package()).leaf_node
    signed_by_other = leaf_bytes(leaf, other.key)
    claimed = LeafNode.from_bytes(signed_by_other.encoded.replace(other.key.public, one.key.public))
    with pytest.raises(SignatureRejected, match="KeyPackage's leaf"):
        verify_key_package(KeyPackage.from_bytes(key_package_bytes(claimed, one.key)))


def test_a_key_package_with_one_key_for_two_purposes() -> None:
    one = person()
    leaf = KeyPackage.from_bytes(one.client.key_package()).leaf_node
    with pytest.raises(InvalidCommit, match="the same"):
        verify_key_package(KeyPackage.from_bytes(key_package_bytes(leaf, one.key, leaf.encryption_key)))


def test_a_key_package_whose_leaf_comes_from_elsewhere() -> None:
    one = person()
    forged = forged_key_package(one, place=place_of(1), source=LeafNodeSource.UPDATE, lifetime=None)
    with pytest.raises(InvalidCommit, match="UPDATE"):
        verify_key_package(forged)


@pytest.mark.parametrize("field", ["versions", "cipher_suites", "credentials"])
def test_a_leaf_that_can_not_what_the_group_does(field: str) -> None:
    one = person()
    able = KeyPackage.from_bytes(one.client.key_package()).leaf_node.capabilities
    with pytest.raises(InvalidCommit, match="capabilities"):
        verify_key_package(forged_key_package(one, capabilities=replace(able, **{field: (9,)})))


def test_an_honest_rebuilt_key_package_passes() -> None:
    verify_key_package(forged_key_package(person()))


def test_errors_are_of_this_package() -> None:
    assert issubclass(ParseError, MmrError)
    assert issubclass(InvalidCommit, MmrError)
