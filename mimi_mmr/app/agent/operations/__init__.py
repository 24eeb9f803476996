"""Everything a command can ask for, by name."""

from __future__ import annotations

from mimi_mmr.app.agent.operations import account, assets, contacts, devices, members, messages, rooms, status
from mimi_mmr.app.agent.operations.registry import OPERATIONS

__all__ = ["OPERATIONS", "account", "assets", "contacts", "devices", "members", "messages", "rooms", "status"]
