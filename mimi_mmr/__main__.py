"""`python -m mimi_mmr` is `mimi-mmr`."""

from mimi_mmr.app.cli import main

main()
