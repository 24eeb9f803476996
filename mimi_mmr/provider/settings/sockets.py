"""Sockets that systemd opened for the server (sd_listen_fds)."""

from __future__ import annotations

import os


def socket_was_passed() -> bool:
    """Return whether systemd passed a socket (LISTEN_FDS); it is file descriptor 3."""
    return os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "0") != "0"


def activated_socket(listen: str) -> int | None:
    """Return the file descriptor that `fd:N` names, or None for an address."""
    kind, _, number = listen.rpartition(":")
    return int(number) if kind == "fd" else None
