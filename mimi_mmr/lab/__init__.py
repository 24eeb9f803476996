"""What measures and shows: the demonstration, the ledger, the test vectors. Internal.

Nothing of the product imports it.
"""
