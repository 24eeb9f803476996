"""A provider's keys, signed under its CA: for sealed queue ids and key-material claims, and for Oblivious HTTP.

Clients get this signed document from their own provider, which gives everybody the same copy. So neither a relay
nor the local provider can give a client a different key (RFC 9458, section 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from mimi_mmr.crypto.certificates import MAX_CERTIFICATE, MAX_CHAIN, TrustAnchors
from mimi_mmr.crypto.sealing import SealingPublicKey
from mimi_mmr.crypto.signing import SigningKey, verify
from mimi_mmr.errors import CredentialExpired
from mimi_mmr.presentation import U64, Fixed, Nested, Opaque, Struct, Text, Vector


@dataclass(frozen=True, slots=True)
class ProviderKeysTBS(Struct):
    """The keys of one provider domain; `expiry` in seconds since the epoch.

    `ohttp_keys` is the gateway's key list (`application/ohttp-keys`). `base_url` is the URL of the relay, the
    gateway and the other endpoints. `asset_origin` is this provider's only asset host ("" for none).
    """

    domain: Annotated[str, Text(253)]
    key_material_key: SealingPublicKey
    queue_key: SealingPublicKey
    ohttp_keys: Annotated[bytes, Opaque(16384)]
    base_url: Annotated[str, Text(512)]
    asset_origin: Annotated[str, Text(512)]
    expiry: Annotated[int, U64]


@dataclass(frozen=True, slots=True)
class ProviderKeys(Struct):
    """`ProviderKeysTBS`, the provider's certificate chain, and the signature by the key in it."""

    keys: ProviderKeysTBS
    chain: Annotated[tuple[bytes, ...], Vector(Opaque(MAX_CERTIFICATE), count=MAX_CHAIN)]
    signature: Annotated[bytes, Fixed(64)]

    def verify(self, domain: str, trust: TrustAnchors, now: float) -> ProviderKeysTBS:
        """Return the keys if they belong to `domain` and are still valid; raise a subclass of `IdentityError`."""
        signer = trust.verify_provider(domain, self.chain, now)
        verify(signer, "ProviderKeysTBS", self.keys.to_bytes(), self.signature, by=f"keys of {domain}")
        if self.keys.domain != domain or self.keys.expiry <= now:
            raise CredentialExpired(f"the HPKE keys of {domain} have expired or are another provider's")
        return self.keys


def sign_provider_keys(keys: ProviderKeysTBS, signer: SigningKey, chain: Sequence[bytes]) -> ProviderKeys:
    """Sign a provider's keys for publication."""
    return ProviderKeys(keys, tuple(chain), signer.sign("ProviderKeysTBS", keys.to_bytes()))


@dataclass(frozen=True, slots=True)
class ProviderList(Struct):
    """The signed keys of all providers that this one knows, its own included: the same list for everybody."""

    providers: Annotated[tuple[ProviderKeys, ...], Vector(Nested(ProviderKeys), 1 << 22, 1024)]
