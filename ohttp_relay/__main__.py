"""`python -m ohttp_relay` is the `ohttp-relay` command."""

from ohttp_relay.cli import main

main()
