"""docs/specs/treewrap.md is true: a reader made of nothing but its structs reads and replays the vectors.

The structs are those that the document prints, interpreted by presentation.py, not the package's codecs.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import treewrap
from tests.treewrap.presentation import Language
from treewrap import (
    ARITIES,
    ChangeKind,
    EpochSecret,
    Kem,
    Link,
    LinkKey,
    MemberUpdate,
    RevokeLink,
    Suite,
    TreeUpdate,
    WrapTree,
    labels,
    nodes,
    root,
    secret,
    suite,
)
from treewrap.links import deferred, records, rules
from treewrap.suite import GroupContext

PACKAGE = Path(treewrap.__file__).parent
TEXT = (PACKAGE.parent / "docs" / "specs" / "treewrap.md").read_text()
VECTORS: dict[str, Any] = json.loads((PACKAGE.parent / "tests" / "vectors" / "treewrap.json").read_text())


def arity_of(around: dict[str, Any]) -> int:
    header = around["header"]
    return int((header.get("header") or header)["suite"][1:])


def is_root(around: dict[str, Any]) -> bool:
    return bool(around["position"] == 0)


def ciphertext_length(around: dict[str, Any]) -> int:
    header = around["header"].get("header") or around["header"]
    slots = int.from_bytes(around["bitmap"], "little").bit_count()
    return slots * 32 + 16 + (header["extra_length"] if is_root(around) else 0)


SPEC = Language(
    TEXT,
    {
        "bitmap_length": lambda around: (arity_of(around) + 7) // 8,
        "ciphertext_length": ciphertext_length,
        "node_count": lambda around: -1,  # the bitmaps tell; here: to the end
        "page_bitmaps_length": lambda around: 64 * ((arity_of(around) + 7) // 8),
        "page_count": lambda around: around["page_count"],
        "height": lambda around: around["header"]["height"],
    },
)
HISTORIES = pytest.mark.parametrize(
    "history", VECTORS["histories"], ids=lambda history: f"k={history['arity']}"
)


def expand(key: bytes, label: str, context: bytes) -> bytes:
    fields = {"length": 32, "label": b"TreeWrap 1.0 " + label.encode(), "context": context}
    return hmac.digest(key, SPEC.encode("KDFLabel", fields) + b"\x01", "sha256")


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


class Reader:
    """Opens a public tree from the document's formulas alone."""

    def __init__(self, content: bytes, epoch_secret: bytes) -> None:
        self.tree = SPEC.decode("PublicTree", content)
        self.row = self.tree["header"]
        self.header = self.row["header"]
        self.arity = int(self.header["suite"][1:])
        self.group_id = self.row["group_id"]
        self.leaves: dict[int, bytes] = {}
        self.extra = b""
        place = {"level": self.header["height"], "index": 0}
        context = {"group_id": self.group_id, "salt": self.header["salt"], **place}
        self._rows = iter(self.tree["rows"])
        self._keys = {0: expand(epoch_secret, "node", SPEC.encode("NodeContext", context))}
        self.tree_hash = sha256(
            b"TreeWrap 1.0 tree",
            SPEC.encode("ConfirmContext", {"group_id": self.group_id, "salt": bytes(16)})[:-16],
            SPEC.encode("RootHeader", self.header),
            self._open(self.header["height"]),
        )
        assert next(self._rows, None) is None

    def _open(self, level: int) -> bytes:
        """Read one level's rows and all below; return the hash of the first node."""
        own: dict[int, tuple[bytes, list[int]]] = {}
        below: dict[int, bytes] = {}
        for index, key in self._keys.items():
            row = next(self._rows)
            bitmap = int.from_bytes(row["bitmap"], "little")
            aad = {"suite": self.header["suite"], "group_id": self.group_id, "level": level, "index": index}
            plaintext = AESGCM(key).decrypt(bytes(12), row["ciphertext"], SPEC.encode("NodeAAD", aad | row))
            slots = [slot for slot in range(self.arity) if bitmap >> slot & 1]
            children = [index * self.arity + slot for slot in slots]
            for at, child in enumerate(children):
                below[child] = plaintext[32 * at : 32 * at + 32]
            if level == self.header["height"]:
                self.extra = plaintext[32 * len(slots) :]
            place = SPEC.encode("NodeRef", {"level": level, "index": index})
            own[index] = sha256(b"TreeWrap 1.0 node", place, SPEC.encode("NodeRow", row)), children
        if level == 1:
            self.leaves = below
            self._hashes = {index: digest for index, (digest, _) in own.items()}
        else:
            self._keys = below
            self._open(level - 1)
            self._hashes = {
                index: sha256(b"TreeWrap 1.0 children", digest, *(self._hashes[child] for child in children))
                for index, (digest, children) in own.items()
            }
        return self._hashes[min(self._hashes)]


@HISTORIES
def test_the_document_alone_opens_every_tree(history: dict[str, Any]) -> None:
    for epoch in history["epochs"]:
        content, key = bytes.fromhex(epoch["public_tree"]), bytes.fromhex(epoch["epoch_secret"])
        read = Reader(content, key)
        assert read.tree_hash.hex() == epoch["tree_hash"]
        tree = WrapTree.open(content, EpochSecret(key), read.tree_hash)
        assert read.leaves == {leaf: tree.secret(leaf).reveal() for leaf in tree.leaves()}
        extra = SPEC.decode("RootExtra", read.extra)
        rooms = {room["name"].decode(): room["secret"] for room in extra["rooms"]}
        assert rooms == {name: tree.room_secret(name).reveal() for name in tree.room_secrets()}


@HISTORIES
def test_the_document_alone_reads_both_messages(history: dict[str, Any]) -> None:
    for epoch in history["epochs"]:
        content = bytes.fromhex(epoch["tree_update"])
        given = SPEC.decode("TreeUpdate", content)
        update = TreeUpdate.from_bytes(content)
        assert SPEC.encode("TreeUpdate", given) == content
        assert [(change["leaf"], ChangeKind[change["kind"].upper()]) for change in given["changes"]] == [
            tuple(change) for change in update.changes
        ]
        assert [node["ciphertext"] for node in given["nodes"]] == [node.ciphertext for node in update.nodes]
        assert given["rebuilt"] == update.rebuilt
        content = bytes.fromhex(epoch["member_update"])
        message = SPEC.decode("MemberUpdate", content)
        assert SPEC.encode("MemberUpdate", message) == content
        read = MemberUpdate.from_bytes(content)
        assert [leaf.get("wrapped", b"") for leaf in message["leaves"]] == [
            leaf.wrapped for leaf in read.leaves
        ]
        assert [room["named_secret"] for room in message["rooms"]] == list(read.rooms)
        assert_tag_and_wraps(history, epoch, message, content)


def assert_tag_and_wraps(
    history: dict[str, Any], epoch: dict[str, Any], message: dict[str, Any], content: bytes
) -> None:
    key, group_id = bytes.fromhex(epoch["epoch_secret"]), bytes.fromhex(history["group_id"])
    context = {"group_id": group_id, "salt": message["header"]["salt"]}
    confirm = expand(key, "confirm", SPEC.encode("ConfirmContext", context))
    assert hmac.digest(confirm, content[:-32], "sha256") == message["tag"]
    canonical = SPEC.decode("CanonicalChanges", bytes.fromhex(epoch["canonical_changes"]))

    def unwrap(label: str, number: int, wrapped: bytes) -> bytes:
        wrap_key = expand(key, label, SPEC.encode("WrapContext", context | {"number": number}))
        aad = {"suite": message["header"]["suite"], "group_id": group_id, "number": number}
        aad["epoch"] = epoch["epoch"]
        return AESGCM(wrap_key).decrypt(bytes(12), wrapped, SPEC.encode("WrapAAD", aad))

    for leaf, inner in zip(message["leaves"], canonical["leaves"], strict=True):
        assert leaf["leaf"] == inner["leaf"]
        if leaf["kind"] == "set":
            assert unwrap("leaf", leaf["leaf"], leaf["wrapped"]) == inner["secret"]
    for number, (room, inner) in enumerate(zip(message["rooms"], canonical["rooms"], strict=True)):
        assert unwrap("room", number, room["named_secret"]) == SPEC.encode("NamedSecret", inner)


def test_the_document_alone_computes_every_salt() -> None:
    def salt(epoch: dict[str, Any], previous: str) -> bytes:
        changes = SPEC.decode("CanonicalChanges", bytes.fromhex(epoch["canonical_changes"]))
        fresh = bytes.fromhex(epoch["random"])[-16:]
        fields = {"fresh": fresh, "previous_tree_hash": bytes.fromhex(previous), "changes": changes}
        secret_ = bytes.fromhex(epoch["epoch_secret"])
        return hmac.digest(secret_, SPEC.encode("SaltInput", fields), "sha256")[:16]

    for vector in VECTORS["salts"]:
        assert salt(vector, vector["previous_tree_hash"]).hex() == vector["salt"]
    for history in VECTORS["histories"]:
        previous = history["empty_tree_hash"]
        for epoch in history["epochs"]:
            assert salt(epoch, previous).hex() == epoch["salt"]
            previous = epoch["tree_hash"]
    for vector in VECTORS["deferred"]:
        leaf = SPEC.decode("DeferredLeaf", bytes.fromhex(vector["deferred_leaf"]))
        fields = {"fresh": bytes.fromhex(vector["random"]), "leaf": vector["leaf"]}
        content = SPEC.encode("DeferredSaltInput", fields | {"secret": bytes.fromhex(vector["secret"])})
        assert len(content) == 64
        assert hmac.digest(bytes.fromhex(vector["epoch_secret"]), content, "sha256")[:16] == leaf["salt"]


def test_the_document_alone_reads_the_keys_paths_seals_and_states() -> None:
    for history in VECTORS["histories"]:
        group_id = bytes.fromhex(history["group_id"])
        for epoch in history["epochs"]:
            for node in epoch["node_keys"]:
                context = {"group_id": group_id, "salt": bytes.fromhex(epoch["salt"])} | node
                key = expand(
                    bytes.fromhex(epoch["epoch_secret"]), "node", SPEC.encode("NodeContext", context)
                )
                assert key.hex() == node["key"]
        for kind, name in (("PathQuery", "path_query"), ("Paths", "paths")):
            content = bytes.fromhex(history[name])
            assert SPEC.encode(kind, SPEC.decode(kind, content)) == content
        last = history["epochs"][-1]
        tree = WrapTree.open(
            bytes.fromhex(last["public_tree"]),
            EpochSecret(bytes.fromhex(last["epoch_secret"])),
            bytes.fromhex(last["tree_hash"]),
        )
        state = SPEC.decode("State", tree.plain_state())
        assert state["tree_hash"] == tree.tree_hash
        assert SPEC.encode("State", state) == tree.plain_state()
    for vector in VECTORS["links"]:
        public = SPEC.decode("PublicTree", bytes.fromhex(vector["public_tree"]))
        [seal] = public["header"]["seals"]
        key = LinkKey.from_bytes(bytes.fromhex(vector["private_key"]))
        context = GroupContext(Suite(vector["arity"]), bytes.fromhex(vector["group_id"]))
        opened = key.open(
            records.LinkSeal(seal["link_id"], seal["sealed"]), context, 1, bytes.fromhex(vector["tree_hash"])
        )
        assert opened.reveal().hex() == vector["root_key"]


def test_signed_contents_are_the_documents() -> None:
    link = Link(bytes(range(16)), Kem.X25519, b"key" * 9, 3, 1_800_000_000, 5)
    fields = {
        "group_id": b"g",
        "id": link.id,
        "kem": "x25519",
        "public_key": link.public_key,
        "creator": 3,
        "expires": link.expires,
        "max_uses": 5,
    }
    assert SPEC.encode("LinkTBS", fields) == link.content(b"g")
    assert SPEC.encode("RevokeTBS", {"group_id": b"g", "id": link.id}) == RevokeLink(link.id, 3).content(b"g")
    for vector in VECTORS["salts"]:
        changes = SPEC.decode("CanonicalChanges", bytes.fromhex(vector["canonical_changes"]))
        assert [SPEC.encode("LinkChange", change).hex() for change in changes["links"]] == vector[
            "link_changes"
        ]
        assert {change["action"] for change in changes["links"]} == {"add", "revoke", "expire", "use"}


def test_enums_are_the_codes_numbers() -> None:
    assert SPEC.enums["Suite"] == (2, {Suite(arity).id: f"k{arity}" for arity in ARITIES})
    assert SPEC.enums["ChangeKind"] == (1, {int(kind): kind.name.lower() for kind in ChangeKind})
    assert SPEC.enums["Kem"] == (2, {int(kem): kem.name.lower() for kem in Kem})
    assert SPEC.enums["LinkAction"][1] == {int(action): action.name.lower() for action in records.LinkAction}


def section(title: str) -> str:
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#)", TEXT, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


def test_limits_are_the_codes() -> None:
    printed = dict(re.findall(r"^\| ([^|]+?) \| ([\d^]+)[^|]*\|$", section("13. Limits"), re.MULTILINE))
    assert {name: eval(value.replace("^", "**")) for name, value in printed.items()} == {  # noqa: S307
        "leaves": 1 << 24,
        "group id": suite.GROUP_ID_LIMIT,
        "room secrets": secret.ROOM_SECRETS_LIMIT,
        "room secret's name": secret.ROOM_NAME_LIMIT,
        "RootExtra": root.EXTRA_LIMIT,
        "live join links": records.LINKS_LIMIT,
        "lifetime of a join link": rules.LINK_LIFETIME,
        "link's public key": records.PUBLIC_KEY_LIMIT,
        "link's signature": records.SIGNATURE_LIMIT,
        "deferred leaves": deferred.DEFERRED_LIMIT,
        "link changes of one update, encoded": records.LINK_CHANGES_SIZE,
    }
    assert nodes.PAGE_NODES == 64
    assert f"Arity {suite.DEFAULT_ARITY} is the default" in " ".join(
        section("3.1. Suites and geometry").split()
    )


def test_labels_are_the_codes() -> None:
    printed = set(re.findall(r"`([^`]+)`", section("4.5. Labels"))) - {"full", "light"}
    values = {name: value for name, value in vars(labels).items() if isinstance(value, bytes)}
    used = {
        labels.PREFIX + value if name.endswith(("_KEY", "_WRAP")) else value
        for name, value in values.items()
        if name != "PREFIX"
    }
    assert {label.encode() for label in printed} == used


def test_sections_that_the_code_names_exist() -> None:
    headings = set(re.findall(r"^#+ ([\d.]+?)\.? ", TEXT, re.MULTILINE))
    named = [
        number
        for path in PACKAGE.rglob("*.py")
        for number in re.findall(r"specs/treewrap\.md, section ([\d.]*\d)", path.read_text())
    ]
    assert len(named) >= 2
    assert set(named) <= headings
    assert set(re.findall(r"\(?Section (\d+(?:\.\d+)?)", TEXT)) <= headings
