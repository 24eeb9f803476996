"""`mimi-mmr device`: further devices of one user."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mimi_mmr.app.commands.account import AccountResult, NewDevice
from mimi_mmr.app.commands.context import AgentContext, Say
from mimi_mmr.app.commands.errors import NothingYet
from mimi_mmr.app.commands.model import Argument, Command, Option, ShortText
from mimi_mmr.app.commands.pasted import unwrapped
from mimi_mmr.app.commands.result import Result
from mimi_mmr.errors import DeviceRefused, InvalidUri, UnknownQueue


class ListedDeviceResult(Result):
    """A device of this user; `own` if it is this one."""

    device: str
    own: bool


class DeviceCodeResult(Result):
    """A code that lets a further device in, and until when (seconds since 1970)."""

    code: str
    expires: int


class DeviceResult(Result):
    """The name of a device."""

    device: str


class ListDevices(Command, name="device.list", result=list[ListedDeviceResult]):
    """List the account's devices."""

    async def run(self, agent: AgentContext, say: Say) -> list[ListedDeviceResult]:
        """Return all devices."""
        own = agent.client.device.name
        return [ListedDeviceResult(device=name, own=name == own) for name in agent.client.devices.names()]


class AddDevice(
    Command, name="device.add", result=DeviceResult, item=DeviceCodeResult, changes=True, only_waits=True
):
    """Show a code, and wait for the new device. With --json: a line with the code, and one when it is in."""

    wait: Annotated[float, Field(ge=1), Option("--wait", "Seconds to wait for it.")] = 3600.0

    async def run(self, agent: AgentContext, say: Say) -> DeviceResult:
        """Report the code; return the device that came with it. Raise `NothingYet` if none did."""
        invitation = await agent.client.devices.invite()
        agent.background.await_device(invitation)
        await say.item(DeviceCodeResult(code=invitation.code, expires=invitation.expiry))

        async def newcomer() -> str | None:
            return invitation.device

        try:
            return DeviceResult(device=await agent.changed.until(newcomer, self.wait))
        except TimeoutError:
            raise NothingYet("no device has used this code yet; it is valid for an hour") from None


class JoinAccount(NewDevice, name="device.join", result=AccountResult, changes=True):
    """Make this a further device of an account, with the code that `mimi-mmr device add` shows on another one."""

    code: Annotated[
        ShortText,
        Field(repr=False),
        Option("--code", "The code that the other device shows. Asked for if it is missing.", prompt="Code"),
    ]

    async def run(self, agent: AgentContext, say: Say) -> AccountResult:
        """Enter the account. If nothing was asked yet, or all was refused, nothing is left; else try again.

        What was asked may have been granted, and the answer lost: then the same keys have to ask again.
        """
        first = agent.account.unfinished is None
        client = agent.account.begin(self.new_client(say), entering=True)
        await agent.background.stop()
        try:
            await client.devices.join_account(unwrapped(self.code))
        except (InvalidUri, UnknownQueue, DeviceRefused):
            if first and not client.registered:
                await agent.delete_state()
            raise
        finally:
            if client.registered:
                agent.background.start()
        return AccountResult.of(client)


class RemoveDevice(Command, name="device.remove", result=DeviceResult, changes=True):
    """Remove a lost device from the account and every room, and replace every key that it knew."""

    device: Annotated[ShortText, Argument("The device's name.", metavar="NAME")]

    async def run(self, agent: AgentContext, say: Say) -> DeviceResult:
        """Begin the removal; the client goes on with it until it is done."""
        await agent.client.devices.remove(self.device)
        agent.changed.wake()
        return DeviceResult(device=self.device)


COMMANDS: tuple[type[Command], ...] = (ListDevices, AddDevice, JoinAccount, RemoveDevice)
