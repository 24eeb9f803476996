"""All commands, by their names on the agent's socket."""

from __future__ import annotations

from mimi_mmr.app.commands import (
    account,
    agent,
    asset,
    completion,
    contact,
    device,
    member,
    message,
    room,
    status,
)
from mimi_mmr.app.commands.model import Command

_MODULES = (status, account, device, contact, room, member, message, asset, agent, completion)
COMMANDS: dict[str, type[Command]] = {
    command.about.name: command for module in _MODULES for command in module.COMMANDS
}
