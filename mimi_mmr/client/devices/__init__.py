"""A user's devices among themselves."""
