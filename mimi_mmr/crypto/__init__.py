"""Cryptography, in one package to audit. Internal.

`secret` has the types of secrets, `signing` Ed25519 and RFC 9420's labelled functions, `aead` AES-256-GCM,
`sealing` HPKE and padding, `certificates` and `certificate_forms` X.509. Other modules use only SHA-256 and
constant-time comparison, with these exceptions: argon2id and the HMACs of the client's vault
(`mimi_mmr.client.storage.vault_keys`), MLS in the engine's library (`mimi_mmr.mls.mls_rs`), and the packages
`treewrap` and `ohttp_relay`.
"""
