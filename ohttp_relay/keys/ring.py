"""A gateway's keys: which are advertised, which open requests, how they are stored and replaced.

Only the stored keys and the time decide which keys are advertised and accepted.  So all workers that read the
same directory serve the same list (RFC 9458, section 7, asks for consistency).
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ohttp_relay.errors import ConfigurationError, KeyFileError, UnknownKey
from ohttp_relay.hpke.kem import KEMS, KemId, KemSecret, PrivateKey
from ohttp_relay.hpke.recipient import Schedule
from ohttp_relay.hpke.suites import Suite
from ohttp_relay.keys.configuration import (
    DEFAULT_SUITES,
    MEDIA_TYPE,
    KeyConfig,
    choose_config,
    decode_key_list,
    encode_key_list,
)

__all__ = [
    "DEFAULT_SUITES",
    "MEDIA_TYPE",
    "GatewayKey",
    "KeyConfig",
    "KeyRing",
    "choose_config",
    "decode_key_list",
    "encode_key_list",
]

RING_FILE: Final = "keyring.json"
_LOCK_FILE: Final = "keyring.lock"
_FORMAT: Final = 1
DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class GatewayKey:
    """A key configuration with its private key, advertised from `active_from` (seconds since 1970)."""

    config: KeyConfig
    private: PrivateKey
    active_from: float

    @classmethod
    def generate(cls, key_id: int, kem_id: int, suites: Sequence[Suite], active_from: float) -> GatewayKey:
        """Return a fresh key."""
        private = KEMS[kem_id].generate()
        return cls(KeyConfig(key_id, kem_id, private.public, tuple(suites)), private, active_from)


class KeyRing:
    """All keys a gateway holds.

    The newest active key of each KEM is advertised.  A replaced key is still accepted for `overlap`
    seconds after its successor became active, so that cached lists remain usable; then it is erased.
    """

    def __init__(
        self,
        keys: Iterable[GatewayKey],
        *,
        overlap: float = DAY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = tuple(keys)
        if not self._keys:
            raise ConfigurationError("a key ring holds at least one key")
        self.overlap = overlap
        self._clock = clock
        self._prepared: dict[tuple[bytes, bytes], tuple[PrivateKey, Schedule, int, float]] = {}
        self._source: tuple[Path, int] | None = None

    @classmethod
    def generate(
        cls,
        kems: Sequence[int] = (KemId.X25519,),
        suites: Sequence[Suite] = DEFAULT_SUITES,
        *,
        overlap: float = DAY,
        clock: Callable[[], float] = time.time,
    ) -> KeyRing:
        """Return a ring with one fresh key for each KEM, in this order of preference."""
        now = clock()
        keys = [GatewayKey.generate(i, kem, suites, now) for i, kem in enumerate(kems, start=1)]
        return cls(keys, overlap=overlap, clock=clock)

    @property
    def keys(self) -> tuple[GatewayKey, ...]:
        """The keys that are still accepted."""
        now = self._clock()
        return tuple(key for key in self._keys if now < self._expiry(key))

    def public_configs(self) -> tuple[KeyConfig, ...]:
        """Return the advertised configurations: of each KEM the newest active key, else the next one."""
        now = self._clock()
        newest: dict[int, GatewayKey] = {}
        for key in sorted(self._keys, key=lambda key: key.active_from):
            if key.active_from <= now or key.config.kem_id not in newest:
                newest[key.config.kem_id] = key
        order = dict.fromkeys(key.config.kem_id for key in self._keys)
        return tuple(newest[kem].config for kem in order)

    def public_list(self) -> bytes:
        """Return the advertised configurations as `application/ohttp-keys`."""
        return encode_key_list(self.public_configs())

    def prepare(self, header: bytes, label: bytes) -> tuple[PrivateKey, Schedule, int]:
        """Return private key, key schedule and Nenc for a request header of 7 bytes and its info label.

        Raises UnknownKey if the header names no key held, another KEM than the key's, or a suite that
        the key does not advertise (RFC 9458, section 4.3).
        """
        found = self._prepared.get((header, label))
        if found is None:
            found = self._prepared[header, label] = self._find(header, label)
        private, schedule, enc_size, expiry = found
        if self._clock() >= expiry:
            raise UnknownKey("the key of this identifier has expired")
        return private, schedule, enc_size

    def _find(self, header: bytes, label: bytes) -> tuple[PrivateKey, Schedule, int, float]:
        key_id, kem_id, kdf_id, aead_id = header[0], header[1:3], header[3:5], header[5:7]
        suite = Suite(int.from_bytes(kdf_id, "big"), int.from_bytes(aead_id, "big"))
        for key in self._keys:
            if key.config.key_id == key_id and key.config.kem_id == int.from_bytes(kem_id, "big"):
                if suite not in key.config.suites or not suite.supported:
                    raise UnknownKey("KDF and AEAD are not a pair that this key advertises")
                schedule = Schedule(key.config.kem_id, suite, label + b"\x00" + header)
                return key.private, schedule, KEMS[key.config.kem_id].enc_size, self._expiry(key)
        raise UnknownKey("no key of this identifier and KEM is held")

    def _expiry(self, key: GatewayKey) -> float:
        later = [
            other.active_from
            for other in self._keys
            if other.config.kem_id == key.config.kem_id and other.active_from > key.active_from
        ]
        return min(later) + self.overlap if later else float("inf")

    def rotate(self, *, lead: float = 0.0) -> None:
        """Add a fresh key for each KEM, active in `lead` seconds, and erase the expired ones.

        With several workers, `lead` is the time in which all of them have read the ring again.
        """
        now = self._clock()
        current = list(self.keys)
        used = {key.config.key_id for key in current}
        for config in self.public_configs():
            key_id = _free_id(used, config.key_id)
            used.add(key_id)
            current.append(GatewayKey.generate(key_id, config.kem_id, config.suites, now + lead))
        self._replace(current)

    def is_due(self, lifetime: float) -> bool:
        """Tell whether the newest key is older than `lifetime` seconds."""
        return self._clock() >= max(key.active_from for key in self._keys) + lifetime

    def has_expired(self) -> bool:
        """Tell whether the ring holds a key that is no longer accepted; `save` erases it."""
        return len(self.keys) < len(self._keys)

    def rotate_if_due(self, lifetime: float, *, lead: float = 0.0) -> bool:
        """Rotate if the newest key is older than `lifetime` seconds; tell whether it did."""
        if not self.is_due(lifetime):
            return False
        self.rotate(lead=lead)
        return True

    def _replace(self, keys: Iterable[GatewayKey]) -> None:
        self._keys = tuple(keys)
        self._prepared = {}

    # On disk

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write the ring to `directory` (mode 0700; the file 0600), replacing it in one step."""
        folder = Path(directory)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(folder)
        self._replace(self.keys)
        stored = [_to_json(key) for key in self._keys]
        text = json.dumps({"format": _FORMAT, "overlap": self.overlap, "keys": stored})
        temporary = folder / f".{RING_FILE}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / RING_FILE)
        self._source = folder, (folder / RING_FILE).stat().st_mtime_ns

    @classmethod
    def load(cls, directory: str | os.PathLike[str], *, clock: Callable[[], float] = time.time) -> KeyRing:
        """Read a ring.  Raises KeyFileError if it is missing, damaged, or readable by group or others."""
        folder = Path(directory)
        keys, overlap, stamp = _read(folder)
        ring = cls(keys, overlap=overlap, clock=clock)
        ring._source = folder, stamp
        return ring

    def reload(self) -> bool:
        """Read the ring again if its file changed since; tell whether it did.  Raises KeyFileError."""
        if self._source is None:
            return False
        folder, stamp = self._source
        try:
            if (folder / RING_FILE).stat().st_mtime_ns == stamp:
                return False
        except OSError as error:
            raise KeyFileError(f"the key ring is gone: {error.strerror}") from None
        keys, self.overlap, stamp = _read(folder)
        self._source = folder, stamp
        self._replace(keys)
        return True

    @classmethod
    @contextmanager
    def locked(cls, directory: str | os.PathLike[str]) -> Iterator[None]:
        """Hold the lock of the ring at `directory`, to change it.  Blocks while another process holds it."""
        folder = Path(directory)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _free_id(used: set[int], after: int) -> int:
    for step in range(1, 256):
        if (after + step) % 256 not in used:
            return (after + step) % 256
    raise ConfigurationError("all 256 key identifiers are in use: the overlap is too long for the lifetime")


def _check_private(path: Path) -> None:
    mode = path.stat().st_mode
    if mode & 0o077:
        raise KeyFileError(f"{path.name} is open to group or others (mode {mode & 0o777:03o}): chmod go= it")


def _to_json(key: GatewayKey) -> dict[str, object]:
    return {
        "config": key.config.to_bytes().hex(),
        "private": key.private.secret().reveal().hex(),
        "active_from": key.active_from,
    }


def _read(folder: Path) -> tuple[list[GatewayKey], float, int]:
    path = folder / RING_FILE
    try:
        _check_private(folder)
        _check_private(path)
        stamp = path.stat().st_mtime_ns
        stored = json.loads(path.read_text())
        if stored["format"] != _FORMAT:
            raise KeyFileError(f"key ring has format {stored['format']!r}, expected {_FORMAT}")
        keys = [
            _from_json(str(k["config"]), str(k["private"]), float(k["active_from"])) for k in stored["keys"]
        ]
        return keys, float(stored["overlap"]), stamp
    except OSError as error:
        raise KeyFileError(f"no key ring in {folder}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError):
        raise KeyFileError(f"the key ring in {folder} is damaged") from None


def _from_json(config_hex: str, private_hex: str, active_from: float) -> GatewayKey:
    config = KeyConfig.from_bytes(bytes.fromhex(config_hex))
    private = KEMS[config.kem_id].load(KemSecret(bytes.fromhex(private_hex)))
    if private.public != config.public_key:
        raise KeyFileError("a stored private key does not belong to its configuration")
    return GatewayKey(config, private, active_from)
