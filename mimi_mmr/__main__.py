"""`python -m mimi_mmr` is `mimi-mmr`."""

from mimi_mmr.cli import main

main()
