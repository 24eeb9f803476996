"""Hub mode: what a hub does for a minimal metadata room, without a socket or a database."""
