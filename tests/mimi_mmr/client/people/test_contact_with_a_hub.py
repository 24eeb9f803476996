"""A contact who shows a hub everything it ever got from somebody: names in other rooms stay closed.

The draft derives a link's key from the connection key and what the hub sees; here every credential has a key of its
own, wrapped for whoever fetched that one KeyPackage.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mimi_mmr.client import Client
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.crypto.secret import ConnectionKey, IdentityLinkKey
from mimi_mmr.crypto.signing import expand_with_label
from mimi_mmr.errors import LinkRejected, NoKeyPackages
from mimi_mmr.protocol.credentials import PseudonymousCredential, open_link
from mimi_mmr.protocol.key_packages import fetch_token
from tests.mimi_mmr.client.inside import epoch_secret_of, tree_of
from tests.mimi_mmr.conftest import LiveWorld, connect, invited


def known_to(client: Client, about: Contact) -> Iterator[bytes]:
    """Every secret of 32 bytes that a client holds because of one contact."""
    yield about.own_key.reveal()
    if about.theirs is not None:
        yield about.theirs.connection_key
        yield fetch_token(about.theirs.key).reveal()
    connection = client.rooms[about.room]  # type: ignore[index]
    tree = tree_of(connection)
    yield from (tree.secret(leaf).reveal() for leaf in tree.leaves())
    yield from (tree.room_secret(name).reveal() for name in tree.room_secrets())
    yield epoch_secret_of(connection)


def opens(credential: PseudonymousCredential, references: set[bytes], secrets: list[bytes]) -> bool:
    """Whether any secret is the link's key, or gives it as the draft's key or as this project's wrap would."""
    for secret in secrets:
        key = ConnectionKey(secret)
        derived = [
            secret,
            expand_with_label(key, "identity link", credential.tbs.to_bytes()),
            *(expand_with_label(key, "identity link wrap", reference) for reference in references),
        ]
        for candidate in derived:
            try:
                open_link(credential, IdentityLinkKey(candidate))
            except LinkRejected:
                continue
            return True
    return False


async def test_what_a_contact_holds_opens_no_link_in_a_room_it_is_not_in(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    cathy, mallory = await live.person("cathy", "c.example"), await live.person("mallory", "a.example")
    _, cathys = await connect(cathy, bob)
    mallorys, bobs = await connect(mallory, bob)
    to_bob = cathy.people.contacts[bob.user]
    await bob.key_packages.publish(cathys)
    await bob.key_packages.publish(bobs)
    references = {
        one.package.ref for one in bob.key_packages.outstanding
    }  # KeyPackageRefs, which stand in Welcomes

    room = await mallory.rooms.create()  # a room with Mallory in it: what opens there is no test of anything
    await mallory.rooms.add(room, [mallorys])
    beside = await invited(bob)
    hidden = await cathy.rooms.create()
    await cathy.rooms.add(hidden, [to_bob])
    inside = await invited(bob)

    loot = [*known_to(mallory, mallorys), beside.leaf.ilk.reveal()]
    hub = await live.providers["c.example"].hub_store.load(hidden.uri)
    at_hub = {member.user: member for member in hub.members.values()}
    credential = inside.leaf.identity.credential
    assert credential.user_pseudonym in at_hub  # the hub's own view has the link
    assert not opens(credential, references, loot)
    assert opens(credential, references, [*loot, inside.leaf.ilk.reveal()])  # the control: the right key does
    with pytest.raises(NoKeyPackages):  # and her token finds nothing on the shelf that is for Cathy
        await mallory.key_packages.claim(mallorys, "a.example")
