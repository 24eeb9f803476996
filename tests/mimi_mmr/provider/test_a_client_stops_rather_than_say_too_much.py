"""No private path, no request; and what hostile providers, hubs and members serve is refused."""

from __future__ import annotations

import dataclasses
import secrets

import pytest

from mimi_mmr.client import Client, Message
from mimi_mmr.client.transport.private_path import Route
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.crypto.sealing import Kem, SealingKey
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import (
    BindingRejected,
    IdentityError,
    LinkRejected,
    NotAllowed,
    PeerError,
    PrivatePathFailed,
)
from mimi_mmr.member.leaves import PreparedLeaf
from mimi_mmr.protocol.connections import ConnectionPackage, make_connection_package
from mimi_mmr.protocol.content import AssetReference, Content, ContentKind
from mimi_mmr.protocol.credentials import DeviceIdentity, bind_device
from mimi_mmr.protocol.provider_keys import ProviderKeys
from mimi_mmr.protocol.queues import queue_id
from mimi_mmr.protocol.room.events import EventKind, FanoutMessage, WelcomeEvent
from mimi_mmr.protocol.room.requests import CommitAuth, CommitAuthTBS
from mimi_mmr.protocol.room.welcome_proofs import prove_welcome
from mimi_mmr.uris import Kind, MimiUri
from ohttp_relay.keys import KeyRing
from tests.mimi_mmr.client.inside import (
    forget_connections,
    forget_providers,
    known_providers,
    lead_nowhere,
    look_there_first,
    use_relay,
)
from tests.mimi_mmr.conftest import LiveWorld, connect, invited, until_epoch
from tests.mimi_mmr.provider.doors import frames

NOWHERE = "https://127.0.0.1:1"
MARK = b"nobody but the gateway may read this"


async def refused_unheard(live: LiveWorld, client: Client, domain: str) -> None:
    """A call fails for want of a path, and stands in no party's frames."""
    before = len(frames(live))
    with pytest.raises(PrivatePathFailed):
        await client.path.call(domain, "POST", "/v1/rooms", MARK)
    new = frames(live)[before:]
    for form in (MARK, MARK.hex().encode(), b"/v1/rooms"):
        assert form not in new


@pytest.mark.parametrize("gateway", ["a.example", "b.example"])
async def test_without_a_relay_nothing_is_sent(live: LiveWorld, gateway: str) -> None:
    bob = await live.person("bob", "b.example")
    forget_connections(bob.path)
    lead_nowhere(bob.path, NOWHERE)  # its own provider's relay, for other gateways
    known = known_providers(bob.path)
    for domain, keys in known.items():  # the others' relays, for its own
        known[domain] = dataclasses.replace(keys, base_url=NOWHERE)
    before = frames(live)
    await refused_unheard(live, bob, gateway)
    assert frames(live) == before


async def test_a_relay_whose_gateway_is_away_ends_the_request(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    relaying = live.providers["b.example"]
    await live.stop("b.example")
    peers = relaying.settings.peers | {"a.example": NOWHERE}
    await live.start("b.example", peers=peers)
    await refused_unheard(live, bob, "a.example")


async def test_a_gateway_that_does_not_hold_the_key_ends_the_request(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    forget_connections(bob.path)
    known = known_providers(bob.path)
    wrong = KeyRing.generate().public_list()
    known["a.example"] = dataclasses.replace(known["a.example"], ohttp_keys=wrong)
    await refused_unheard(live, bob, "a.example")


async def test_keys_that_the_gateways_own_ca_did_not_sign_are_not_used(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    peers = live.providers["b.example"].peers
    document = await peers.document("a.example")
    theirs = dataclasses.replace(document.keys, ohttp_keys=KeyRing.generate().public_list())
    forged = ProviderKeys(theirs, document.chain, document.signature)
    now = bob.context.clock()
    peers._known["a.example"] = (now, forged)
    forget_providers(bob.path)
    forget_connections(bob.path)
    before = frames(live)
    with pytest.raises((IdentityError, PeerError, PrivatePathFailed)):
        await bob.path.call("a.example", "POST", "/v1/rooms", MARK)
    assert b"relay" not in frames(live)[len(before) :]


async def test_one_peers_bad_document_does_not_cut_off_the_others(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    peers = live.providers["b.example"].peers
    document = await peers.document("c.example")
    forged = ProviderKeys(document.keys, document.chain, bytes(64))
    peers._known["c.example"] = (bob.context.clock(), forged)
    forget_providers(bob.path)
    assert (await bob.path.provider("a.example")).domain == "a.example"
    with pytest.raises((IdentityError, PeerError)):
        await bob.path.provider("c.example")


def test_a_route_whose_ends_are_one_operators_is_refused() -> None:
    with pytest.raises(PrivatePathFailed, match="hides nothing"):
        Route("a.example", "a.example", "https://a.example/relay/a.example")


async def test_ones_own_gateway_is_never_reached_through_its_own_relay(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    for domain in live.world.providers:
        route = await bob.path.route(domain)
        assert route.relay != route.gateway == domain
        assert (route.relay == "b.example") == (domain != "b.example")


async def test_without_another_provider_there_is_no_way_to_ones_own(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    use_relay(bob.path, None)
    live.providers["b.example"].peers.urls.clear()
    forget_providers(bob.path)
    await refused_unheard(live, bob, "b.example")


# --- what is served, and by whom ---------------------------------------------------------------------


async def substituted(live: LiveWorld, bob: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bob's provider certifies a device of its own as Bob's, and gives strangers that one's package."""
    provider = live.providers["b.example"]
    key, identity = SigningKey.generate(), SigningKey.generate()
    certificate = provider.keys.ca.issue_device(bob.user, bob.device, key.public, bob.context.clock())
    credential = bind_device(identity, bob.user, bob.device, [certificate], key.public)
    mallory = DeviceIdentity(bob.user, bob.device, key, credential)
    sealing = SealingKey.generate(Kem.X_WING)
    expiry = int(bob.context.clock()) + 86400
    package = make_connection_package(mallory, sealing.public, last_resort=False, expiry=expiry)

    async def take(*_: object) -> bytes:
        return package.to_bytes()

    monkeypatch.setattr(provider.accounts._store, "take_package", take)


async def test_a_connection_package_of_the_providers_own_is_refused_with_a_contact_code(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    await substituted(live, bob, monkeypatch)
    with pytest.raises(BindingRejected, match="contact code"):
        await alice.people.request_connection(bob.contact_code)
    assert await bob.people.connection_requests() == []


async def test_without_a_contact_code_trust_is_on_first_use_and_marked_so(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    with monkeypatch.context() as patch:
        await substituted(live, bob, patch)
        assert not (await alice.people.request_connection(bob.user)).pinned
    assert (await alice.people.request_connection(bob.contact_code)).pinned


async def test_another_users_connection_package_is_refused(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    erin = await live.person("erin", "b.example")
    package: ConnectionPackage = next(iter(erin.people.connection_packages.values())).package

    async def take(*_: object) -> bytes:
        return package.to_bytes()

    monkeypatch.setattr(live.providers["b.example"].accounts._store, "take_package", take)
    for whom in (bob.user, bob.contact_code):
        with pytest.raises(Exception, match=r"another user's|contact code") as refusal:
            await alice.people.request_connection(whom)
        assert refusal.type.__module__ == "mimi_mmr.errors"


async def test_an_asset_is_fetched_from_its_senders_providers_host_only(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, bobs = await connect(alice, bob)
    await bob.key_packages.publish(bobs, 1)
    room = await alice.rooms.create()
    await alice.rooms.add(room, [to_bob])
    at_bob = await invited(bob)
    await until_epoch(bob, at_bob, room.room.epoch)
    good = await alice.rooms.assets.send(room, "picture", b"pixels")

    host = live.world.asset_host.url
    lies = [
        good.url,  # there it is; but Bob's provider has no host
        "https://elsewhere.example/x",
        f"{host}.elsewhere.example/x",
        f"https://{host.removeprefix('https://')}@elsewhere.example/x",
    ]
    for url in lies:
        forged = Content(ContentKind.ASSET, dataclasses.replace(good, url=url).to_bytes())
        await bob.rooms.send(at_bob, forged)
    before = frames(live)
    while len(room.messages) < len(lies):
        await alice.rooms.sync(room, wait=5)
    for _ in lies:
        with pytest.raises(NotAllowed, match="asset host"):
            await alice.rooms.assets.fetch(room, room.messages.popleft())
    assert b"storage" not in frames(live)[len(before) :]

    while not at_bob.messages:
        await bob.rooms.sync(at_bob, wait=5)
    message = at_bob.messages.popleft()
    for name, value in (("sha256", bytes(32)), ("key", secrets.token_bytes(32))):
        wrong = dataclasses.replace(good, **{name: value})
        with pytest.raises(LinkRejected):
            await bob.rooms.assets.fetch(at_bob, changed(message, wrong))
    with pytest.raises(NotAllowed):
        await bob.rooms.assets.fetch(at_bob, changed(message, dataclasses.replace(good, url=host)))
    assert await bob.rooms.assets.fetch(at_bob, message) == b"pixels"


def changed(message: Message, reference: AssetReference) -> Message:
    return Message(message.sender, Content(ContentKind.ASSET, reference.to_bytes()))


async def test_rubbish_in_a_queue_stops_nobody_from_reading_on(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, bobs = await connect(alice, bob)
    await bob.key_packages.publish(bobs, 1)
    room = await alice.rooms.create()
    await alice.rooms.add(room, [to_bob])
    at_bob = await invited(bob)
    await until_epoch(bob, at_bob, room.room.epoch)
    truncated = FanoutMessage(room.uri, 10_000, 0, EventKind.COMMIT, bytes(1)).to_bytes()[:-1]
    for rubbish in (b"", b"\xff" * 40, truncated):
        await post(live, at_bob.leaf, rubbish)
    await alice.rooms.send(room, "after the rubbish")
    while not at_bob.messages:
        await bob.rooms.sync(at_bob, wait=5)
    assert at_bob.messages.popleft().text == "after the rubbish"
    assert at_bob.problems


async def test_a_bogus_welcome_costs_no_other_invitation(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, bobs = await connect(alice, bob)
    await bob.key_packages.publish(bobs, 2)
    room = await alice.rooms.create()
    await alice.rooms.add(room, [to_bob])
    bogus = FanoutMessage(room.uri, 1, 0, EventKind.WELCOME, b"\xff").to_bytes()
    for waiting in list(bob.key_packages.outstanding):
        page = await Queues(bob.path).collect(waiting.package.leaf.queue, 0, 0)
        await post(live, waiting.package.leaf, b"\xff" if page.messages else bogus)
    while room.uri not in bob.rooms:
        await bob.rooms.check_invitations(wait=5)
    await bob.rooms.check_invitations()  # at all of them
    assert any(line.startswith("invitation: ") for line in bob.refusals.texts())


async def test_a_welcome_to_a_hub_that_never_answers_does_not_stand_in_the_way_for_ever(
    live: LiveWorld,
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, bobs = await connect(alice, bob)
    await bob.key_packages.publish(bobs, 2)
    room = await alice.rooms.create()
    away = MimiUri("nowhere.example", Kind.ROOM, "none")
    await alice.rooms.add(room, [to_bob])
    for waiting in bob.key_packages.outstanding:
        page = await Queues(bob.path).collect(waiting.package.leaf.queue, 0, 0)
        if not page.messages:  # the KeyPackage that Alice has not used
            auth = _some_auth(away)  # by somebody who has the KeyPackage: a hub alone can't make a proof
            lie = WelcomeEvent(auth, b"", prove_welcome([waiting.package.open], auth.content)).to_bytes()
            await post(
                live, waiting.package.leaf, FanoutMessage(away, 1, 0, EventKind.WELCOME, lie).to_bytes()
            )
            look_there_first(bob, waiting.package.ref)
    for _ in range(6):
        await bob.rooms.check_invitations(wait=5)
    assert room.uri in bob.rooms
    assert any("nowhere.example" in line for line in bob.refusals.texts())


def _some_auth(room: MimiUri) -> CommitAuth:
    nothing = bytes(32)
    content = CommitAuthTBS(room, 0, 0, *[nothing] * 8)
    return CommitAuth(content, bytes(64))


async def post(live: LiveWorld, leaf: PreparedLeaf, message: bytes) -> None:
    """Bob's provider puts something into a queue of his that no honest hub has sent."""
    store = live.providers["b.example"].delivery_store
    await store.put([queue_id(leaf.queue)], message, secrets.token_bytes(16), 0.0)
