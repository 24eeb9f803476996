"""HPKE (RFC 9180), base mode: KEMs, suites, the sender's end by pyhpke, the gateway's end.

Internal but for the names of `__all__`.
"""

from __future__ import annotations

from ohttp_relay.hpke.kem import KEMS, KemId, KemSecret, XWingPair
from ohttp_relay.hpke.sender import SenderContext, XWing, XWingPrivateKey, cipher_suite
from ohttp_relay.hpke.suites import HKDF_SHA256, AeadId, Suite

__all__ = [
    "HKDF_SHA256",
    "KEMS",
    "AeadId",
    "KemId",
    "KemSecret",
    "SenderContext",
    "Suite",
    "XWing",
    "XWingPair",
    "XWingPrivateKey",
    "cipher_suite",
]
