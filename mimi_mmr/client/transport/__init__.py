"""How a client reaches providers without their learning who it is."""
