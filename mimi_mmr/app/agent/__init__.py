"""A process that holds one user's client, and the Unix socket that commands talk to it through."""
