"""Deposits: sealed connection requests for an account, and sealed responses for a reply inbox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from mimi_mmr.crypto.sealing import SealedBox
from mimi_mmr.presentation import U64, Fixed, Nested, Struct, Vector


@dataclass(frozen=True, slots=True)
class Deposit(Struct):
    """A sealed connection request, and the hash of the package that it is sealed to."""

    package_hash: Annotated[bytes, Fixed(32)]
    request: SealedBox


@dataclass(frozen=True, slots=True)
class WaitingDeposit(Struct):
    """A deposit and its number, as its recipient gets it."""

    number: Annotated[int, U64]
    deposit: Deposit


@dataclass(frozen=True, slots=True)
class Inbox(Struct):
    """The deposits that wait for an account."""

    deposits: Annotated[tuple[WaitingDeposit, ...], Vector(Nested(WaitingDeposit), 1 << 24)]


@dataclass(frozen=True, slots=True)
class ReplyDeposit(Struct):
    """A sealed connection response, for a reply inbox."""

    queue: Annotated[bytes, Fixed(32)]
    response: SealedBox
