"""`mimi-mmr status`: the state of the account and of its agent."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import Field

from mimi_mmr.app.commands.account import AccountResult
from mimi_mmr.app.commands.context import AgentContext, Say
from mimi_mmr.app.commands.model import Argument, Command
from mimi_mmr.app.commands.names import people_rooms
from mimi_mmr.app.commands.result import NoResult, Result

SHOWN_REFUSALS = 10


class NoticeResult(Result):
    """Something that happened without a command; `when` in seconds since 1970. `number` is for `ShownNotices`."""

    number: int
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
        """Return the state; `ShownNotices` then deletes its notices."""
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
            notices=[
                NoticeResult(number=number, when=notice.when, text=notice.text)
                for number, notice in client.notices.numbered()
            ],
            trouble=dict(agent.background.trouble),
            refused=client.refusals.texts()[-SHOWN_REFUSALS:],
            clock=client.path.clock_check.finding(),
        )


class ShownNotices(Command, name="notices.shown", line="", result=NoResult):
    """Note what a person has seen: the notices up to a number are deleted."""

    number: Annotated[int, Field(ge=1), Argument("The number of the last notice that was written out.")]

    async def run(self, agent: AgentContext, say: Say) -> NoResult:
        """Delete them."""
        client = agent.account.unfinished or agent.client
        client.notices.discard(self.number)
        return NoResult()


COMMANDS: tuple[type[Command], ...] = (ShowStatus, ShownNotices)
