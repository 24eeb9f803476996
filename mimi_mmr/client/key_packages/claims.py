"""KeyPackages of other people: fetched from the shelf that a contact keeps for this user, and checked."""

from __future__ import annotations

from collections.abc import Sequence

from mimi_mmr.client.context import Context
from mimi_mmr.client.people.contact_book import ContactBook
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.crypto.sealing import Kem, SealingKey
from mimi_mmr.errors import BindingRejected, RoomError
from mimi_mmr.protocol.credentials import VerifiedDevice, resolve
from mimi_mmr.protocol.endpoints import KEY_MATERIAL
from mimi_mmr.protocol.key_packages import (
    CLAIM_LIFETIME,
    KeyMaterialClaim,
    OpenKeyPackage,
    check_set,
    fetch_token,
    open_answer,
    seal_claim,
    unwrap,
)

MINUTE = 60


class Claims:
    """The claiming and checking of contacts' KeyPackage sets."""

    def __init__(self, context: Context, contacts: ContactBook) -> None:
        self._context = context
        self._contacts = contacts

    async def claim(self, contact: Contact, hub: str) -> list[OpenKeyPackage]:
        """Claim a contact's KeyPackage set through the hub of the room that it is for; the hub learns neither user.

        Raises `NoKeyPackages`; a subclass of `IdentityError` if the set is another user's.
        """
        if contact.theirs is None:
            raise RoomError("this contact has not sent a connection key yet")
        path, provider = self._context.path, contact.user.domain
        key, keys = SealingKey.generate(Kem.X_WING), await path.provider(provider)
        claim = KeyMaterialClaim(
            1,
            hub,
            provider,
            fetch_token(contact.theirs.key).reveal(),
            contact.theirs.upload_public_key,
            key.public,
            self._context.rounded(MINUTE) + CLAIM_LIFETIME,
        )
        request = seal_claim(claim, keys.key_material_key)
        taken = open_answer(await path.ask(KEY_MATERIAL, hub, request, provider=provider), key)
        packages = [unwrap(entry, contact.theirs.key) for entry in taken.entries]
        self.check(packages, contact.device)
        return packages

    def check(self, packages: Sequence[OpenKeyPackage], whose: VerifiedDevice) -> None:
        """Refuse KeyPackages that belong to another person, whichever provider or hub served them."""
        now = self._context.clock()
        leaves = check_set([package.key_package for package in packages], now)
        for package, leaf in zip(packages, leaves, strict=True):
            key = leaf.credential.signature_public_key  # `check_set` has verified that it belongs to the leaf
            member = resolve(leaf.credential, package.ilk, key, self._context.trust, now)
            if (member.device.user, member.device.identity_key) != (whose.user, whose.identity_key):
                raise BindingRejected("a KeyPackage of the set is another user's than the contact's")
            self._contacts.check_known(member.device)
