"""A provider's own keys, and the signed document in which it publishes the public ones."""

from __future__ import annotations

from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.protocol.provider_keys import ProviderKeys, ProviderKeysTBS, sign_provider_keys
from mimi_mmr.provider.key_files import authority, key_ring, sealing_key, secret_file, trust_anchors
from mimi_mmr.provider.settings import Settings
from ohttp_relay.gateway import KeyKeeper

KEYS_LIFETIME = 7 * 86400
KEY_RING = "ohttp-keys"
KEY_RING_LIFETIME = 30 * 86400.0


class OwnKeys:
    """The CA, the signing key, the two HPKE keys for sealed queue ids and claims, and the gateway's key ring."""

    def __init__(self, settings: Settings) -> None:
        """Read the keys in `data_dir`, and create missing ones; raise `ConfigError`."""
        self._settings = settings
        directory = settings.data_dir
        self.ca = authority(settings)
        self.trust = trust_anchors(settings, self.ca)
        self.signing = SigningKey.from_seed(secret_file(directory / "provider.key", 32))
        self.queues = sealing_key(directory / "queue.key")
        self.key_material = sealing_key(directory / "key-material.key")
        self.ring = key_ring(directory / KEY_RING)
        self._keeper = KeyKeeper(self.ring, directory / KEY_RING, lifetime=KEY_RING_LIFETIME)

    def reload_trust(self) -> None:
        """Read the root certificates again; raise `ConfigError`, and then change nothing."""
        self.trust.replace(trust_anchors(self._settings, self.ca).roots)

    def rotate(self) -> None:
        """Rotate the gateway's keys if they are due."""
        self._keeper.tend()

    def document(self, now: float) -> ProviderKeys:
        """Sign and return the public keys; they expire `KEYS_LIFETIME` seconds after `now`."""
        settings = self._settings
        keys = ProviderKeysTBS(
            settings.domain,
            self.key_material.public,
            self.queues.public,
            self.ring.public_list(),
            settings.base_url,
            settings.asset_host.origin if settings.asset_host else "",
            int(now) + KEYS_LIFETIME,
        )
        return sign_provider_keys(keys, self.signing, [self.ca.issue_provider(self.signing.public, now)])
