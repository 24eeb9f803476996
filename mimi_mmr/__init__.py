"""Minimal metadata rooms for MIMI: rooms whose hub sees pseudonyms only."""
