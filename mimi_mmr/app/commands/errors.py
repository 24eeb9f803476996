"""The errors of commands besides the client's own. What a person can do about either is in `hints`."""

from __future__ import annotations

from mimi_mmr.errors import ConfigError, MmrError


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


class Unfinished(NoAccount):
    """The account of this home was begun, and is not finished yet."""

    code = "unfinished"


class NotBegun(AgentError):
    """No connection to the provider could be made, so nothing of a new account was begun, there or here."""

    code = "not-begun"


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


class SystemFailed(AgentError):
    """The system refused what a command needs: a file, a directory, space on a disk. The message names it."""

    code = "system"

    @classmethod
    def of(cls, error: OSError) -> SystemFailed:
        """Return the error that names what the system refused, and why."""
        return cls(f"{error.filename or 'the system'}: {error.strerror or error}")


class TrustUnusable(ConfigError):
    """The trust anchors of an account are missing, or are none."""

    code = "trust"


class NothingYet(AgentError):
    """The time to wait is over, and nothing came."""

    code = "nothing-yet"
