"""Whose KeyPackage set is this? Provider and hub, who see all of it, can do no better than guess.

Two users of one provider, as different as users can be whose identity links are of one length: a short name and a
long one, a chain of one certificate and of two, registered today and long ago. Their devices make KeyPackages by
the client's own code and the real MLS library, in the same slots; sets are uploaded by the client's own code, each
for another contact. A classifier is trained on half of the sets, on every public field of them, and has to say
whose the other half are. When a user makes sets (in which slot), and which sets lie on one shelf, is not hidden.
"""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mimi_mmr.client.account import Account
from mimi_mmr.client.context import Context
from mimi_mmr.client.key_packages import maker
from mimi_mmr.client.key_packages.maker import KeyPackageMaker
from mimi_mmr.client.key_packages.shelves import Shelf, Shelves
from mimi_mmr.client.storage.changes import Changes
from mimi_mmr.client.storage.history import Notices
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.client.transport.private_path import PrivatePath
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.crypto.secret import ConnectionKey
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.member.leaves import PreparedKeyPackage, PreparedLeaf, prepare_key_package
from mimi_mmr.mls.wire import KeyPackage
from mimi_mmr.mls.wire.limits import Extension
from mimi_mmr.protocol.credentials import DeviceIdentity, LeafIdentity, bind_device
from mimi_mmr.protocol.endpoints import Endpoint, to_body
from mimi_mmr.protocol.key_packages import SetUpload, fetch_token, shelf_id
from mimi_mmr.protocol.queues import QueueOrder
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.bench import DAY, ENGINE, World

SLOT = 2
SLOTS, EACH = 2, 100
CHANCE = 1e-6
SPLITS = 8  # into halves to learn from and to guess: an unlucky one may hide a single bit
DOMAIN = "b.example"
Features = dict[str, Hashable]
Change = Callable[["Seen"], "Seen"]


# --- two users ---------------------------------------------------------------------------------------


@dataclass
class FakePath:
    """The provider as a client has it: keys, and an ear for requests."""

    queue_key: Any
    heard: list[tuple[str, bytes]] = field(default_factory=list)
    domain: str = DOMAIN

    async def provider(self, domain: str) -> SimpleNamespace:
        return SimpleNamespace(queue_key=self.queue_key)

    async def ask(self, endpoint: Endpoint[Any, Any], domain: str, request: Any, /, **names: str) -> None:
        self.heard.append((endpoint.path(names), to_body(request)))


@dataclass(frozen=True)
class Seen:
    """A set as its provider sees it: the upload, and the order for the queue of its leaf."""

    upload: SetUpload
    queue: QueueOrder

    @property
    def package(self) -> KeyPackage:
        return KeyPackage.from_bytes(self.upload.content.key_packages.entries[0].key_package)


def two_devices(world: World) -> list[DeviceIdentity]:
    ca = world.providers[DOMAIN].ca
    root = ca.root.public_bytes(Encoding.DER)
    found = []
    for name, since, above in (("al", 0, ()), ("bartholomew-featherstonehaugh-cholmondeley", 80, (root,))):
        user, device = MimiUri(DOMAIN, Kind.USER, name), MimiUri(DOMAIN, Kind.DEVICE, f"{name}-phone")
        key = SigningKey.generate()
        chain = (ca.issue_device(user, device, key.public, world.now - since * DAY), *above)
        bound = bind_device(SigningKey.generate(), user, device, chain, key.public)
        found.append(DeviceIdentity(user, device, key, bound))
    return found


async def make_sets(world: World) -> list[list[Seen]]:
    """For each user, what its provider sees of its sets, in the order in which they were made."""
    devices, paths = (
        two_devices(world),
        [FakePath(world.providers[DOMAIN].queue_key.public) for _ in range(2)],
    )
    contexts = [context_of(me, path) for me, path in zip(devices, paths, strict=True)]
    makers = [maker_of(context, me) for context, me in zip(contexts, devices, strict=True)]
    for count in range(EACH, EACH * SLOTS + 1, EACH):
        await asyncio.gather(*(one.prepare(count) for one in makers))
    taken = [await one.take(EACH * SLOTS) for one in makers]
    return [
        [await see(context, path, one) for one in made]
        for context, path, made in zip(contexts, paths, taken, strict=True)
    ]


def context_of(me: DeviceIdentity, path: FakePath) -> Context:
    """What the parts of this device's client share."""
    vault, private = Vault.in_memory(), cast(PrivatePath, path)
    return Context(
        me.user,
        me.device,
        TrustAnchors(),
        time.time,
        vault,
        Changes(vault),
        private,
        ENGINE,
        Notices(vault),
    )


def maker_of(context: Context, me: DeviceIdentity) -> KeyPackageMaker:
    return KeyPackageMaker(context, cast(Account, SimpleNamespace(me=me)), Queues(context.path), SLOT)


async def see(context: Context, path: FakePath, package: PreparedKeyPackage) -> Seen:
    """Upload a set of this package for a contact of its own."""
    own_key, upload_key = ConnectionKey.generate(), SigningKey.generate()
    shelf = shelf_id(fetch_token(own_key), upload_key.public)
    contact = SimpleNamespace(own_key=own_key, upload_key=upload_key, shelf=shelf)
    serial = secrets.token_bytes(16)
    shelves = Shelves(context, *cast(Any, [None] * 5))  # an upload needs none of the other parts
    await shelves.upload(Shelf(cast(Any, contact)), serial, [package.open], last_resort=False)
    _, body = path.heard.pop()
    token = package.leaf.queue.reveal()
    orders = [QueueOrder.from_bytes(body) for where, body in path.heard if where == "/v1/queues"]
    return Seen(SetUpload.from_bytes(body), next(order for order in orders if order.token == token))


# --- what there is to see ----------------------------------------------------------------------------


def low_entropy(seen: Seen) -> Features:
    """Every public field that says something by itself: lengths, lists, times; and the edges of what is random."""
    content, package = seen.upload.content, seen.package
    leaf, identity = package.leaf_node, LeafIdentity.from_bytes(package.leaf_node.identity)
    credential, queue = identity.credential, identity.queue
    assert leaf.lifetime
    start, end = leaf.lifetime
    found: Features = {
        "upload": len(seen.upload.to_bytes()),
        "entries": len(content.key_packages.entries),
        "entry": tuple(len(one.key_package) for one in content.key_packages.entries),
        "last resort": content.last_resort,
        "upload's expiry": content.expiry - start // DAY * DAY,
        "queue order": (len(seen.queue.to_bytes()), seen.queue.accepts_deposits),
        "version and suite": (package.version, package.cipher_suite),
        "extensions": shape(package.extensions),
        "leaf's extensions": shape(leaf.extensions),
        "capabilities": leaf.capabilities,
        "source": leaf.source,
        "starts in slot": start % SLOT,
        "lifetime": end - start,
        "identity": len(leaf.identity),
        "credential's version": credential.version,
        "credential's expiry": (credential.expiry % DAY, (credential.expiry - start) // DAY),
        "domains": (credential.client_pseudonym.domain, credential.user_pseudonym.domain, queue.domain),
        "kinds": (credential.client_pseudonym.kind, credential.user_pseudonym.kind),
        "UUIDs": (credential.client_pseudonym.name[14], credential.user_pseudonym.name[14]),
        "link": len(credential.identity_link_ciphertext),
        "queue": (queue.encrypted_queue_id.kem, len(queue.encrypted_queue_id.ciphertext)),
    }
    for name, value in high_entropy(seen):
        found |= {
            f"{name}: length": len(value),
            f"{name}: first": value[0] >> 7,
            f"{name}: last": value[-1] & 1,
        }
    return found


def shape(extensions: Sequence[Extension]) -> tuple[tuple[int, int], ...]:
    return tuple((one.extension_type, len(one.data)) for one in extensions)


def high_entropy(seen: Seen) -> Iterator[tuple[str, bytes]]:
    """Every public field that must be of this set alone."""
    content, package, leaf = seen.upload.content, seen.package, seen.package.leaf_node
    identity = LeafIdentity.from_bytes(leaf.identity)
    credential = identity.credential
    yield from (("shelf", content.shelf), ("serial", content.serial), ("queue token", seen.queue.token))
    yield from (("upload key", seen.upload.upload_public_key), ("upload signature", seen.upload.signature))
    yield "wrapped link key", content.key_packages.entries[0].wrapped_ilk
    yield from (("init key", package.init_key), ("signature", package.signature))
    yield from (("encryption key", leaf.encryption_key), ("signature key", leaf.signature_key))
    yield "leaf's signature", leaf.signature
    yield "client pseudonym", credential.client_pseudonym.name.encode()
    yield "user pseudonym", credential.user_pseudonym.name.encode()
    yield from (("set key", credential.set_public_key), ("set signature", credential.set_signature))
    yield "link", credential.identity_link_ciphertext
    yield "encrypted queue id", identity.queue.encrypted_queue_id.ciphertext


# --- the classifier ----------------------------------------------------------------------------------


class NaiveBayes:
    """Log-odds of each value of each field, as often as it was seen with either user (add-one smoothing).

    Of the fields that tell users apart within the training half, left out in turn; of all if none does.
    """

    def __init__(self, labelled: Sequence[tuple[Features, int]]) -> None:
        self.seen: defaultdict[tuple[str, Hashable], Counter[int]] = defaultdict(Counter)
        for features, user in labelled:
            for item in features.items():
                self.seen[item][user] += 1
        names = set(labelled[0][0])
        self.telling = {name for name in names if self._tells(name, labelled) < 1e-3} or names

    def _tells(self, name: str, labelled: Sequence[tuple[Features, int]]) -> float:
        right = 0.0
        for features, user in labelled:
            counts = self.seen[name, features[name]]
            own, other = counts[user] - 1, counts[1 - user]
            right += 0.5 if own == other else own > other
        return p_value(math.floor(right), len(labelled))

    def guess(self, features: Features) -> int:
        odds = 0.0
        for name in self.telling:
            counts = self.seen.get((name, features[name]), Counter[int]())
            odds += math.log((counts[1] + 1) / (counts[0] + 1))
        return int(odds > 0)


def p_value(right: int, of: int) -> float:
    """How likely it is to be right that often by guessing."""
    return sum(math.comb(of, hits) for hits in range(right, of + 1)) / 2**of


def p_of_guesses(sets: list[list[Seen]], seed: int) -> float:
    """Train on half of the sets, guess the other half; the p-value of what was guessed right."""
    labelled = [(low_entropy(seen), user) for user, theirs in enumerate(sets) for seen in theirs]
    random.Random(seed).shuffle(labelled)
    half = len(labelled) // 2
    classifier = NaiveBayes(labelled[:half])
    right = sum(classifier.guess(features) == user for features, user in labelled[half:])
    return p_value(right, len(labelled) - half)


@pytest.fixture(scope="module")
def sets() -> list[list[Seen]]:
    return asyncio.run(make_sets(World()))


def test_nobody_can_tell_whose_a_set_is(sets: list[list[Seen]]) -> None:
    assert [len(theirs) for theirs in sets] == [SLOTS * EACH] * 2
    seed = secrets.randbits(32)
    assert p_of_guesses(sets, seed) > CHANCE, f"whose sets are can be told; seed {seed}"


def test_fields_that_say_something_say_the_same_of_everybody(sets: list[list[Seen]]) -> None:
    """Stronger than what a classifier finds: what is not random is equal."""
    values: defaultdict[str, set[Hashable]] = defaultdict(set)
    for seen in (seen for theirs in sets for seen in theirs):
        for name, value in low_entropy(seen).items():
            values[name].add(value)
    random_edges = {name for name in values if name.endswith((": first", ": last"))}
    told = {name: found for name, found in values.items() if len(found) > 1 and name not in random_edges}
    midnight = {"upload's expiry", "credential's expiry"}  # a run may see one pass
    assert not told.keys() - midnight, told


def test_no_value_occurs_in_two_sets(sets: list[list[Seen]]) -> None:
    """Of one user or of two: pieces of 16 bytes, so that a value is found inside another as well."""
    everything = [seen for theirs in sets for seen in theirs]
    for name in dict(high_entropy(everything[0])):
        assert len({dict(high_entropy(seen))[name] for seen in everything}) == len(everything), name
    where: dict[bytes, int] = {}
    for number, seen in enumerate(everything):
        for name, value in high_entropy(seen):
            pieces = (
                [value]
                if name.endswith("pseudonym")
                else [value[at : at + 16] for at in range(0, len(value) - 15, 16)]
            )
            assert all(where.setdefault(piece, number) == number for piece in pieces), name


# --- that it would be found --------------------------------------------------------------------------


def with_credential(seen: Seen, **changes: Any) -> Seen:
    """A set with another credential in its leaf; signatures are not made anew."""
    package = seen.package
    identity = LeafIdentity.from_bytes(package.leaf_node.identity)
    changed = replace(identity, credential=replace(identity.credential, **changes)).to_bytes()
    old = package.leaf_node.identity
    return with_package(seen, package.encoded.replace(varint(old) + old, varint(changed) + changed))


def with_package(seen: Seen, encoded: bytes) -> Seen:
    content = seen.upload.content
    entries = (replace(content.key_packages.entries[0], key_package=encoded),)
    changed = replace(content, key_packages=replace(content.key_packages, entries=entries))
    return replace(seen, upload=replace(seen.upload, content=changed))


def varint(data: bytes) -> bytes:
    return (len(data) | 1 << 14).to_bytes(2, "big")


def a_second_late(seen: Seen) -> Seen:
    lifetime = seen.package.leaf_node.lifetime
    assert lifetime
    start, end = (moment.to_bytes(8, "big") for moment in lifetime)
    late = (lifetime[0] + 1).to_bytes(8, "big")
    return with_package(seen, seen.package.encoded.replace(start + end, late + end))


def a_longer_link(seen: Seen) -> Seen:
    link = LeafIdentity.from_bytes(seen.package.leaf_node.identity).credential.identity_link_ciphertext
    return with_credential(seen, identity_link_ciphertext=link + bytes(256))


def an_earlier_expiry(seen: Seen) -> Seen:
    expiry = LeafIdentity.from_bytes(seen.package.leaf_node.identity).credential.expiry
    return with_credential(seen, expiry=expiry - DAY)


def a_later_expiry_of_the_upload(seen: Seen) -> Seen:
    content = replace(seen.upload.content, expiry=seen.upload.content.expiry + 1)
    return replace(seen, upload=replace(seen.upload, content=content))


def a_bit_of_the_serial(seen: Seen) -> Seen:
    serial = seen.upload.content.serial
    content = replace(seen.upload.content, serial=bytes([serial[0] | 0x80]) + serial[1:])
    return replace(seen, upload=replace(seen.upload, content=content))


@pytest.mark.parametrize(
    "leak",
    [a_second_late, a_longer_link, an_earlier_expiry, a_later_expiry_of_the_upload, a_bit_of_the_serial],
)
def test_the_classifier_finds_what_would_tell_them_apart(sets: list[list[Seen]], leak: Change) -> None:
    """In every set of one user; one bit that is otherwise random is the least of it."""
    seed, planted = secrets.randbits(32), [sets[0], [leak(seen) for seen in sets[1]]]
    found = any(p_of_guesses(planted, seed + split) < CHANCE for split in range(SPLITS))
    assert found, f"{leak.__name__} was not found; seed {seed}"


def test_the_classifier_finds_what_tells_most_of_them_apart(sets: list[list[Seen]]) -> None:
    seed = secrets.randbits(32)
    planted = [[a_second_late(seen) if at % 5 else seen for at, seen in enumerate(sets[1])], sets[0]]
    assert any(p_of_guesses(planted, seed + split) < CHANCE for split in range(SPLITS)), f"seed {seed}"


async def test_a_slow_device_says_the_same_second_as_a_fast_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that takes longer than a second is not finished in the next, which would be this device's alone."""

    def slowly(leaf: PreparedLeaf) -> PreparedKeyPackage:
        time.sleep(0.6)
        return prepare_key_package(leaf)

    monkeypatch.setattr(maker, "prepare_key_package", slowly)
    world = World()
    me = two_devices(world)[0]
    context = context_of(me, FakePath(world.providers[DOMAIN].queue_key.public))
    packages = await maker_of(context, me).take(3)
    lifetimes = [KeyPackage.from_bytes(one.key_package).leaf_node.lifetime for one in packages]
    assert [lifetime and lifetime[0] % SLOT for lifetime in lifetimes] == [0, 0, 0]


def test_links_of_these_two_users_differ_inside(sets: list[list[Seen]]) -> None:
    """Else nothing was shown: what is sealed in them is of very different lengths."""
    world = World()
    sizes = [len(device.credential.to_bytes()) for device in two_devices(world)]
    assert sizes[1] > sizes[0] + 400
