"""What members, hub and providers say about one room."""
