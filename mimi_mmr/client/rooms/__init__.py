"""The rooms that a client is in."""
