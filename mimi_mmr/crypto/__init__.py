"""Cryptography, in one place to audit. Internal.

`secret` has secrets as types, `signing` Ed25519 and RFC 9420's labelled functions, `aead` AES-256-GCM, `sealing`
HPKE and padding, `certificates` (with `certificate_forms`) X.509. Elsewhere are only SHA-256, comparisons in
constant time, and what belongs to one other place: argon2id and the HMACs of the client's vault
(`mimi_mmr.client.storage.vault_keys`), MLS inside the engine's library (`mimi_mmr.mls.mls_rs`), and the packages
`treewrap` and `ohttp_relay`.
"""
