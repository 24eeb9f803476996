"""`mimi-mmr device` on the terminal."""

from __future__ import annotations

from mimi_mmr.app.cli import terminal
from mimi_mmr.app.cli.account import open_account
from mimi_mmr.app.cli.from_models import Front, command_line, shown_by
from mimi_mmr.app.cli.invocation import Invocation
from mimi_mmr.app.commands.device import (
    AddDevice,
    DeviceCodeResult,
    DeviceResult,
    JoinAccount,
    ListDevices,
    ListedDeviceResult,
    RemoveDevice,
)


def _show_devices(devices: list[ListedDeviceResult]) -> None:
    rows = [[found.device, "this one" if found.own else ""] for found in devices]
    terminal.show_table(["device", "which"], rows, empty="No devices.")


def _add(invocation: Invocation, command: AddDevice) -> None:
    for kind, value in invocation.stream(command):
        if invocation.json:
            terminal.show_json(value)
        elif kind == "item":
            _show_code(command.about.item_from_json(value))
        else:
            result: DeviceResult = command.about.result_from_json(value)
            terminal.say(f"{result.device} is in.")


def _show_code(shown: DeviceCodeResult) -> None:
    terminal.say("Type this on the new device within an hour:")
    terminal.say(f"    mimi-mmr device join --code {shown.code} …")


def _show_removed(removed: DeviceResult) -> None:
    terminal.say(f"{removed.device} is removed.")


app = command_line(
    "device",
    {
        ListDevices: shown_by(_show_devices),
        AddDevice: Front(_add),
        JoinAccount: Front(open_account),
        RemoveDevice: shown_by(_show_removed),
    },
)
