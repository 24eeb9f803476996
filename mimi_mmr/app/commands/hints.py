"""What a person can do about an error, by its code and by the command that failed.

A hint is shown only after commands for which it is true. A code without a hint has a message that says it all. In
backticks are commands to type; an option outside of them is one of the command that failed.
"""

from __future__ import annotations

from dataclasses import dataclass

from mimi_mmr.app.commands import NOUNS

_NEW = ("account create", "device join")
_IN_ROOMS = (
    *("room add", "room remove", "room admin", "room who", "room send", "room read", "room link"),
    *("room leave", "room rename", "room reveal", "room heal", "asset"),
)
_OF_ADMINS = ("room add", "room remove", "room admin", "room link", "room rename", "room heal")


@dataclass(frozen=True, slots=True)
class Hint:
    """A hint, and the commands or nouns after which it is true, apart from those in `but`."""

    text: str
    after: tuple[str, ...] = tuple(NOUNS)
    but: tuple[str, ...] = ()

    def fits(self, command: str) -> bool:
        """Return whether the hint is true after this command, given by its words on the command line."""
        return command not in self.but and (command in self.after or command.partition(" ")[0] in self.after)


_NOT_USED = Hint("what came was not used: another client, or a provider, made it wrong")
_HEAL = ("room heal",)
_AGAIN = Hint(
    "try again; if that is refused, too, `mimi-mmr room heal` or an admin may help", _IN_ROOMS, _HEAL
)
_ADD_AGAIN = Hint("ask a member to remove you and to add you again", _IN_ROOMS)

# Of several hints for a code, the first that is true after the command is shown.
HINTS: dict[str, tuple[Hint, ...]] = {
    # of this machine
    "error": (Hint("agent.log in the home directory may say more"),),
    "agent": (),
    "agent-running": (
        Hint(
            "`mimi-mmr agent status` shows it, `mimi-mmr agent stop` ends it",
            but=("agent status", "agent stop"),
        ),
    ),
    "agent-not-running": (Hint("try again: the next command starts it"),),
    "bad-request": (
        Hint(
            "the process whose number is in agent.lock, in the home directory, is of another version",
            ("agent",),
        ),
        Hint("an agent of another version may be running: `mimi-mmr agent stop`, and try again"),
    ),
    "no-account": (
        Hint(
            "`mimi-mmr account create` makes one, `mimi-mmr device join` enters one that another device has",
            but=_NEW,
        ),
    ),
    "unfinished": (
        Hint(
            "`mimi-mmr account create` or `mimi-mmr device join`, with the same arguments, goes on where it was;"
            " `mimi-mmr account delete` deletes what is here",
            but=(*_NEW, "account delete"),
        ),
    ),
    "not-found": (),
    "ambiguous": (),
    "nothing-yet": (),
    "usage": (),
    "aborted": (),
    "demo": (),
    "system": (),
    "file": (),
    "output": (Hint("what was not written stays unread", ("room read", "status")),),
    "invalid-uri": (),
    "config": (),
    "trust": (
        Hint("put it there, or name another directory with --trust", (*_NEW, "account trust")),
        Hint("`mimi-mmr account trust --trust DIRECTORY` takes the certificates from another directory"),
    ),
    "state": (Hint("it is the file `state` in the home directory: --home, or MIMI_MMR_HOME"),),
    # of providers
    "not-begun": (
        Hint(
            "are --provider, --domain and --tls-ca right, and does it run? Nothing was begun: try again", _NEW
        ),
    ),
    "peer": (
        Hint(
            "the name is not lost, even if the provider has registered it: with the same arguments the command goes"
            " on where it was",
            ("account create",),
        ),
        Hint("with the same arguments the command goes on where it was", ("device join",)),
        Hint("try again; `mimi-mmr status` shows what fails at the moment", but=("status",)),
        Hint("try again"),
    ),
    "peer-refused": (Hint("the provider does not accept such a request; its operator may know why"),),
    "private-path": (Hint("nothing was sent another way. Is the network up? Try again"),),
    "queue-full": (Hint("try again later"),),
    "unauthorized": (),
    "shut-out": (
        Hint(
            "another device may have removed this one; `mimi-mmr account delete --local` deletes what is left here"
        ),
    ),
    "too-large": (),
    "malformed": (Hint("a provider, or another client, may be of another version"),),
    "certificate": (
        Hint("is the right CA of that provider in the --trust directory?", (*_NEW, "account trust")),
        Hint("has that provider another CA now? `mimi-mmr account trust --trust DIRECTORY` takes all anew"),
    ),
    # of other people
    "connection": (),
    "user-binding": (
        Hint("compare contact codes with that person before you go on", ("contact", "room add")),
        _NOT_USED,
    ),
    "not-yet": (Hint("try again when that time has passed; is this machine's clock right?"),),
    "expired": (Hint("is this machine's clock right? If so, what the other side has published is too old"),),
    "no-key-packages": (
        Hint("is the name right? If so, try again when one of their devices was online", ("contact add",)),
        Hint(
            "their device has to be online to publish new KeyPackages: try again later", ("contact", "room")
        ),
        Hint("try again later"),
    ),
    "identity": (_NOT_USED,),
    "pseudonym-proof": (_NOT_USED,),
    "identity-link": (_NOT_USED,),
    "signature": (_NOT_USED,),
    "sealed-box": (_NOT_USED,),
    # of rooms
    "not-allowed": (
        Hint(
            "choose another name; if the account is yours, `mimi-mmr device join` enters it",
            ("account create",),
        ),
        Hint("`mimi-mmr room admin` makes somebody else an admin", ("room leave",)),
        Hint("ask an admin of the room: `mimi-mmr room who` shows who is one", _OF_ADMINS),
    ),
    "unknown-room": (
        Hint("ask for another link", ("room join",)),
        Hint("its provider has it no more: `mimi-mmr room leave ROOM --forget` drops it here", _IN_ROOMS),
    ),
    "join-refused": (Hint("ask for another link", ("room join",)),),
    "unknown-queue": (),
    "refused": (_AGAIN,),
    "wrong-epoch": (_AGAIN,),
    "unknown-sender": (_AGAIN,),
    "wrong-signer": (_AGAIN,),
    "invalid-commit": (_AGAIN,),
    "tree-mismatch": (_AGAIN,),
    "unknown-device": (Hint("`mimi-mmr device list` shows all", ("device remove",)),),
    "device-refused": (),
    "room": (),
    "room-state": (_ADD_AGAIN,),
    "mls": (
        Hint("`mimi-mmr room heal`, or ask a member to remove you and to add you again", _IN_ROOMS, _HEAL),
        _ADD_AGAIN,
    ),
    "desynchronised": (_ADD_AGAIN,),
    "older-copy": (
        Hint(
            "`mimi-mmr room heal ROOM` replaces this device's keys there; then send again", _IN_ROOMS, _HEAL
        ),
    ),
    "welcome": (_ADD_AGAIN,),
    "removed": (Hint("ask a member to add you again", _IN_ROOMS),),
}


def hint_for(code: str, command: str) -> str:
    """Return what to do about an error of this code after this command; "" where its message says it all.

    `command` is its words on the command line, as in "room send".
    """
    return next((hint.text for hint in HINTS.get(code, ()) if hint.fits(command)), "")
