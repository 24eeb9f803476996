"""Proofs that a Welcome was made by somebody to whom the joiner gave the KeyPackage, and not by a hub.

A hub sees KeyPackages in commits. With one it could make an MLS group of its own that has the room's URI, and send
the joiner a Welcome to that group, with a ratchet tree, a policy and signatures of its own making. A proof is a MAC
under the KeyPackage's welcome key, which is derived from the identity link key: whoever adds a client has that key,
and no hub or provider has it. It covers all that the committer signed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from mimi_mmr.crypto.secret import WelcomeKey
from mimi_mmr.crypto.signing import key_package_ref
from mimi_mmr.errors import WelcomeRejected
from mimi_mmr.presentation import Fixed, Nested, Struct, Vector
from mimi_mmr.protocol.key_packages import AddableKeyPackage

MAX_PROOFS = 1 << 16


@dataclass(frozen=True, slots=True)
class WelcomeProof(Struct):
    """The proof for one added client: HMAC-SHA256 under its welcome key over the commit's `CommitAuthTBS`."""

    key_package_ref: Annotated[bytes, Fixed(32)]
    proof: Annotated[bytes, Fixed(32)]


WELCOME_PROOFS = Vector(Nested(WelcomeProof), MAX_PROOFS * 64, MAX_PROOFS)


def prove_welcome(packages: Iterable[AddableKeyPackage], content: Struct) -> tuple[WelcomeProof, ...]:
    """Make the proofs of a commit that adds these KeyPackages; `content` is its `CommitAuthTBS`."""
    encoded = content.to_bytes()
    return tuple(
        WelcomeProof(key_package_ref(package.key_package), _mac(package.welcome_key, encoded))
        for package in packages
    )


def check_welcome(proofs: Iterable[WelcomeProof], ref: bytes, key: WelcomeKey, content: Struct) -> None:
    """Check the proof for this client's own KeyPackage, in constant time; raise `WelcomeRejected`."""
    found = [proof.proof for proof in proofs if proof.key_package_ref == ref]
    if len(found) != 1:
        raise WelcomeRejected("the Welcome comes without a proof for this KeyPackage: no member has made it")
    if not hmac.compare_digest(found[0], _mac(key, content.to_bytes())):
        raise WelcomeRejected(
            "the Welcome's proof is wrong: whoever made it does not have this KeyPackage's identity link key"
        )


def _mac(key: WelcomeKey, content: bytes) -> bytes:
    return hmac.digest(key.reveal(), content, hashlib.sha256)
