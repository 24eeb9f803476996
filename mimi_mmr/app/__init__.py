"""What a person uses: the commands, the agent that holds the account, the command line."""
