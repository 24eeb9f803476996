"""The messages between clients, hubs and providers, shared by both ends.

Internal, except for the names in the `__all__` of `mimi_mmr.protocol.room`.
"""
