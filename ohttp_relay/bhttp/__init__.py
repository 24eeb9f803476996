"""bhttp."""
