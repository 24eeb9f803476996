"""hpke."""
