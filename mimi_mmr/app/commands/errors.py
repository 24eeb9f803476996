"""The errors of commands besides the client's own, and hints on what a person can do about either."""

from __future__ import annotations

from mimi_mmr.errors import MmrError


class AgentError(MmrError):
    """The agent can't be started, reached or stopped, or it can't do this."""

    code = "agent"


class AgentRunning(AgentError):
    """An agent already runs for this home."""

    code = "agent-running"


class BadRequest(AgentError):
    """Not a request that the agent knows, or not an answer that the command line knows.

    The two may be of different versions.
    """

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


class FileProblem(AgentError):
    """A file that a person named can't be read or written; the message names it."""

    code = "file"


class OutputFailed(AgentError):
    """What a command found can't be written to its standard output. Messages that were not written stay unread."""

    code = "output"


class NothingYet(AgentError):
    """The time to wait is over, and nothing came."""

    code = "nothing-yet"


HINTS = {
    "agent-running": "mimi-mmr agent status; mimi-mmr agent stop",
    "bad-request": "an agent of another version may be running: mimi-mmr agent stop, and try again",
    "no-account": "mimi-mmr account create --help",
    "ambiguous": "use its id or its whole URI",
    "state": "the state file is in the home directory (--home, or MIMI_MMR_HOME)",
    "config": "mimi-mmr account trust --help",
    "peer": "a provider did not answer: try again; mimi-mmr status shows what fails at the moment",
    "private-path": "no private path: nothing was sent in the clear; is the network up? Try again",
    "peer-refused": "the provider does not accept such a request; its operator may know why",
    "no-key-packages": "their device has to be online to publish new KeyPackages: try again later",
    "not-allowed": "ask an admin of the room",
    "desynchronised": "ask a member to remove you and add you again",
    "removed": "ask a member to add you again",
    "older-copy": "mimi-mmr room heal ROOM replaces this device's keys there; then send again",
    "file": "name a file that can be read, or a new one in a directory with room for it",
    "output": "messages that were not written stay unread: mimi-mmr room read",
    "certificate": "is the provider's CA in the trust directory? mimi-mmr account trust reads it again",
    "user-binding": "compare contact codes with that person before you go on",
    "expired": "is this machine's clock right?",
    "queue-full": "try again later",
    "unauthorized": "the provider does not know this account, or no longer",
    "mls": "mimi-mmr room heal, or ask a member to remove you and add you again",
}


def hint_for(error: MmrError) -> str:
    """Return what to do about an error; "" where its message says it all."""
    return HINTS.get(error.code, "")
