"""What the agent says no with, beside what the client does; and what a person can do about either."""

from __future__ import annotations

from mimi_mmr.errors import MmrError


class AgentError(MmrError):
    """The agent can't be started, reached or stopped."""

    code = "agent"


class AgentRunning(AgentError):
    """There is an agent for this home already."""

    code = "agent-running"


class BadRequest(AgentError):
    """A request that is not what the agent expects; a command and an agent of two versions, perhaps."""

    code = "bad-request"


class NoAccount(AgentError):
    """There is no account in this home yet."""

    code = "no-account"


class NotFound(AgentError):
    """No room, contact, request, device or message of that name."""

    code = "not-found"


class Ambiguous(AgentError):
    """A name that several rooms or people have; the message lists them."""

    code = "ambiguous"


class NothingYet(AgentError):
    """What was waited for has not come."""

    code = "nothing-yet"


HINTS = {
    "agent-running": "mimi-mmr agent status; mimi-mmr agent stop",
    "bad-request": "an agent of another version may be running: mimi-mmr agent stop, and try again",
    "no-account": "mimi-mmr account create --help",
    "ambiguous": "say it by its id, or its whole URI",
    "state": "the state file is in the home directory (--home, or MIMI_MMR_HOME)",
    "config": "mimi-mmr account trust --help",
    "peer": "a provider did not answer: try again; mimi-mmr status shows whether the last attempts succeeded",
    "private-path": "no private path: nothing was sent in the clear; is the network up? Try again",
    "peer-refused": "the provider takes no such request; its operator may know why",
    "no-key-packages": "their device has to be online to leave new KeyPackages: try again later",
    "not-allowed": "ask an admin of the room",
    "desynchronised": "ask a member to remove you and add you again",
    "removed": "ask a member to add you again",
    "certificate": "is the provider's CA in the trust directory? mimi-mmr account trust takes them anew",
    "user-binding": "don't go on before you have compared contact codes with that person",
    "expired": "is this machine's clock right?",
    "queue-full": "try again later",
    "unauthorized": "the provider does not know this account (any more)",
    "mls": "mimi-mmr room heal, or ask a member to remove you and add you again",
}


def hint_for(error: MmrError) -> str:
    """What to do about an error; "" where its message says it all."""
    return HINTS.get(error.code, "")
