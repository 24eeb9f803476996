"""What a Tree Wrap costs, against what people use or propose in its place.

`python -m benchmarks.treewrap` prints tables and writes JSON (`--json FILE`) and plots (`--plots DIR`, which
needs matplotlib); `--headline` measures the published figures alone and ends with one line of JSON.
"""

# ruff: noqa: D102 - the methods of every scheme are those of Scheme
from __future__ import annotations

import argparse
import hashlib
import hmac
import importlib
import json
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from treewrap import (
    ARITIES,
    DEFAULT_ARITY,
    EpochSecret,
    LeafSecret,
    LightTree,
    PublicTree,
    Set,
    StagedCommit,
    Suite,
    WrapTree,
    answer_paths,
)
from treewrap.geometry import height_for

GROUP = b"a room to measure"
BATCH = 100
FILL_AT_ONCE = 100_000
KEY, TAG, NONCE = 32, 16, 12


class Scheme(Protocol):
    """One way to keep a secret per member on a hub, with a committer that holds all."""

    label: str
    fs: str
    pcs: str

    def fill(self, n: int) -> None:
        """Set the secrets of leaves 0 to n-1 at once."""

    def open(self) -> None:
        """Download and read all, as a joiner."""

    def change(self, leaves: Sequence[int]) -> tuple[int, int]:
        """Give leaves new secrets in one commit; give bytes uploaded, and fanned out to each member."""

    def resolve(self, leaf: int) -> int:
        """Download and read one secret, holding only what a joiner has; give bytes downloaded."""

    def stored(self) -> int:
        """Count the bytes that the hub keeps and a joiner downloads."""


def seal(key: bytes, plaintext: bytes) -> bytes:
    """Seal under a key that may be used again."""
    nonce = secrets.token_bytes(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, None)


def unseal(key: bytes, sealed: bytes) -> bytes:
    """Open what `seal` made."""
    return AESGCM(key).decrypt(sealed[:NONCE], sealed[NONCE:], None)


class TreeWrapScheme:
    """This package, of one arity."""

    fs = pcs = "yes"

    def __init__(self, arity: int) -> None:
        self.label = f"Tree Wrap, k={arity}"
        self.suite = Suite(arity)
        self.member = WrapTree.create(self.suite, GROUP)
        self.hub = PublicTree.create(self.suite, GROUP)
        self.epoch_secret = EpochSecret.generate()
        self.download = b""

    def stage(self, leaves: Iterable[int]) -> StagedCommit:
        """Compute one commit's change."""
        self.epoch_secret = EpochSecret.generate()
        changes = [Set(leaf, LeafSecret.generate()) for leaf in leaves]
        return self.member.stage(changes, epoch=self.member.epoch + 1, epoch_secret=self.epoch_secret)

    def fill(self, n: int) -> None:
        for start in range(0, n, FILL_AT_ONCE):  # a million changes at once would be a gigabyte of objects
            staged = self.stage(range(start, min(n, start + FILL_AT_ONCE)))
            self.hub.stage(staged.update, epoch=staged.epoch).commit()
            staged.commit()

    def open(self) -> None:
        WrapTree.open(self.download, self.epoch_secret, self.hub.tree_hash)

    def change(self, leaves: Sequence[int]) -> tuple[int, int]:
        staged = self.stage(leaves)
        update, member_update = staged.update.to_bytes(), staged.member_update.to_bytes()
        self.hub.stage(update, epoch=staged.epoch).commit()
        staged.commit()
        return len(update), len(member_update)

    def resolve(self, leaf: int) -> int:
        light = LightTree.of(self.member)
        light.resolve([leaf], partial(answer_paths, self.hub))
        return light.fetched

    def stored(self) -> int:
        self.download = self.hub.to_bytes()
        return len(self.download)


class StaticKey:
    """One wrapper key for the life of the room, as the Internet-Draft sketches."""

    label, fs, pcs = "one static key", "no", "no"

    def fill(self, n: int) -> None:
        self.key = secrets.token_bytes(KEY)
        self.wraps = [seal(self.key, secrets.token_bytes(KEY)) for _ in range(n)]

    def open(self) -> None:
        for wrap in self.wraps:
            unseal(self.key, wrap)

    def change(self, leaves: Sequence[int]) -> tuple[int, int]:
        for leaf in leaves:
            self.wraps[leaf] = seal(self.key, secrets.token_bytes(KEY))
        size = sum(4 + len(self.wraps[leaf]) for leaf in leaves)
        return size, size

    def resolve(self, leaf: int) -> int:
        unseal(self.key, self.wraps[leaf])
        return len(self.wraps[leaf])

    def stored(self) -> int:
        return sum(map(len, self.wraps))


class WholeEachEpoch:
    """Everything encrypted again under each epoch's exporter secret; members keep the plaintext."""

    label, fs, pcs = "all again each epoch", "yes", "yes"

    def fill(self, n: int) -> None:
        self.plaintext = bytearray(secrets.token_bytes(KEY * n))
        self._seal()

    def _seal(self) -> None:
        self.key = secrets.token_bytes(KEY)
        self.blob = seal(self.key, bytes(self.plaintext))

    def open(self) -> None:
        unseal(self.key, self.blob)

    def change(self, leaves: Sequence[int]) -> tuple[int, int]:
        for leaf in leaves:
            self.plaintext[leaf * KEY : (leaf + 1) * KEY] = secrets.token_bytes(KEY)
        self._seal()
        return len(self.blob), len(leaves) * (4 + KEY + TAG)

    def resolve(self, leaf: int) -> int:
        unseal(self.key, self.blob)[leaf * KEY : (leaf + 1) * KEY]
        return len(self.blob)

    def stored(self) -> int:
        return len(self.blob)


class Chain:
    """Each epoch's key wraps the one before it; a secret stays under the key of the epoch that set it."""

    label, fs, pcs = "one wrap per epoch", "no", "yes"

    def fill(self, n: int) -> None:
        self.keys = [secrets.token_bytes(KEY)]
        self.links: list[bytes] = []
        self.wraps = [(0, seal(self.keys[0], secrets.token_bytes(KEY))) for _ in range(n)]

    def _walk(self, epoch: int) -> dict[int, bytes]:
        known = {len(self.keys) - 1: self.keys[-1]}
        for number in range(len(self.keys) - 1, epoch, -1):
            known[number - 1] = unseal(known[number], self.links[number - 1])
        return known

    def open(self) -> None:
        known = self._walk(0)
        for epoch, wrap in self.wraps:
            unseal(known[epoch], wrap)

    def change(self, leaves: Sequence[int]) -> tuple[int, int]:
        key = secrets.token_bytes(KEY)
        self.links.append(seal(key, self.keys[-1]))
        self.keys.append(key)
        for leaf in leaves:
            self.wraps[leaf] = (len(self.keys) - 1, seal(key, secrets.token_bytes(KEY)))
        size = len(leaves) * (4 + NONCE + KEY + TAG)
        return size + len(self.links[-1]), size

    def resolve(self, leaf: int) -> int:
        epoch, wrap = self.wraps[leaf]
        unseal(self._walk(epoch)[epoch], wrap)
        return len(wrap) + (NONCE + KEY + TAG) * (len(self.keys) - 1 - epoch)

    def stored(self) -> int:
        return sum(len(wrap) for _, wrap in self.wraps) + sum(map(len, self.links))


class BinaryTree:
    """A complete binary tree in which every node's key is wrapped by itself under its parent's."""

    label, fs, pcs = "binary, one wrap a node", "yes", "yes"

    def fill(self, n: int) -> None:
        self.leaves = 1 << (n - 1).bit_length()
        self.n = n
        self.keys = [secrets.token_bytes(KEY) for _ in range(self.leaves + n)]  # a heap: 1 is the root
        self.wraps = [b"", b""] + [
            AESGCM(self.keys[at // 2]).encrypt(at.to_bytes(NONCE, "big"), self.keys[at], None)
            for at in range(2, self.leaves + n)
        ]

    def _open(self, at: int, key: bytes) -> bytes:
        return AESGCM(key).decrypt(at.to_bytes(NONCE, "big"), self.wraps[at], None)

    def open(self) -> None:
        opened = [b"", self.keys[1]]
        for at in range(2, len(self.wraps)):
            opened.append(self._open(at, opened[at // 2]))

    def change(self, leaves: Sequence[int]) -> tuple[int, int]:
        touched: set[int] = set()
        for leaf in leaves:
            at = self.leaves + leaf
            self.keys[at] = secrets.token_bytes(KEY)
            while at > 1:
                at //= 2
                touched.add(at)
        uploaded = 0
        for at in sorted(touched, reverse=True):
            self.keys[at] = secrets.token_bytes(KEY)
        for at in touched:
            for child in (2 * at, 2 * at + 1):
                if child < len(self.keys):
                    nonce = child.to_bytes(NONCE, "big")
                    self.wraps[child] = AESGCM(self.keys[at]).encrypt(nonce, self.keys[child], None)
                    uploaded += 4 + len(self.wraps[child])
        return uploaded, len(leaves) * (4 + KEY + TAG)

    def resolve(self, leaf: int) -> int:
        path = [self.leaves + leaf]
        while path[-1] > 2:
            path.append(path[-1] // 2)
        key = self.keys[1]
        for at in reversed([at for at in path if at > 1]):
            key = self._open(at, key)
        return sum(len(self.wraps[at]) for at in path)

    def stored(self) -> int:
        return sum(map(len, self.wraps))


@dataclass(frozen=True, slots=True)
class Row:
    """One scheme at one size. Times are in microseconds; `member` is short for "per member"."""

    scheme: str
    n: int
    fs: str
    pcs: str
    fill_us_member: float
    open_us_member: float
    update_us: float
    batch_us: float
    resolve_us: float
    resolve_bytes: int
    stored_bytes_member: float
    upload_bytes: int
    fanout_bytes: int
    memory_bytes_member: float | None = None


def timed(action: Callable[[], object]) -> float:
    """Run once; return microseconds of processor time, which other processes on the machine hardly change."""
    start = time.process_time()
    action()
    return (time.process_time() - start) * 1e6


def median(action: Callable[[], object], rounds: int) -> float:
    """Run some times; give the median in microseconds."""
    return statistics.median(timed(action) for _ in range(rounds))


def measure(scheme: Scheme, n: int) -> Row:
    """Measure one scheme at one size."""
    fill = timed(lambda: scheme.fill(n))
    stored = scheme.stored()
    opened = median(scheme.open, 3 if n <= FILL_AT_ONCE else 1)
    sizes = scheme.change([secrets.randbelow(n)])
    rounds = 101 if n <= FILL_AT_ONCE or isinstance(scheme, TreeWrapScheme) else 5
    update = median(lambda: scheme.change([secrets.randbelow(n)]), rounds)
    some = range(0, n, max(1, n // BATCH))[:BATCH]
    batch = median(lambda: scheme.change(some), 5)
    fetched = scheme.resolve(secrets.randbelow(n))
    resolve = median(lambda: scheme.resolve(secrets.randbelow(n)), min(rounds, 21))
    peak = memory_of(scheme) / n if isinstance(scheme, TreeWrapScheme) and n >= 10_000 else None
    return Row(
        scheme.label,
        n,
        scheme.fs,
        scheme.pcs,
        round(fill / n, 3),
        round(opened / n, 3),
        round(update, 1),
        round(batch, 1),
        round(resolve, 1),
        fetched,
        round(stored / n, 2),
        *sizes,
        None if peak is None else round(peak, 1),
    )


def memory_of(scheme: TreeWrapScheme) -> int:
    """Measure what holding the full tree adds to an interpreter's peak, opened from a download."""
    tiny = TreeWrapScheme(scheme.suite.arity)
    tiny.fill(1)
    return peak_of(scheme) - peak_of(tiny)


def peak_of(scheme: TreeWrapScheme) -> int:
    """Open the tree in a process of its own, from a stream, and give the process's peak in bytes."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "tree")
        path.write_bytes(scheme.hub.to_bytes())
        arguments = [str(path), scheme.epoch_secret.reveal().hex(), scheme.hub.tree_hash.hex()]
        command = [sys.executable, "-m", "benchmarks.treewrap", "--hold", *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return int(done.stdout)


def hold(path: str, epoch_secret: str, tree_hash: str) -> None:
    """Open and hold one tree, and print the peak of this process's memory."""
    with Path(path).open("rb") as stream:
        tree = WrapTree.open(stream, EpochSecret(bytes.fromhex(epoch_secret)), bytes.fromhex(tree_hash))
    assert tree.height
    print(peak_of_this_process())


def peak_of_this_process() -> int:
    """Give the most bytes of memory that this process ever had."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had before exec
        return (
            int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1])
            * 1024
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def update_time(scheme: TreeWrapScheme, rounds: int = 5, each: int = 200) -> float:
    """Time staging and committing one changed leaf, both messages made; the best round's median."""

    def once() -> float:
        changes = [Set(secrets.randbelow(len(leaves)), LeafSecret.generate())]
        scheme.epoch_secret = EpochSecret.generate()
        epoch = scheme.member.epoch + 1
        start = time.process_time()
        scheme.member.stage(changes, epoch=epoch, epoch_secret=scheme.epoch_secret).commit()
        return (time.process_time() - start) * 1e6

    leaves = scheme.member.leaves()
    return min(statistics.median(once() for _ in range(each)) for _ in range(rounds))


def primitives_time(arity: int, rounds: int = 500) -> float:
    """Time the cryptography alone of one changed leaf in a tree of 100,000: the floor for `update_time`."""
    levels = height_for(Suite(arity).bits, 100_000 - 1)
    key, slots, hashes = secrets.token_bytes(KEY), secrets.token_bytes(arity * KEY), secrets.token_bytes(4096)

    def once() -> None:
        for _ in range(levels):  # nodes: key, seal, own hash
            AESGCM(hmac.digest(key, slots[:80], "sha256")).encrypt(bytes(NONCE), slots, hashes[:40])
            hashlib.sha256(hashes[: len(slots) + 68]).digest()
        for _ in range(levels - 1):  # nodes with children
            hashlib.sha256(hashes[: len(slots) + 58]).digest()
        AESGCM(hmac.digest(key, slots[:80], "sha256")).encrypt(bytes(NONCE), key, hashes[:40])
        for _ in range(3):  # salt, confirmation key, confirmation tag
            hmac.digest(key, slots[:150], "sha256")

    return median(once, rounds)


def headline(arity: int) -> dict[str, float]:
    """Measure the published figures, for one arity."""
    full, small, ten, binary = (TreeWrapScheme(each) for each in (arity, arity, arity, 2))
    for scheme, n in ((full, 100_000), (small, 1_000), (ten, 10_000), (binary, 100_000)):
        scheme.fill(n)
        scheme.stored()
    open_wide = min(timed(full.open) for _ in range(7))
    open_2 = min(timed(binary.open) for _ in range(3))
    memory = memory_of(full)
    uploaded, one = full.change([0])
    _, many = full.change(range(BATCH))
    update, update_small = update_time(full), update_time(small)
    return {
        f"bytes_per_member_10k_k{arity}": round(ten.stored() / 10_000, 2),
        f"open_us_per_member_100k_k{arity}": round(open_wide / 100_000, 3),
        f"open_k2_over_k{arity}_100k": round(open_2 / open_wide, 1),
        "update_us_100k": round(update, 1),
        "update_primitives_us_100k": round(primitives_time(arity), 1),
        "update_100k_over_1k": round(update / update_small, 2),
        "upload_bytes_one_leaf_100k": uploaded,
        "fanout_bytes_per_leaf": round(many / BATCH, 2),
        "fanout_bytes_one_leaf": one,
        "memory_bytes_per_member_100k": round(memory / 100_000, 1),
    }


COLUMNS = {
    "scheme": "scheme",
    "fs": "FS",
    "pcs": "PCS",
    "fill_us_member": "fill us/m",
    "open_us_member": "open us/m",
    "update_us": "update us",
    "batch_us": f"{BATCH} us",
    "resolve_us": "resolve us",
    "resolve_bytes": "resolve B",
    "stored_bytes_member": "stored B/m",
    "upload_bytes": "upload B",
    "fanout_bytes": "fan-out B",
    "memory_bytes_member": "memory B/m",
}


def print_table(n: int, rows: Sequence[Row]) -> None:
    """Print one size's rows: times in microseconds, /m is per member."""
    cells = [list(COLUMNS.values())]
    cells += [
        [str(asdict(row)[name] if asdict(row)[name] is not None else "-") for name in COLUMNS] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\nn = {n:,}")
    for line in cells:
        print(
            "  ".join(
                cell.rjust(width) if at else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
        )


def plot(rows: Sequence[Row], directory: Path) -> None:
    """Draw one log-log plot per cost. Raises SystemExit without matplotlib."""
    try:
        pyplot: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        raise SystemExit("plots need matplotlib: pip install matplotlib") from None
    directory.mkdir(parents=True, exist_ok=True)
    for name in list(COLUMNS)[3:]:
        figure, axes = pyplot.subplots(layout="constrained", figsize=(9, 5))
        for label in dict.fromkeys(row.scheme for row in rows):
            points = [(row.n, asdict(row)[name]) for row in rows if row.scheme == label]
            drawn = [(n, value) for n, value in points if value]
            if drawn:
                axes.loglog(*zip(*drawn, strict=True), marker="o", label=label)
        axes.set(xlabel="members", ylabel=COLUMNS[name])
        if axes.lines:
            figure.legend(loc="outside right upper")
            figure.savefig(directory / f"{name}.png")
        pyplot.close(figure)


def run(sizes: Sequence[int], arities: Sequence[int]) -> list[Row]:
    """Measure and print every scheme at every size."""
    rows: list[Row] = []
    for n in sizes:
        schemes: list[Callable[[], Scheme]] = [StaticKey, WholeEachEpoch, Chain, BinaryTree]
        schemes += [partial(TreeWrapScheme, arity) for arity in arities]
        here = [measure(make(), n) for make in schemes]
        print_table(n, here)
        rows += here
    return rows


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--headline", action="store_true", help="the published figures, as one line of JSON")
    parser.add_argument("--arity", type=int, default=DEFAULT_ARITY, choices=ARITIES, help="of the headline")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--arities", type=int, nargs="+", default=list(ARITIES), choices=ARITIES)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw them")
    parser.add_argument("--hold", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hold:
        hold(*options.hold)
    elif options.headline:
        print(json.dumps(headline(options.arity)))
    else:
        rows = run(options.sizes, options.arities)
        if options.json:
            options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
        if options.plots:
            plot(rows, options.plots)


if __name__ == "__main__":
    main()
