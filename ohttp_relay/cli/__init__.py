"""The `ohttp-relay` command: relay, gateway, proxy, keys.

Internal but for the names of `__all__`. `plain_help` is of use to every command that is made with typer.
"""

from __future__ import annotations


def main() -> None:
    """Run the command; print an error of this package in one line and exit with status 2."""
    from ohttp_relay.cli.commands import main as run  # loads the servers, which plain help does not need

    run()


__all__ = ["main"]
