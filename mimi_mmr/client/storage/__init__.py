"""What a client keeps between two runs. Internal, but for `vault.Vault`.

`vault` is the file, `vault_keys` what seals it, `records` the structs in it, `history` messages and notices,
`shared_state` what all devices of a user know, `changes` the undo of what could not be written.
"""
