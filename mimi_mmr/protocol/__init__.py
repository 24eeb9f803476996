"""What travels between clients, hubs and providers: one language for both ends."""
