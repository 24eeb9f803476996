"""What travels between clients, hubs and providers: one language for both ends.

Internal, but for what `mimi_mmr.protocol.room` names in its `__all__`.
"""
