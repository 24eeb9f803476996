"""What every part of a client works with: whose device it is, its clock, vault and path, and its two logs."""

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
    """Something that came and was no good, or that could not be done: what it was, and the error.

    The error is a copy, without the traceback, whose frames would hold in memory what was being worked on.
    """

    subject: str
    error: Exception

    def __str__(self) -> str:
        return f"{self.subject}: {self.error}"


class Refusals:
    """The newest refusals, oldest first. They live as long as the client's process."""

    def __init__(self) -> None:
        """Start with none."""
        self._newest: deque[Refusal] = deque(maxlen=MAX_REFUSALS)

    def add(self, subject: str, error: Exception) -> None:
        """Log one more; the oldest goes when there are more than `MAX_REFUSALS`."""
        bare = Exception.__new__(type(error), *error.args)
        bare.__dict__.update(error.__dict__)
        self._newest.append(Refusal(subject, bare))

    def texts(self) -> list[str]:
        """Return them as a person reads them."""
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
        """Tell the user of something that happened by itself."""
        self.notices.add(text, self.clock())

    def rounded(self, seconds: int) -> int:
        """Return the time as far as a request has to tell it: a clock's error would mark whoever sends it."""
        return int(self.clock()) // seconds * seconds

    def mls_rows(self, leaf_key: SigningKey) -> MutableMapping[bytes, bytes]:
        """Return the vault's table for what the MLS library stores of one leaf's groups."""
        return self.vault.table(f"mls {leaf_key.public.hex()}")

    def drop_mls_rows(self, leaf_key: SigningKey) -> None:
        """Forget what the MLS library stored of one leaf's groups."""
        self.vault.drop(f"mls {leaf_key.public.hex()}")

    async def attempt(self, subject: str, work: Callable[[], Awaitable[object]]) -> MmrError | None:
        """Do one of several things, none of which may keep the others from being done.

        Returns its error, which is logged as a refusal of `subject`; None if all went well.
        """
        try:
            await work()
        except MmrError as error:
            self.refusals.add(subject, error)
            return error
        return None
