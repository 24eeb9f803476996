"""The program that a person uses: models of all `commands`, the `agent` that runs them, the command line `cli`.

Internal.
"""
