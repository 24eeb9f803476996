"""Test vectors for other implementers: `python -m mimi_mmr.lab.vectors FILE` writes them.

Bytes are in hex. `structs` has one value of every wire struct, with its fields and its encoding; `derivations` has
every labelled function that a peer must compute alike. Nothing here is random: all bytes except those of key pairs
are SHA-256 of a counter. HPKE encapsulation is random by design, so a sealed box is represented by its `info`
alone.
"""

from __future__ import annotations

import enum
import hashlib
import importlib
import json
import pkgutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import mimi_mmr
from mimi_mmr import presentation, uris
from mimi_mmr.crypto import signing
from mimi_mmr.crypto.sealing import Kem, SealingPublicKey, hpke_info
from mimi_mmr.crypto.secret import AccessToken, ConnectionKey
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.protocol.credentials import PseudonymousCredentialTBS, pad_link
from mimi_mmr.protocol.key_packages import fetch_token, shelf_id
from mimi_mmr.protocol.queues import leaf_binding, queue_id
from mimi_mmr.protocol.room.departures import Departure, departures_hash
from mimi_mmr.protocol.room.join_links import JoinLink, LinkSeed
from mimi_mmr.protocol.room.members_only import MembersOnlyState, SealedStateAAD, StateSecret, seal_state
from mimi_mmr.protocol.room.policy import Identities, RoomPolicy
from mimi_mmr.protocol.room.requests import UpdateCode, UpdateRoomResponse
from mimi_mmr.uris import Kind, MimiUri

DOMAIN = "b.example"


class Stream:
    """Bytes that anyone can make again: SHA-256 of a name and a counter.

    Each struct has a stream of its own name, so that a new struct changes no other's vector.
    """

    def __init__(self, name: str) -> None:
        """Start at 0."""
        self._prefix = b"mimi-mmr vectors " + name.encode()
        self._count = 0

    def __call__(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        out = b""
        while len(out) < size:
            out += hashlib.sha256(self._prefix + self._count.to_bytes(4, "big")).digest()
            self._count += 1
        return out[:size]


# --- structs -----------------------------------------------------------------------------------------


def all_structs() -> list[type[presentation.Struct]]:
    """Return every wire struct of the package, by name; but for those of RFC 9420, which has vectors of its own."""
    for module in pkgutil.walk_packages(mimi_mmr.__path__, "mimi_mmr."):
        if ".demo" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return sorted(
        {kind for kind in _below(presentation.Struct) if _is_ours(kind)}, key=lambda kind: kind.__name__
    )


def _is_ours(kind: type[presentation.Struct]) -> bool:
    module = kind.__module__
    if not module.startswith("mimi_mmr.") or module.startswith("mimi_mmr.mls."):
        return False
    # a slotted dataclass replaces the class it was made from, which may still be around
    return getattr(sys.modules[module], kind.__name__, None) is kind


def _below(kind: type[presentation.Struct]) -> Iterator[type[presentation.Struct]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from _below(sub)


def sample(kind: type[presentation.Struct], draw: Stream) -> presentation.Struct:
    """Make a value of a struct, with every optional part and two items in every vector."""
    special = _SPECIAL.get(kind)
    if special is not None:
        return special(draw)
    return kind(**{name: _value(codec, draw) for name, codec in presentation.layout(kind)})


def _value(codec: presentation.Codec, draw: Stream) -> Any:
    match codec:
        case presentation.Uint(width):
            return int.from_bytes(draw(width), "big")
        case presentation.Fixed(size):
            return draw(size)
        case presentation.Opaque(limit, least):
            return draw(max(least, min(limit, 20)))
        case presentation.Text():
            return DOMAIN
        case presentation.Vector(item):
            return (_value(item, draw), _value(item, draw))
        case presentation.Maybe(item):
            return _value(item, draw)
        case presentation.Code(kind):
            return list(kind)[1]
        case presentation.Boolean():
            return True
        case presentation.Nested(kind):
            return sample(kind, draw)
        case uris.UriCodec(kind):
            return uris.random_uri(DOMAIN, kind or Kind.ROOM, draw(16))
    raise TypeError(f"no sample for {codec}")


def _sealing_key(draw: Stream) -> SealingPublicKey:
    return SealingPublicKey(Kem.X25519, draw(32))


def _policy(draw: Stream) -> RoomPolicy:
    fields = {name: _value(codec, draw) for name, codec in presentation.layout(RoomPolicy)}
    return RoomPolicy(**fields | {"version": 1})


def _response(draw: Stream) -> UpdateRoomResponse:
    return UpdateRoomResponse(UpdateCode.WRONG_EPOCH, "the room is in epoch 7", "wrong-epoch", 7)


_SPECIAL: dict[type[presentation.Struct], Callable[[Stream], presentation.Struct]] = {
    SealingPublicKey: _sealing_key,
    RoomPolicy: _policy,
    UpdateRoomResponse: _response,
}


def describe(value: Any) -> Any:
    """Return a value as JSON: bytes in hex, structs as their fields."""
    match value:
        case bytes():
            return value.hex()
        case enum.IntEnum():
            return value.value
        case MimiUri():
            return str(value)
        case tuple():
            return [describe(item) for item in value]
        case presentation.Struct():
            return {name: describe(getattr(value, name)) for name in value.__dataclass_fields__}  # type: ignore[attr-defined]
    return value


# --- derivations -------------------------------------------------------------------------------------


def derivations(draw: Stream) -> dict[str, Any]:
    """Return inputs and outputs of every labelled function."""
    seed, content, token, upload = draw(32), draw(40), draw(32), draw(32)
    signer, connection = SigningKey.from_seed(seed), ConnectionKey(draw(32))
    return {
        "sign_with_label": {
            "seed": seed.hex(),
            "public_key": signer.public.hex(),
            "label": "RoomPolicyTBS",
            "content": content.hex(),
            "sign_content": signing.sign_content("RoomPolicyTBS", content).hex(),
            "signature": signer.sign("RoomPolicyTBS", content).hex(),
            "signature_with_mls_prefix": signer.sign("RoomPolicyTBS", content, prefix=signing.MLS).hex(),
        },
        "expand_with_label": {
            "secret": connection.reveal().hex(),
            "label": "identity link wrap",
            "context": content.hex(),
            "output": signing.expand_with_label(connection, "identity link wrap", content).hex(),
        },
        "fetch_token": {
            "connection_key": connection.reveal().hex(),
            "token": fetch_token(connection).reveal().hex(),
            "upload_public_key": upload.hex(),
            "shelf": shelf_id(fetch_token(connection), upload).hex(),
        },
        "user_pseudonym": {
            "domain": DOMAIN,
            "set_public_key": signer.public.hex(),
            "pseudonym": str(uris.self_certifying_pseudonym(DOMAIN, signer.public)),
        },
        "queue": {
            "token": token.hex(),
            "queue_id": queue_id(AccessToken(token)).hex(),
            "leaf_signature_key": signer.public.hex(),
            "leaf_binding": leaf_binding(signer.public).hex(),
        },
        "key_package_ref": {"key_package": content.hex(), "ref": signing.key_package_ref(content).hex()},
        "hpke_info": {
            "purpose": "queue id",
            "context": content.hex(),
            "info": hpke_info("queue id", content).hex(),
        },
        "identity_link": _identity_link(draw),
        "join_link": _join_link(draw),
        "members_only_state": _members_only_state(draw),
        "departures_hash": _departures_hash(draw),
    }


def _identity_link(draw: Stream) -> dict[str, str]:
    tbs = sample(PseudonymousCredentialTBS, draw).to_bytes()
    key, plaintext = draw(32), draw(300)
    padded = pad_link(plaintext)
    return {
        "identity_link_key": key.hex(),
        "tbs": tbs.hex(),
        "tbe": plaintext.hex(),
        "padded": padded.hex(),
        "ciphertext": AESGCM(key).encrypt(bytes(12), padded, tbs).hex(),
    }


def _join_link(draw: Stream) -> dict[str, str]:
    room, seed = uris.random_uri(DOMAIN, Kind.ROOM, draw(16)), draw(32)
    link = JoinLink(room, Identities.NOBODY, LinkSeed(seed))
    return {
        "room": str(room),
        "identities": str(int(link.identities)),
        "seed": seed.hex(),
        "uri": link.uri,
        "id": link.id.hex(),
        "signature_public_key": link.signing_key.public.hex(),
        "sealing_private_key": link.sealing_key.seed.hex(),
        "sealing_public_key": link.sealing_key.public.public_key.hex(),
    }


def _members_only_state(draw: Stream) -> dict[str, str]:
    room, secret = uris.random_uri(DOMAIN, Kind.ROOM, draw(16)), draw(32)
    state = MembersOnlyState(name="Tea", topic="Thursdays")
    return {
        "room": str(room),
        "epoch": "7",
        "room_secret": secret.hex(),
        "state": state.to_bytes().hex(),
        "aad": SealedStateAAD(room, 7).to_bytes().hex(),
        "sealed": seal_state(state, StateSecret(secret), room, 7).hex(),
    }


def _departures_hash(draw: Stream) -> dict[str, Any]:
    departures = (sample(Departure, draw), sample(Departure, draw))
    return {
        "departures": [departure.to_bytes().hex() for departure in departures],
        "hash": departures_hash(departures).hex(),  # type: ignore[arg-type]
        "hash_of_none": departures_hash(()).hex(),
    }


def vectors() -> dict[str, Any]:
    """Return all test vectors."""
    structs = {}
    for kind in all_structs():
        value = sample(kind, Stream(kind.__name__))
        structs[kind.__name__] = {"fields": describe(value), "encoding": value.to_bytes().hex()}
    return {"structs": structs, "derivations": derivations(Stream("derivations"))}


def main() -> None:
    """Write the file that the command line names."""
    Path(sys.argv[1]).write_text(json.dumps(vectors(), indent=1) + "\n")


if __name__ == "__main__":
    main()
