"""What every part of a client uses: device, clock, vault, private path, notices and refusals."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field

from mimi_mmr.client.storage.changes import Changes
from mimi_mmr.client.storage.history import Notices
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.client.transport.private_path import PrivatePath
from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import MmrError
from mimi_mmr.mls.engine import MlsEngine
from mimi_mmr.uris import MimiUri

MAX_REFUSALS = 500


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that was received and refused, or that failed: its subject and the error.

    The error is a copy without the traceback: the traceback's frames would keep the processed data in memory.
    """

    subject: str
    error: Exception

    def __str__(self) -> str:
        return f"{self.subject}: {self.error}"


class Refusals:
    """The newest refusals, oldest first. They are held in memory only."""

    def __init__(self) -> None:
        """Start with none."""
        self._newest: deque[Refusal] = deque(maxlen=MAX_REFUSALS)

    def add(self, subject: str, error: Exception) -> None:
        """Add a refusal; drop the oldest when there are more than `MAX_REFUSALS`."""
        bare = Exception.__new__(type(error), *error.args)
        bare.__dict__.update(error.__dict__)
        self._newest.append(Refusal(subject, bare))

    def texts(self) -> list[str]:
        """Return each refusal as a text for people."""
        return [str(refusal) for refusal in self._newest]

    def __iter__(self) -> Iterator[Refusal]:
        return iter(self._newest)

    def __len__(self) -> int:
        return len(self._newest)


@dataclass(frozen=True, slots=True)
class Context:
    """What all parts of one client share. `clock` gives seconds since 1970."""

    user: MimiUri
    device: MimiUri
    trust: TrustAnchors
    clock: Callable[[], float]
    vault: Vault
    changes: Changes
    path: PrivatePath
    engine: MlsEngine
    notices: Notices
    refusals: Refusals = field(default_factory=Refusals)

    def notify(self, text: str) -> None:
        """Add a notice for the user about something that happened without their request."""
        self.notices.add(text, self.clock())

    def rounded(self, seconds: int) -> int:
        """Return the time, rounded for a request.

        An exact time would show the error of this clock, and so identify the sender.
        """
        return int(self.clock()) // seconds * seconds

    def mls_rows(self, leaf_key: SigningKey) -> MutableMapping[bytes, bytes]:
        """Return the vault's table in which the MLS library stores one leaf's groups."""
        return self.vault.table(f"mls {leaf_key.public.hex()}")

    def drop_mls_rows(self, leaf_key: SigningKey) -> None:
        """Delete what the MLS library stored for one leaf's groups."""
        self.vault.drop(f"mls {leaf_key.public.hex()}")

    async def attempt(self, subject: str, work: Callable[[], Awaitable[object]]) -> MmrError | None:
        """Do one of several independent pieces of work, without letting its failure stop the others.

        Returns the error, which is also added to the refusals under `subject`; None on success.
        """
        try:
            await work()
        except MmrError as error:
            self.refusals.add(subject, error)
            return error
        return None
