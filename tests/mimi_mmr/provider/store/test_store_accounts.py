"""Accounts: a device's token opens its own account; a package is given once; deposits tell nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import sqlalchemy as sa

from mimi_mmr.crypto.sealing import SealingKey
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import NotAllowed, QueueFull, Unauthorized
from mimi_mmr.protocol.accounts import PackageCount, PackagesLeft
from mimi_mmr.protocol.connections import ConnectionPackage, make_connection_package
from mimi_mmr.protocol.credentials import DeviceIdentity
from mimi_mmr.provider.store import accounts as accounts_module
from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.accounts import AccountStore, Caller, Device
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.bench import DAY, World
from tests.mimi_mmr.provider.store.conftest import Open, statements

WORLD = World()
BOB: DeviceIdentity = WORLD.device("bob", "b.example")
CATHY = MimiUri("b.example", Kind.USER, "cathy")


def packages(count: int, *, last_resort: bool = False, expiry: float = DAY) -> list[ConnectionPackage]:
    until = int(WORLD.now + expiry)
    return [
        make_connection_package(BOB, SealingKey.generate().public, last_resort=last_resort, expiry=until)
        for _ in range(count)
    ]


def device(name: str, token: AccessToken | None = None) -> Device:
    uri = MimiUri("b.example", Kind.DEVICE, name)
    return Device(uri, SigningKey.generate().public, token or AccessToken.generate())


TOKEN = AccessToken.generate()
PHONE = Device(BOB.device, BOB.key.public, TOKEN)
BOBS_PHONE = Caller(BOB.user, BOB.device, BOB.key.public)


@pytest.fixture
async def bobs(accounts: AccountStore) -> AccountStore:
    """With an account of Bob's."""
    await accounts.register(BOB.user, PHONE)
    return accounts


# --- accounts and devices ----------------------------------------------------------------------------


async def test_an_account_opens_with_its_token_only(bobs: AccountStore) -> None:
    await bobs.register(CATHY, device("cathy-phone", other := AccessToken.generate()))
    assert await bobs.authenticate(BOB.user, TOKEN) == BOBS_PHONE
    assert (await bobs.authenticate(CATHY, other)).device.name == "cathy-phone"
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


async def test_an_unknown_user_costs_the_database_what_a_wrong_token_costs(bobs: AccountStore) -> None:
    asked = {}
    for user in (BOB.user, CATHY):
        with statements(bobs._database) as asked[user], pytest.raises(Unauthorized):
            await bobs.authenticate(user, AccessToken.generate())
    assert asked[BOB.user] == asked[CATHY]


async def test_a_name_is_taken_once(bobs: AccountStore, opened: Open) -> None:
    with pytest.raises(NotAllowed, match="taken"):
        await bobs.register(BOB.user, device("bob-tablet"))
    await bobs.authenticate(BOB.user, TOKEN)
    stores = [bobs, AccountStore(await opened(tables.accounts))]
    phones = [device("cathy-phone") for _ in range(6)]
    results = await asyncio.gather(
        *(stores[n % 2].register(CATHY, phone) for n, phone in enumerate(phones)), return_exceptions=True
    )
    (got,) = [number for number, one in enumerate(results) if isinstance(one, MimiUri)]
    assert sum(isinstance(one, NotAllowed) for one in results) == 5
    await bobs.authenticate(CATHY, phones[got].token)


async def test_the_same_registration_again_changes_nothing_and_any_other_is_refused(
    bobs: AccountStore,
) -> None:
    await bobs.register(BOB.user, PHONE)
    key, name = SigningKey.generate().public, MimiUri("b.example", Kind.DEVICE, "bob-other")
    for other, why in (
        (replace(PHONE, token=AccessToken.generate()), "taken"),
        (replace(PHONE, public_key=key), "taken"),
        (replace(PHONE, uri=name), "another device's"),
    ):
        with pytest.raises(NotAllowed, match="user name is taken"):
            await bobs.register(BOB.user, other)
        with pytest.raises(NotAllowed, match=why):
            await bobs.add_device(BOBS_PHONE, other)
    assert await bobs.devices(BOB.user) == [BOB.device]
    assert await bobs.authenticate(BOB.user, TOKEN) == BOBS_PHONE


def phone_of(user: MimiUri, token: AccessToken | None = None) -> Device:
    uri = MimiUri.of_device(user, "phone")
    return Device(uri, SigningKey.generate().public, token or AccessToken.generate())


async def test_two_peoples_devices_have_the_same_name(accounts: AccountStore) -> None:
    first, second = phone_of(BOB.user), phone_of(CATHY)
    assert await accounts.register(BOB.user, first) == first.uri
    assert await accounts.register(CATHY, second) == second.uri
    for user, phone in ((BOB.user, first), (CATHY, second)):
        assert await accounts.authenticate(user, phone.token) == Caller(user, phone.uri, phone.public_key)
        tablet = replace(phone_of(user), uri=MimiUri.of_device(user, "tablet"))
        await accounts.add_device(Caller(user, phone.uri, phone.public_key), tablet)
    await accounts.remove_device(Caller(CATHY, second.uri, second.public_key), "tablet")
    assert [one.name for one in await accounts.devices(BOB.user)] == ["phone", "tablet"]
    assert [one.name for one in await accounts.devices(CATHY)] == ["phone"]


async def test_a_device_of_the_older_form_of_uri_stays_and_its_name_is_the_accounts(
    bobs: AccountStore,
) -> None:
    """`bobs` holds `mimi://b.example/d/bob-phone`, as version 0.1.0 registered it."""
    again = replace(PHONE, uri=MimiUri.of_device(BOB.user, BOB.device.name))
    assert await bobs.register(BOB.user, again) == BOB.device
    assert await bobs.add_device(BOBS_PHONE, again) == BOB.device
    with pytest.raises(NotAllowed, match="taken"):
        await bobs.add_device(BOBS_PHONE, replace(again, token=AccessToken.generate()))
    await bobs.add_device(BOBS_PHONE, tablet := device("tablet"))
    await bobs.remove_device(await bobs.authenticate(BOB.user, tablet.token), BOB.device.name)
    with pytest.raises(Unauthorized):
        await bobs.authenticate(BOB.user, TOKEN)


async def test_a_refused_account_leaves_its_name_free(bobs: AccountStore) -> None:
    with pytest.raises(NotAllowed, match="another device's"):
        await bobs.register(CATHY, phone_of(CATHY, TOKEN))
    await bobs.register(CATHY, phone := phone_of(CATHY))
    caller = await bobs.authenticate(CATHY, phone.token)
    with pytest.raises(NotAllowed, match="taken"):
        await bobs.add_device(caller, phone_of(CATHY))


async def test_every_device_opens_the_account_until_it_is_removed(bobs: AccountStore) -> None:
    tablet = device("bob-tablet")
    await bobs.add_device(BOBS_PHONE, tablet)
    await bobs.add_device(BOBS_PHONE, tablet)  # the answer was lost
    assert [one.name for one in await bobs.devices(BOB.user)] == ["bob-phone", "bob-tablet"]
    caller = await bobs.authenticate(BOB.user, tablet.token)
    assert caller == Caller(BOB.user, tablet.uri, tablet.public_key)
    await bobs.remove_device(caller, BOB.device.name)
    await bobs.remove_device(caller, BOB.device.name)
    with pytest.raises(Unauthorized):
        await bobs.authenticate(BOB.user, TOKEN)
    with pytest.raises(NotAllowed, match="last device"):
        await bobs.remove_device(caller, tablet.uri.name)
    with pytest.raises(NotAllowed, match="taken"):  # nor does the first registration bring it back
        await bobs.register(BOB.user, PHONE)


async def test_what_a_removed_device_began_it_can_not_end(bobs: AccountStore) -> None:
    """It was let in just before another device removed it."""
    tablet = device("bob-tablet")
    await bobs.add_device(BOBS_PHONE, tablet)
    await bobs.remove_device(await bobs.authenticate(BOB.user, tablet.token), BOB.device.name)
    for late in (
        bobs.add_device(BOBS_PHONE, device("bob-spy")),
        bobs.remove_device(BOBS_PHONE, tablet.uri.name),
        bobs.publish(BOBS_PHONE, packages(1)),
        bobs.withdraw_packages(BOBS_PHONE),
        bobs.close_account(BOBS_PHONE),
    ):
        with pytest.raises(Unauthorized):
            await late
    assert await bobs.devices(BOB.user) == [tablet.uri]


async def test_a_users_devices_are_removed_by_that_user_only(bobs: AccountStore) -> None:
    await bobs.register(CATHY, phone := device("cathy-phone"))
    caller = await bobs.authenticate(CATHY, phone.token)
    await bobs.add_device(caller, device("cathy-tablet"))
    await bobs.remove_device(caller, BOB.device.name)  # no device of hers: nothing happens
    assert await bobs.authenticate(BOB.user, TOKEN) == BOBS_PHONE


async def test_two_devices_that_remove_each_other_leave_one(bobs: AccountStore, opened: Open) -> None:
    other = AccountStore(await opened(tables.accounts))
    for number in range(4):
        (name,) = await bobs.devices(BOB.user)
        here = Caller(BOB.user, name, b"")
        await bobs.add_device(here, added := device(f"bob-{number}"))
        there = Caller(BOB.user, added.uri, b"")
        results = await asyncio.gather(
            bobs.remove_device(here, added.uri.name),
            other.remove_device(there, name.name),
            return_exceptions=True,
        )
        assert sorted(type(one).__name__ for one in results) == ["NoneType", "Unauthorized"]
        assert len(await bobs.devices(BOB.user)) == 1


async def test_an_account_has_so_many_devices(
    bobs: AccountStore, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts_module, "MAX_DEVICES", 3)
    stores = [bobs, AccountStore(await opened(tables.accounts))]
    added = [device(f"bob-{number}") for number in range(6)]
    results = await asyncio.gather(
        *(stores[n % 2].add_device(BOBS_PHONE, one) for n, one in enumerate(added)), return_exceptions=True
    )
    assert sum(isinstance(one, MimiUri) for one in results) == 2
    assert len(await bobs.devices(BOB.user)) == 3
    await bobs.add_device(BOBS_PHONE, next(one for one in added if one.uri in results))  # which is there
    with pytest.raises(NotAllowed, match="at most 3"):
        await bobs.add_device(BOBS_PHONE, device("bob-more"))


async def test_of_two_devices_that_want_one_name_in_an_account_one_gets_it(
    bobs: AccountStore, opened: Open
) -> None:
    other = AccountStore(await opened(tables.accounts))
    results = await asyncio.gather(
        bobs.add_device(BOBS_PHONE, phone_of(BOB.user)),
        other.add_device(BOBS_PHONE, phone_of(BOB.user)),
        return_exceptions=True,
    )
    assert {type(one) for one in results} == {MimiUri, NotAllowed}


async def test_a_closed_account_leaves_its_name_and_nothing_else(bobs: AccountStore) -> None:
    await bobs.add_device(BOBS_PHONE, tablet := device("bob-tablet"))
    await bobs.publish(BOBS_PHONE, packages(2))
    await bobs.deposit(BOB.user, b"a request")
    await bobs.close_account(BOBS_PHONE)
    for token in (TOKEN, tablet.token):
        with pytest.raises(Unauthorized):
            await bobs.authenticate(BOB.user, token)
    for again in (PHONE, device("bob-new")):
        with pytest.raises(NotAllowed, match="taken"):
            await bobs.register(BOB.user, again)
    await bobs.deposit(BOB.user, b"for whoever has the name next")
    assert await bobs.requests(BOB.user) == []
    assert await bobs.take_package(BOB.user, WORLD.now) is None
    async with bobs._database.read() as connection:
        for table in tables.accounts.tables.values():
            rows = (await connection.execute(sa.select(table))).all()
            assert [tuple(row) for row in rows] == ([(str(BOB.user), False)] if table is tables.users else [])


async def test_the_token_is_not_in_the_database(bobs: AccountStore) -> None:
    async with bobs._database.read() as connection:
        rows = (await connection.execute(sa.select(tables.devices))).all()
    assert len(rows) == 1
    assert TOKEN.reveal() not in rows[0].token_hash
    assert len(rows[0].token_hash) == 32


# --- connection packages -----------------------------------------------------------------------------


async def test_a_connection_package_is_given_once_then_the_last_resort(bobs: AccountStore) -> None:
    single, last = packages(3), packages(1, last_resort=True)
    await bobs.publish(BOBS_PHONE, [*last, *single])
    taken = [await bobs.take_package(BOB.user, WORLD.now) for _ in range(6)]
    assert taken[:3] == [one.to_bytes() for one in single]
    assert taken[3:] == [last[0].to_bytes()] * 3
    assert await bobs.take_package(CATHY, WORLD.now) is None


async def test_of_many_fetches_at_once_each_one_time_package_goes_to_one(
    bobs: AccountStore, opened: Open
) -> None:
    stores = [bobs, *[AccountStore(await opened(tables.accounts)) for _ in range(3)]]
    single, last = packages(6), packages(1, last_resort=True)
    await bobs.publish(BOBS_PHONE, [*single, *last])
    taken = await asyncio.gather(*(stores[n % 4].take_package(BOB.user, WORLD.now) for n in range(12)))
    given = [one for one in taken if one != last[0].to_bytes()]
    assert sorted(given) == sorted(one.to_bytes() for one in single)


async def test_an_expired_package_is_not_given(bobs: AccountStore) -> None:
    await bobs.publish(BOBS_PHONE, packages(2, expiry=10))
    assert await bobs.take_package(BOB.user, WORLD.now + 11) is None


async def test_an_account_holds_so_many_packages(bobs: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_module, "MAX_PACKAGES", 3)
    await bobs.publish(BOBS_PHONE, packages(2))
    with pytest.raises(QueueFull, match="at most 3"):
        await bobs.publish(BOBS_PHONE, packages(2))
    await bobs.publish(BOBS_PHONE, packages(1))


async def test_publishing_nothing_is_no_error(bobs: AccountStore) -> None:
    await bobs.publish(BOBS_PHONE, [])
    assert await bobs.take_package(BOB.user, WORLD.now) is None


async def test_packages_of_the_past_do_not_fill_the_account(
    bobs: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts_module, "MAX_PACKAGES", 2)
    await bobs.publish(BOBS_PHONE, packages(2, expiry=10))
    await bobs.expire(WORLD.now + 11)
    await bobs.publish(BOBS_PHONE, packages(2))
    assert await bobs.take_package(BOB.user, WORLD.now + 11) is not None


async def test_a_removed_devices_packages_are_given_to_nobody(bobs: AccountStore) -> None:
    await bobs.add_device(BOBS_PHONE, tablet := device("bob-tablet"))
    caller = await bobs.authenticate(BOB.user, tablet.token)
    await bobs.publish(BOBS_PHONE, packages(2) + packages(1, last_resort=True))
    (kept,) = packages(1)
    await bobs.publish(caller, [kept])
    await bobs.remove_device(caller, BOB.device.name)
    assert await bobs.take_package(BOB.user, WORLD.now) == kept.to_bytes()
    assert await bobs.take_package(BOB.user, WORLD.now) is None


async def test_a_device_learns_what_is_left_of_its_own_packages_and_of_all(bobs: AccountStore) -> None:
    await bobs.add_device(BOBS_PHONE, tablet := device("bob-tablet"))
    caller = await bobs.authenticate(BOB.user, tablet.token)
    await bobs.publish(BOBS_PHONE, packages(3) + packages(1, last_resort=True, expiry=2 * DAY))
    await bobs.publish(caller, packages(1, expiry=10))
    now, day = WORLD.now, int(WORLD.now + DAY)
    soon = int(WORLD.now + 10)
    mine, his = PackageCount(3, 1, day), PackageCount(1, 0, soon)
    assert await bobs.packages_left(BOBS_PHONE, now) == PackagesLeft(mine, PackageCount(4, 1, soon))
    assert await bobs.packages_left(caller, now) == PackagesLeft(his, PackageCount(4, 1, soon))
    nothing = PackageCount(0, 0, None)
    assert await bobs.packages_left(caller, now + 11) == PackagesLeft(nothing, mine)
    await bobs.take_package(BOB.user, now + 11)
    assert (await bobs.packages_left(caller, now + 11)).account == PackageCount(2, 1, day)


async def test_withdrawn_packages_are_given_to_nobody(bobs: AccountStore) -> None:
    await bobs.publish(BOBS_PHONE, packages(2) + packages(1, last_resort=True))
    await bobs.withdraw_packages(BOBS_PHONE)
    await bobs.withdraw_packages(BOBS_PHONE)
    assert await bobs.take_package(BOB.user, WORLD.now) is None
    await bobs.publish(BOBS_PHONE, packages(1))
    assert await bobs.take_package(BOB.user, WORLD.now) is not None


# --- connection requests -----------------------------------------------------------------------------


async def test_a_deposit_to_nobody_costs_the_database_what_one_to_somebody_costs(
    bobs: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    for user, bound in ((BOB.user, 10), (CATHY, 10), (BOB.user, 0)):
        monkeypatch.setattr(accounts_module, "MAX_REQUESTS", bound)
        with statements(bobs._database) as given:
            await bobs.deposit(user, b"hello")
        asked.append(given)
    assert asked[0] == asked[1] == asked[2]


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
