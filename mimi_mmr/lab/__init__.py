"""Tools that measure and demonstrate: the demonstration, the ledger, the test vectors. Internal.

Only the command `mimi-mmr demo` imports it.
"""
