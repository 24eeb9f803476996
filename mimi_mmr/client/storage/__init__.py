"""What a client keeps between two runs."""
