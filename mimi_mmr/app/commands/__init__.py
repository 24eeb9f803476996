"""Every command of the command line as one model: its name, arguments, help, result and action. Internal.

The agent and the command line are both built from these models. This module itself imports nothing, so that
`mimi-mmr --help` starts fast.
"""

# The first words of the command line, with their help, in the order in which `mimi-mmr --help` lists them.
NOUNS = {
    "status": "Show the state of the account: unread messages, requests, notices, and what fails at the moment.",
    "account": "This device's account.",
    "device": "Further devices of this account.",
    "contact": "Contacts, and requests to become one.",
    "room": "Rooms, their members, and their messages.",
    "asset": "Files that are sent to a room.",
    "agent": "The process that holds the account. It is started when a command needs it.",
}
