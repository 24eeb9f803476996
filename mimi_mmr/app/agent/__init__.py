"""The process that holds one user's client, and the Unix socket on which it takes commands. Internal."""
