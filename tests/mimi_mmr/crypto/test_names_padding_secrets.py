"""URIs, pseudonyms, contact codes, padding, and secrets that keep themselves."""

from __future__ import annotations

import copy
import pickle
import uuid

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mimi_mmr.crypto.sealing import Kem, SealingKey, pad, pad_to, unpad
from mimi_mmr.crypto.secret import AccessToken, ConnectionKey, FetchToken, IdentityLinkKey, Secret
from mimi_mmr.crypto.signing import SigningKey, expand_with_label
from mimi_mmr.errors import InvalidUri, SealedBoxRejected
from mimi_mmr.protocol.connections import ContactCode
from mimi_mmr.uris import IdentifierUri, Kind, MimiUri, check_domain, random_uri, self_certifying_pseudonym
from tests.mimi_mmr.protocol.wire import DOMAINS, MANY, SOME, uris

SECRETS = (ConnectionKey, IdentityLinkKey, FetchToken, AccessToken)
each_secret = pytest.mark.parametrize("kind", SECRETS)


# --- URIs --------------------------------------------------------------------------------------------


@given(uris())
@MANY
def test_a_uri_round_trips_and_keeps_its_kind(uri: MimiUri) -> None:
    assert MimiUri.parse(str(uri)) == uri
    assert MimiUri.parse(str(uri), uri.kind) == uri
    for kind in set(Kind) - {uri.kind}:
        with pytest.raises(InvalidUri, match="expected a"):
            MimiUri.parse(str(uri), kind)


@given(st.text(max_size=60) | st.text(alphabet="mi:/.-abu%\0\n é", max_size=40).map("mimi://".__add__))
@MANY
def test_any_text_is_a_uri_in_its_one_spelling_or_refused(text: str) -> None:
    try:
        uri = MimiUri.parse(text)
    except InvalidUri:
        return
    assert str(uri) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mimi://a.example/u/",
        "mimi://a.example/u/alice/",
        "mimi://a.example/u/Alice",
        "mimi://a.example/u/alice\n",
        "mimi://A.example/u/alice",
        "mimi://a.example\n/u/alice",
        "mimi://a.example./u/alice",
        "mimi://example/u/alice",
        "mimi://-a.example/u/alice",
        "mimi://a.example:80/u/alice",
        "mimi://u@a.example/u/alice",
        "mimi://a.example/x/alice",
        "mimi://a.example/u/al/ice",
        "mimi://a.example/u/..",
        "mimi://a.example/d/alice/",
        "mimi://a.example/d//phone",
        "mimi://a.example/d/alice/phone/2",
        "mimi://a.example/d/alice/Phone",
        "mimi://127.0.0.1/u/alice",
        "mimi://a.example.1/u/alice",
        "mimi://a.example/u/a?b",
        "http://a.example/u/alice",
        "mimi://a.example/u/" + "a" * 129,
        "mimi://" + ".".join(["a" * 63] * 4) + ".b/u/alice",
    ],
)
def test_what_only_looks_like_a_uri_is_refused(text: str) -> None:
    with pytest.raises(InvalidUri):
        MimiUri.parse(text)


def test_two_peoples_devices_of_one_name_have_two_uris_and_the_older_form_stays_a_third() -> None:
    alice, bob = (MimiUri("a.example", Kind.USER, name) for name in ("alice", "bob"))
    written = ["mimi://a.example/d/alice/phone", "mimi://a.example/d/bob/phone", "mimi://a.example/d/phone"]
    made = [MimiUri.of_device(alice, "phone"), MimiUri.of_device(bob, "phone")]
    assert [MimiUri.parse(text) for text in written] == [*made, MimiUri("a.example", Kind.DEVICE, "phone")]
    assert [str(uri) for uri in made] == written[:2]
    assert {MimiUri.parse(text).name for text in written} == {"phone"}


def test_the_longest_uri_of_a_device_is_read_again() -> None:
    domain = ".".join(["a" * 63, "a" * 63, "a" * 63, "a" * 61])
    uri = MimiUri.of_device(MimiUri(domain, Kind.USER, "u" * 128), "d" * 128)
    assert IdentifierUri.from_bytes(IdentifierUri(uri).to_bytes()).uri == uri


@given(DOMAINS, st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
@MANY
def test_a_user_pseudonym_is_a_uuid8_of_domain_and_key(domain: str, key: bytes, other: bytes) -> None:
    assume(key != other)
    made = self_certifying_pseudonym(domain, key)
    assert made.kind is Kind.USER_PSEUDONYM
    assert (uuid.UUID(made.name).version, uuid.UUID(made.name).variant) == (8, uuid.RFC_4122)
    assert made == self_certifying_pseudonym(domain, key) == MimiUri.parse(str(made))
    assert made.name != self_certifying_pseudonym(domain, other).name
    assert made.name != self_certifying_pseudonym(domain + ".x", key).name


@given(st.binary(min_size=16, max_size=16))
def test_a_random_uri_is_a_uuid4(drawn: bytes) -> None:
    uri = random_uri("a.example", Kind.ROOM, drawn)
    assert uuid.UUID(uri.name).version == 4
    assert MimiUri.parse(str(uri), Kind.ROOM) == uri


@pytest.mark.parametrize(
    "domain",
    [
        "127.0.0.1",
        "10.1",
        "0x7f.1",
        "a.0x7f",
        "a.example.1",
        "a.2example",
        "::1",
        "[::1]",
        "a.example:443",
        "A.example",
        "a.example.",
        "a..example",
        "bücher.example",
        "xn--bcher-kva.example.",
        "xn--BCHER-kva.example",
        "xn--bcher.example",  # three mathematical signs
        "xn--bcher-.example",  # encodes nothing that needs it
        "xn--a.example",
        "ab--c.example",
        "xn--99999999.example",
        "-a.example",
        "a_b.example",
        "example",
        "",
    ],
)
def test_a_domain_is_a_dns_name_in_its_one_spelling(domain: str) -> None:
    with pytest.raises(InvalidUri):
        check_domain(domain)
    with pytest.raises(InvalidUri):
        MimiUri.parse(f"mimi://{domain}/u/alice")


@pytest.mark.parametrize("domain", ["a.example", "4.a.example", "xn--bcher-kva.example", "a.xn--p1ai"])
def test_a_domain_in_its_one_spelling_is_taken(domain: str) -> None:
    assert check_domain(domain) == domain
    assert MimiUri.parse(f"mimi://{domain}/u/alice").domain == domain


# --- contact codes -----------------------------------------------------------------------------------


@given(uris(Kind.USER), st.binary(min_size=32, max_size=32))
@MANY
def test_a_contact_code_round_trips(user: MimiUri, pin: bytes) -> None:
    code = ContactCode(user, pin)
    assert ContactCode.parse(str(code)) == code


@given(
    st.text(max_size=80) | st.text(alphabet="[]@:/?#=&fmi%\x00é", max_size=40).map("mimi-connect:".__add__)
)
@MANY
def test_any_text_is_a_contact_code_or_refused(text: str) -> None:
    try:
        ContactCode.parse(text)
    except InvalidUri:
        return


@pytest.mark.parametrize(
    "change",
    [
        ("mimi-connect:", "mimi:"),
        ("mimi-connect:", "mimi-connect://["),
        ("/u/", "/d/"),
        ("?f=", "?g="),
        ("?f=", "?f=AAAA&f="),
        ("?f=", "?f=A"),
        ("?f=", "?f=!"),
        ("?f=", "?f=é"),
        ("?f=", "#f="),
        ("mimi-connect:", "MIMI-connect:"),
        ("mimi-connect:", "mimi-connect://"),
        ("mimi-connect:", " mimi-connect:"),
        ("/alice", "/%61lice"),
        ("/alice", "/al%69ce"),
        ("//a.", "%2F%2Fa."),
        ("/alice", "/alice\n"),
        ("?f=", "?x=1&f="),
        ("?f=", "?f=&f="),
        ("Hh8", "Hh8="),
        ("Hh8", "Hh9"),  # the same 32 bytes, with other unused bits
        ("Hh8", "Hh8&x=1"),
        ("Hh8", "Hh8#x"),
        ("Hh8", "Hh8\n"),
        ("Hh8", "Hh"),
    ],
)
def test_a_contact_code_that_was_altered_is_refused(change: tuple[str, str]) -> None:
    good = str(ContactCode(MimiUri("a.example", Kind.USER, "alice"), bytes(range(32))))
    assert ContactCode.parse(good).fingerprint == bytes(range(32))
    with pytest.raises(InvalidUri):
        ContactCode.parse(changed(good, *change))


def changed(text: str, old: str, new: str) -> str:
    """The text with a part of it replaced, which it must have."""
    assert old in text
    return text.replace(old, new)


# --- padding -----------------------------------------------------------------------------------------


@given(st.binary(max_size=600), st.sampled_from([1, 16, 256, 512]))
@MANY
def test_padding_comes_off_and_shows_only_the_bucket(content: bytes, multiple: int) -> None:
    padded = pad(content, multiple)
    assert unpad(padded) == content
    assert len(padded) % multiple == 0
    assert len(padded) - len(content) < multiple + 4


@given(st.binary(max_size=100))
@SOME
def test_fixed_padding_has_one_size_or_refuses(content: bytes) -> None:
    assert len(pad_to(content, 104)) == 104
    assert unpad(pad_to(content, 104)) == content
    with pytest.raises(ValueError, match="does not fit"):
        pad_to(content + bytes(101), 104)


@given(st.binary(max_size=300))
@MANY
def test_any_bytes_unpad_or_are_refused(data: bytes) -> None:
    try:
        content = unpad(data)
    except SealedBoxRejected:
        return
    assert data.startswith(len(content).to_bytes(4, "big") + content)
    assert not any(data[4 + len(content) :])


@given(st.binary(max_size=50), st.integers(1, 255), st.data())
@SOME
def test_padding_carries_nothing(content: bytes, byte: int, data: st.DataObject) -> None:
    padded = bytearray(pad(content + b"x", 128))
    padded[data.draw(st.integers(len(content) + 5, len(padded) - 1))] = byte
    with pytest.raises(SealedBoxRejected):
        unpad(bytes(padded))


# --- secrets -----------------------------------------------------------------------------------------


@each_secret
def test_a_secret_is_neither_printed_nor_pickled_nor_hashed(kind: type[Secret]) -> None:
    secret = kind(b"\x5a" * 32)
    for shown in (repr(secret), str(secret), f"{secret}", repr([secret])):
        assert "5a" not in shown
        assert "Z" not in shown
    for spill in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not to be pickled"):
            spill(secret)
    with pytest.raises(TypeError):
        hash(secret)


@each_secret
def test_secrets_are_equal_by_value_and_type(kind: type[Secret]) -> None:
    secret = kind(bytes(32))
    assert secret == kind(bytes(32))
    assert secret != kind(bytes(31) + b"\1")
    assert all(secret != other(bytes(32)) for other in SECRETS if other is not kind)
    assert secret != bytes(32)


@each_secret
def test_a_secret_of_another_size_is_refused_and_fresh_ones_differ(kind: type[Secret]) -> None:
    for size in (0, 31, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            kind(bytes(size))
    assert kind.generate() != kind.generate()


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(
        "mimi_mmr.crypto.secret.hmac.compare_digest", lambda a, b: compared.append((a, b)) or True
    )
    assert ConnectionKey(bytes(32)) == ConnectionKey(bytes(32))
    assert compared == [(bytes(32), bytes(32))]


def test_keys_show_nothing_private() -> None:
    signing = SigningKey.from_seed(b"\x5a" * 32)
    assert "5a5a" not in repr(signing)
    assert repr(SealingKey.generate(Kem.X_WING)) == "<SealingKey X_WING>"


@given(st.binary(max_size=40), st.binary(max_size=40))
@SOME
def test_labels_and_contexts_separate_keys(one: bytes, other: bytes) -> None:
    assume(one != other)
    key = ConnectionKey(bytes(32))
    assert expand_with_label(key, "a", one) != expand_with_label(key, "a", other)
    assert expand_with_label(key, "a", one) != expand_with_label(key, "b", one)
    assert expand_with_label(key, "a", one, 16) != expand_with_label(key, "a", one)[:16]
