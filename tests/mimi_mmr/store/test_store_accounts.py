"""Accounts: a token opens its own account; a connection package is given once; deposits tell nothing."""

from __future__ import annotations

import asyncio

import pytest

from mimi_mmr.connections import ConnectionPackage, make_connection_package
from mimi_mmr.credentials import DeviceIdentity
from mimi_mmr.errors import NotAllowed, QueueFull, Unauthorized
from mimi_mmr.sealing import SealingKey
from mimi_mmr.secret import AccessToken
from mimi_mmr.store import accounts as accounts_module
from mimi_mmr.store import tables
from mimi_mmr.store.accounts import AccountStore
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.bench import DAY, World
from tests.mimi_mmr.store.conftest import Open

WORLD = World()
BOB: DeviceIdentity = WORLD.device("bob", "b.example")
CATHY = MimiUri("b.example", Kind.USER, "cathy")


def packages(count: int, *, last_resort: bool = False, expiry: float = DAY) -> list[ConnectionPackage]:
    until = int(WORLD.now + expiry)
    return [
        make_connection_package(BOB, SealingKey.generate().public, last_resort=last_resort, expiry=until)
        for _ in range(count)
    ]


@pytest.fixture
async def bobs(accounts: AccountStore) -> AccountStore:
    """With an account of Bob's."""
    await accounts.register(BOB.user, TOKEN)
    return accounts


TOKEN = AccessToken.generate()


async def test_an_account_opens_with_its_token_only(bobs: AccountStore) -> None:
    await bobs.register(CATHY, other := AccessToken.generate())
    await bobs.authenticate(BOB.user, TOKEN)
    await bobs.authenticate(CATHY, other)
    nobody = MimiUri("b.example", Kind.USER, "nobody")
    messages = set()
    for user, token in (
        (BOB.user, other),
        (CATHY, TOKEN),
        (nobody, TOKEN),
        (BOB.user, AccessToken(bytes(32))),
    ):
        with pytest.raises(Unauthorized) as refused:
            await bobs.authenticate(user, token)
        messages.add(str(refused.value))
    assert len(messages) == 1


async def test_a_name_is_taken_once(bobs: AccountStore, opened: Open) -> None:
    with pytest.raises(NotAllowed, match="taken"):
        await bobs.register(BOB.user, AccessToken.generate())
    await bobs.authenticate(BOB.user, TOKEN)
    stores = [bobs, AccountStore(await opened(tables.accounts))]
    tokens = [AccessToken.generate() for _ in range(6)]
    results = await asyncio.gather(
        *(stores[n % 2].register(CATHY, token) for n, token in enumerate(tokens)), return_exceptions=True
    )
    assert results.count(None) == 1
    assert sum(isinstance(one, NotAllowed) for one in results) == 5
    await bobs.authenticate(CATHY, tokens[results.index(None)])


async def test_the_token_is_not_in_the_database(bobs: AccountStore) -> None:
    import sqlalchemy as sa

    async with bobs._database.read() as connection:
        rows = (await connection.execute(sa.select(tables.users))).all()
    assert len(rows) == 1
    assert TOKEN.reveal() not in rows[0].token_hash
    assert len(rows[0].token_hash) == 32


async def test_a_connection_package_is_given_once_then_the_last_resort(bobs: AccountStore) -> None:
    single, last = packages(3), packages(1, last_resort=True)
    await bobs.publish(BOB.user, [*last, *single])
    taken = [await bobs.take_package(BOB.user, WORLD.now) for _ in range(6)]
    assert taken[:3] == [one.to_bytes() for one in single]
    assert taken[3:] == [last[0].to_bytes()] * 3
    assert await bobs.take_package(CATHY, WORLD.now) is None


async def test_of_many_fetches_at_once_each_one_time_package_goes_to_one(
    bobs: AccountStore, opened: Open
) -> None:
    stores = [bobs, *[AccountStore(await opened(tables.accounts)) for _ in range(3)]]
    single, last = packages(6), packages(1, last_resort=True)
    await bobs.publish(BOB.user, [*single, *last])
    taken = await asyncio.gather(*(stores[n % 4].take_package(BOB.user, WORLD.now) for n in range(12)))
    given = [one for one in taken if one != last[0].to_bytes()]
    assert sorted(given) == sorted(one.to_bytes() for one in single)


async def test_an_expired_package_is_not_given(bobs: AccountStore) -> None:
    await bobs.publish(BOB.user, packages(2, expiry=10))
    assert await bobs.take_package(BOB.user, WORLD.now + 11) is None


async def test_an_account_holds_so_many_packages(bobs: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_module, "MAX_PACKAGES", 3)
    await bobs.publish(BOB.user, packages(2))
    with pytest.raises(QueueFull, match="at most 3"):
        await bobs.publish(BOB.user, packages(2))
    await bobs.publish(BOB.user, packages(1))


async def test_publishing_nothing_is_no_error(bobs: AccountStore) -> None:
    await bobs.publish(BOB.user, [])
    assert await bobs.take_package(BOB.user, WORLD.now) is None


async def test_packages_of_the_past_do_not_fill_the_account(
    bobs: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts_module, "MAX_PACKAGES", 2)
    await bobs.publish(BOB.user, packages(2, expiry=10))
    await bobs.expire(WORLD.now + 11)
    await bobs.publish(BOB.user, packages(2))
    assert await bobs.take_package(BOB.user, WORLD.now + 11) is not None


async def test_a_deposit_waits_for_its_user_and_tells_the_depositor_nothing(
    bobs: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts_module, "MAX_REQUESTS", 2)
    for number in range(4):  # two of them above the bound
        await bobs.deposit(BOB.user, b"%d" % number)
    await bobs.deposit(CATHY, b"to nobody")
    waiting = await bobs.requests(BOB.user)
    assert [one.deposit for one in waiting] == [b"0", b"1"]
    assert await bobs.requests(CATHY) == []
    await bobs.forget_request(CATHY, waiting[0].id)
    assert len(await bobs.requests(BOB.user)) == 2
    await bobs.forget_request(BOB.user, waiting[0].id)
    assert [one.deposit for one in await bobs.requests(BOB.user)] == [b"1"]
