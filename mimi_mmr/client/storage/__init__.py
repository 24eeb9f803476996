"""A client's stored state. Internal, except for `vault.Vault`.

`vault` is the encrypted file, `vault_keys` its keys, `records` its structs, `history` messages and notices,
`shared_state` the entries that all devices of a user know, and `changes` restores memory after a failed
transaction.
"""
