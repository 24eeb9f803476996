"""Tools that measure and demonstrate: the demonstration, the ledger, the test vectors. Internal.

No other package imports it.
"""
