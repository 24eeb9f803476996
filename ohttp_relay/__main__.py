"""`python -m ohttp_relay` is the `ohttp-relay` command."""

from .cli import main

main()
