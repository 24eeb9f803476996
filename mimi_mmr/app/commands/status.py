"""`mimi-mmr status`: the state of the account and of its agent."""

from __future__ import annotations

import os

from mimi_mmr.app.commands.account import AccountResult
from mimi_mmr.app.commands.context import AgentContext, Say
from mimi_mmr.app.commands.model import Command
from mimi_mmr.app.commands.names import people_rooms
from mimi_mmr.app.commands.result import Result

SHOWN_REFUSALS = 10


class NoticeResult(Result):
    """Something that happened without a command; `when` in seconds since 1970."""

    when: int
    text: str


class StatusResult(Result):
    """The state of the account and of its agent. `clock` says whose clock is off by over a minute, or is empty."""

    account: AccountResult
    pid: int
    rooms: int
    unread: int
    contacts: int
    requests_in: int
    requests_out: int
    notices: list[NoticeResult]
    trouble: dict[str, str]
    refused: list[str]
    clock: str


class ShowStatus(Command, name="status", result=StatusResult):
    """Show the state of the account: unread messages, requests, notices, and what fails at the moment."""

    async def run(self, agent: AgentContext, say: Say) -> StatusResult:
        """Return the state; its notices are deleted, since they are told now."""
        client = agent.client
        rooms = people_rooms(client)
        return StatusResult(
            account=AccountResult.of(client),
            pid=os.getpid(),
            rooms=len(rooms),
            unread=sum(len(membership.messages) for membership in rooms),
            contacts=sum(1 for contact in client.people.contacts.values() if not contact.blocked),
            requests_in=len(agent.requests.known),
            requests_out=len(client.people.outgoing),
            notices=[NoticeResult(when=notice.when, text=notice.text) for notice in client.notices.take()],
            trouble=dict(agent.background.trouble),
            refused=client.refusals.texts()[-SHOWN_REFUSALS:],
            clock=client.path.clock_check.finding(),
        )


COMMANDS: tuple[type[Command], ...] = (ShowStatus,)
