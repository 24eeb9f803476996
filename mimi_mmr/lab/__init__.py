"""What measures and shows: the demonstration, the ledger, the test vectors. Nothing of the product imports it. Internal."""
