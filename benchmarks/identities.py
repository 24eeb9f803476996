"""What it costs to learn who is in a room, as a multiple of the signature verifications that it needs.

`python -m benchmarks.identities` prints a table and writes JSON and a plot; `--headline` measures a room of
10,000 alone and ends with one line of JSON, within 50 seconds.

Measured is `Room.who` by a client that has seen none of the members before: every credential parsed, every
identity link opened and verified. Credentials, certificates, links, queue addresses and the Tree Wrap tree are
real, of three providers, certified over sixty days; the MLS group is a list of leaves without parents, since
nobody looks at those here. Bare are the verifications alone that nobody can do without, of the same members with
all that they need at hand: three Ed25519 signatures by libsodium (set key, user's identity key, device's key) and
the CA's ECDSA signature by OpenSSL. Both take turns, 256 members each; times are of the processor.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from nacl.bindings import crypto_sign_open
from rich.console import Console
from rich.progress import Progress

from mimi_mmr.crypto.certificate_forms import DeviceCertificate
from mimi_mmr.crypto.certificates import CertificateAuthority, DeviceChain, TrustAnchors
from mimi_mmr.crypto.sealing import Kem, SealingKey
from mimi_mmr.crypto.secret import IdentityLinkKey
from mimi_mmr.crypto.signing import MLS, SigningKey, sign_content
from mimi_mmr.member.leaves import PreparedLeaf, prepare_leaf
from mimi_mmr.member.local import LocalRoom
from mimi_mmr.member.room import Room
from mimi_mmr.member.whois import Standing
from mimi_mmr.mls.engine import MlsGroup
from mimi_mmr.mls.mls_rs import MlsRsEngine
from mimi_mmr.mls.ratchet.node import LEAF
from mimi_mmr.mls.ratchet.tree import RatchetTree
from mimi_mmr.mls.wire import KeyPackage, LeafNode
from mimi_mmr.presentation import vec
from mimi_mmr.protocol.credentials import (
    Claim,
    DeviceIdentity,
    LeafIdentity,
    UserBindingTBS,
    bind_device,
    make_credential,
    open_claim,
    open_link,
)
from mimi_mmr.protocol.queues import seal_queue_id
from mimi_mmr.protocol.room.policy import Identities, default_policy, sign_policy
from mimi_mmr.protocol.room.requests import group_id
from mimi_mmr.uris import Kind, MimiUri
from treewrap import EpochSecret, LeafSecret, Set, Suite, WrapTree

DOMAINS = ("a.example", "b.example", "c.example")
DAY = 86400
CERTIFIED_OVER = 60  # days
TURN = 256  # members
STEP_MEMBERS = 500
ECDSA = ec.ECDSA(hashes.SHA256())
Told = Callable[[str, int, int], None]
Bare = Callable[[], object]


def untold(what: str, done: int, total: int) -> None:
    """Show nothing."""


# Members


@dataclass(frozen=True, slots=True)
class Member:
    """What the room has of a member, and what the benchmark knows besides."""

    identity: LeafIdentity
    ilk: bytes
    device: DeviceIdentity


class Providers:
    """Three providers and their users' devices."""

    def __init__(self, now: float) -> None:
        self.now = now
        self._authorities = {
            domain: CertificateAuthority.create(domain, now - 70 * DAY) for domain in DOMAINS
        }
        self._queue_keys = {domain: SealingKey.generate(Kem.X25519).public for domain in DOMAINS}
        anchors = {domain: one.root_pem() for domain, one in self._authorities.items()}
        self.trust = TrustAnchors.from_pem(anchors)
        self.ca_keys = {
            domain: cast(ec.EllipticCurvePublicKey, one.root.public_key())
            for domain, one in self._authorities.items()
        }

    def member(self, number: int) -> Member:
        """Make a user, its device and its pseudonymous credential for one room."""
        device = self.device(number)
        key = SigningKey.generate()
        credential, ilk = make_credential(device, SigningKey.generate(), key, int(self.now) + 80 * DAY)
        domain = device.user.domain
        queue = seal_queue_id(domain, self._queue_keys[domain], bytes(32), key.public)
        return Member(LeafIdentity(credential, queue), ilk.reveal(), device)

    def device(self, number: int) -> DeviceIdentity:
        """Make a user with one device, certified on one of sixty days."""
        domain, key = DOMAINS[number % len(DOMAINS)], SigningKey.generate()
        user = MimiUri(domain, Kind.USER, f"user-{number}")
        device = MimiUri(domain, Kind.DEVICE, f"user-{number}-phone")
        certified = self.now - number % CERTIFIED_OVER * DAY
        chain = (self._authorities[domain].issue_device(user, device, key.public, certified),)
        return DeviceIdentity(
            user, device, key, bind_device(SigningKey.generate(), user, device, chain, key.public)
        )

    def own_leaf(self) -> PreparedLeaf:
        """Make the leaf of the resolving client; it is not one of the measured members."""
        domain = DOMAINS[0]
        return prepare_leaf(
            MlsRsEngine(), self.device(0), SigningKey.generate(), self._queue_keys[domain], self.now
        )


@dataclass(slots=True)
class Leaves:
    """The part of an MLS group that `Room.who` uses, over a ratchet tree of leaves."""

    tree: RatchetTree
    epoch: int = 0

    def credentials(self) -> Mapping[int, tuple[bytes, bytes]]:
        """Every member's identity and signature key."""
        return self.tree.credentials()


def make_room(providers: Providers, members: Sequence[Member], wrong: Sequence[int] = ()) -> LocalRoom:
    """Put members into a room; members whose numbers are in `wrong` get a random link key."""
    leaf = providers.own_leaf()
    uri = MimiUri(DOMAINS[0], Kind.ROOM, "room")
    pattern = KeyPackage.from_bytes(leaf.client.key_package()).leaf_node
    rows = {2 * at: leaf_row(pattern, member) for at, member in enumerate(members)}
    tree = WrapTree.create(Suite(), group_id(uri))
    secrets = [LeafSecret(member.ilk) for member in members]
    changes = [Set(at, LeafSecret.generate() if at in wrong else secret) for at, secret in enumerate(secrets)]
    tree.stage(changes, epoch=0, epoch_secret=EpochSecret.generate()).commit()
    user = leaf.identity.credential.user_pseudonym
    policy = sign_policy(default_policy(uri, user, Identities.EVERYONE), 0, leaf.key)
    group = cast(MlsGroup, Leaves(RatchetTree.from_rows(rows)))
    return LocalRoom(uri, leaf, group, tree, policy, tree.tree_hash)


def leaf_row(pattern: LeafNode, member: Member) -> bytes:
    """Return the row of a leaf like `pattern` with this member's credential; its signature is invalid."""
    key, identity = member.identity.credential.signature_public_key, vec(member.identity.to_bytes())
    rest = pattern.encoded[2 * 33 + 2 + len(vec(pattern.identity)) :]
    return bytes([LEAF]) + pattern.encoded[:33] + vec(key) + pattern.encoded[66:68] + identity + rest


# Bare verifications


def bare_verifications(providers: Providers, member: Member) -> list[Bare]:
    """Return the four verifications that are needed to resolve this member."""
    credential = member.identity.credential
    link = open_link(credential, IdentityLinkKey(member.ilk))
    real, content = link.client_credential, credential.tbs.to_bytes()
    user, key = member.device.user, member.device.key.public
    binding = UserBindingTBS(user, member.device.device, key).to_bytes()
    certificate = DeviceCertificate.read(real.chain[0])
    assert certificate is not None
    ca = providers.ca_keys[user.domain]
    signed, signature = certificate.signed, certificate.signature
    return [
        ed25519(
            credential.set_public_key, credential.set_signature, sign_content("PseudonymSetTBS", content)
        ),
        ed25519(real.identity_key, real.binding_signature, sign_content("UserBindingTBS", binding)),
        ed25519(
            key,
            link.pseudonymous_credential_signature,
            sign_content("PseudonymousCredentialTBS", content, MLS),
        ),
        lambda: ca.verify(signature, signed, ECDSA),
    ]


def ed25519(key: bytes, signature: bytes, content: bytes) -> Bare:
    """Return a verification by libsodium."""
    signed = signature + content
    return lambda: crypto_sign_open(signed, key)


# Measuring


@dataclass(slots=True)
class Turns:
    """Processor time of resolving and of bare verifications, which take turns; a `progress` for `Room.who`."""

    checks: Sequence[Sequence[Bare]]
    told: Callable[[int, int], None]
    resolving: list[float] = field(default_factory=list)
    verifying: list[float] = field(default_factory=list)
    _done: int = 0
    _since: float = 0.0

    def start(self) -> None:
        """Begin the first turn."""
        self._since = time.process_time()

    def __call__(self, done: int, total: int) -> None:
        """Verify the members of this turn when all of them are resolved."""
        if done % TURN and done != total:
            return
        resolved = time.process_time()
        for checks in self.checks[self._done : done]:
            for check in checks:
                check()
        verified = time.process_time()
        self.resolving.append(resolved - self._since)
        self.verifying.append(verified - resolved)
        self.told(done, total)
        self._done = done
        self._since = time.process_time()

    @property
    def ratio(self) -> float:
        """Resolving over verifying."""
        return sum(self.resolving) / sum(self.verifying)


@dataclass(frozen=True, slots=True)
class Row:
    """One size. Times are in microseconds of the processor, for one member."""

    n: int
    verified: int
    unverified: int
    resolve_us: float
    verify_us: float
    resolve_over_verify: float
    again_us: float
    rounds: tuple[float, ...]


@dataclass(slots=True)
class Crowd:
    """Members, their bare verifications, and a room of all of them."""

    providers: Providers
    members: list[Member]
    checks: list[list[Bare]]
    local: LocalRoom

    @classmethod
    def gather(cls, n: int, told: Told = untold, wrong: Sequence[int] = ()) -> Crowd:
        """Make n members; the links of those in `wrong` don't open, so nothing is verified of them."""
        providers = Providers(time.time())
        members, checks = [], []
        for number in range(n):
            members.append(providers.member(number))
            checks.append([] if number in wrong else bare_verifications(providers, members[-1]))
            told(f"making {n:,} members", number + 1, n)
        return cls(providers, members, checks, make_room(providers, members, wrong))

    def fresh(self) -> TrustAnchors:
        """Return trust anchors with an empty cache."""
        return TrustAnchors(self.providers.trust.roots)

    def unread(self) -> Room:
        """Return a room that has not read any member yet."""
        it = self.local
        return Room(LocalRoom(it.uri, it.leaf, it.group, it.tree, it.policy, it.hub_tree_hash))

    def part(self, n: int) -> Crowd:
        """Return a room of the first n members."""
        members = self.members[:n]
        return Crowd(self.providers, members, self.checks[:n], make_room(self.providers, members))


def measure(crowd: Crowd, rounds: int, told: Told = untold, until: float = math.inf) -> Row:
    """Resolve all members of a room in several rounds, each without caches; return the median round.

    Stops before a round that would end after `until` (of `time.monotonic`) if it took as long as the last one.
    """
    n, now, turns, standings = len(crowd.members), crowd.providers.now, [], Counter[Standing]()
    trust, room = crowd.fresh(), crowd.unread()
    for number in range(rounds):
        began = time.monotonic()
        turn = Turns(crowd.checks, partial(told, f"resolving {n:,}, round {number + 1}"))
        trust, room = crowd.fresh(), crowd.unread()
        gc.collect()
        gc.freeze()  # excludes objects made during the set-up
        turn.start()
        standings = Counter(entry.standing for entry in room.who(trust, now, turn))
        turns.append(turn)
        ended = time.monotonic()
        if ended + (ended - began) > until:
            break
    start = time.process_time()
    room.who(trust, now)
    again = time.process_time() - start
    gc.unfreeze()
    middle = sorted(turns, key=lambda turn: turn.ratio)[len(turns) // 2]
    return Row(
        n,
        standings[Standing.VERIFIED],
        standings[Standing.UNVERIFIED],
        round(sum(middle.resolving) / n * 1e6, 1),
        round(sum(middle.verifying) / n * 1e6, 1),
        round(middle.ratio, 3),
        round(again / n * 1e6, 1),
        tuple(round(turn.ratio, 3) for turn in turns),
    )


# Steps


def steps(crowd: Crowd) -> dict[str, float]:
    """Time each step alone over some members; microseconds for one."""
    now, members = crowd.providers.now, crowd.members[:STEP_MEMBERS]
    encoded = [member.identity.to_bytes() for member in members]
    rows = [member.identity.credential for member in members]
    ilks = [IdentityLinkKey(member.ilk) for member in members]
    claims = [
        open_claim(one, ilk, one.signature_public_key, now) for one, ilk in zip(rows, ilks, strict=True)
    ]
    known, unknown = crowd.fresh(), [DeviceChain(claim.device.chain.chain) for claim in claims]
    for claim in claims:
        claim.verify(known, now)

    def opened(at: int) -> Claim:
        return open_claim(rows[at], ilks[at], rows[at].signature_public_key, now)

    return {
        "parse the leaf's identity": each(lambda at: LeafIdentity.from_bytes(encoded[at]), len(members)),
        "open and parse the link": each(opened, len(members)),
        "verify: set key (Ed25519)": each(
            lambda at: claims[at].credential.verify_proof(claims[at].content), len(members)
        ),
        "verify: chain, form known": each(
            lambda at: known.certified(claims[at].device.chain, now), len(members)
        ),
        "verify: chain, by its path": each(lambda at: known.certified(unknown[at], now), len(members)),
        "verify: all, device known": each(lambda at: claims[at].verify(known, now), len(members)),
        "bare Ed25519 (libsodium)": each(lambda at: crowd.checks[at][0](), len(members)),
        "bare ECDSA P-256 (OpenSSL)": each(lambda at: crowd.checks[at][3](), len(members)),
    }


def each(step: Callable[[int], object], n: int, rounds: int = 5) -> float:
    """Do a step for each of n members in several rounds; return the median, in microseconds per member."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        for at in range(n):
            step(at)
        taken.append(time.process_time() - start)
    return round(statistics.median(taken) / n * 1e6, 2)


# Report


@contextmanager
def bar(*, forced: bool) -> Iterator[Told]:
    """Draw a progress bar on a terminal; without a terminal, only if `forced`."""
    console = Console(stderr=True, force_terminal=forced or None)
    if not console.is_terminal:
        yield untold
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)


def print_table(rows: Sequence[Row], costs: dict[str, float]) -> None:
    """Print the costs of steps, and the rooms."""
    width = max(len(name) for name in costs)
    for name, cost in costs.items():
        print(f"{name:{width}}  {cost:9.2f} us")
    print(
        f"\n{'members':>8} {'verified':>9} {'resolve us/m':>13} {'bare us/m':>10} {'ratio':>6} {'again us/m':>11}"
    )
    for row in rows:
        print(
            f"{row.n:8,} {row.verified:9,} {row.resolve_us:13.1f} {row.verify_us:10.1f}"
            f" {row.resolve_over_verify:6.3f} {row.again_us:11.1f}"
        )


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw what a member costs at each size; nothing without matplotlib."""
    try:
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        return
    figure, axes = pyplot.subplots(figsize=(8, 4))
    sizes = [row.n for row in rows]
    axes.semilogx(sizes, [row.resolve_us for row in rows], marker="o", label="resolved")
    axes.semilogx(sizes, [row.verify_us for row in rows], marker="o", label="bare verifications")
    axes.semilogx(sizes, [row.again_us for row in rows], marker="o", label="resolved again")
    axes.set(xlabel="members", ylabel="us of the processor a member", ylim=(0, None))
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def headline(told: Told) -> dict[str, object]:
    """Measure the published figure: a room of 10,000, five rounds, or fewer where the machine is slow."""
    until = time.monotonic() + 40
    row = measure(Crowd.gather(10_000, told), 5, told, until)
    assert row.verified == row.n
    return {
        "resolve_over_verify_10k": row.resolve_over_verify,
        "resolve_us_per_member": row.resolve_us,
        "bare_verify_us_per_member": row.verify_us,
        "resolve_again_us_per_member": row.again_us,
        "members_verified": row.verified,
        "rounds": row.rounds,
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--headline", action="store_true", help="the published figure, as one line of JSON")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--progress", action="store_true", help="a bar, also where this is no terminal")
    parser.add_argument(
        "--out", type=Path, default=Path("build/benchmarks"), help="directory for JSON and plot"
    )
    options = parser.parse_args()
    with bar(forced=options.progress) as told:
        if options.headline:
            figures = headline(told)
        else:
            crowd = Crowd.gather(max(options.sizes), told)
            costs = steps(crowd)
            rows = [measure(crowd.part(n), options.rounds, told) for n in sorted(options.sizes)]
    if options.headline:
        print(json.dumps(figures))
        return
    print_table(rows, costs)
    options.out.mkdir(parents=True, exist_ok=True)
    report = {"steps_us": costs, "rooms": [asdict(row) for row in rows]}
    (options.out / "identities.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(rows, options.out / "identities.png")


if __name__ == "__main__":
    main()
