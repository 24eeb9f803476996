"""`mimi-mmr agent`: the process that holds the account."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field

from mimi_mmr.app.commands.context import AgentContext, Say
from mimi_mmr.app.commands.model import Command, Option
from mimi_mmr.app.commands.result import Result

IDLE_HELP = "End after so many seconds without commands. Default: never."


class AgentResult(Result):
    """Whether the agent of a home is running, as which process, and for which account.

    `unfinished` says what was begun in the home and is not finished: an account, or a further device of one.
    """

    running: bool
    pid: int | None
    account: str | None
    home: str
    unfinished: Literal["account", "device"] | None = None


class StoppedResult(Result):
    """The process that was stopped; None if no agent was running."""

    pid: int | None


class AgentStatus(Command, name="agent.status", result=AgentResult):
    """Show whether the agent is running, and as which process. It is not started."""

    async def run(self, agent: AgentContext, say: Say) -> AgentResult:
        """Return what this agent is."""
        account = str(agent.client.user) if agent.account.registered else None
        unfinished: Literal["account", "device"] | None = None
        if agent.account.unfinished is not None:
            unfinished = "account" if agent.account.entering is None else "device"
        return AgentResult(
            running=True, pid=os.getpid(), account=account, home=str(agent.home), unfinished=unfinished
        )


class StartAgent(AgentStatus, name="agent.start", result=AgentResult):
    """Start the agent in the background, if it is not running."""

    idle: Annotated[float | None, Field(ge=1), Option("--idle", IDLE_HELP, local=True)] = None


# The name "stop", and the shape of requests, must not change: every version has to be able to stop an agent of
# another version, which is what its error tells people to do.
class StopAgent(Command, name="stop", line="agent stop", result=StoppedResult):
    """Stop the agent. Nothing is lost; the next command that needs it starts it again."""

    async def run(self, agent: AgentContext, say: Say) -> StoppedResult:
        """End after the running commands."""
        agent.stop()
        return StoppedResult(pid=os.getpid())


COMMANDS: tuple[type[Command], ...] = (StartAgent, AgentStatus, StopAgent)
