"""The base of commands: a command is a pydantic model from which both the agent and the command line are built.

The fields of a `Command` are its arguments. Each is annotated with an `Argument`, an `Option` or a
`NewPassphrase`, which holds its help and says how it looks on the command line. The docstring of the class is the
help of the command. `Command.about` holds the rest: the name, the words on the command line, and the result.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Strict,
    StringConstraints,
    ValidationError,
    field_validator,
)

from mimi_mmr.app.commands.errors import BadRequest
from mimi_mmr.app.commands.result import Result, problems, read, to_json

if TYPE_CHECKING:
    from mimi_mmr.app.commands.context import AgentContext, Say

MAX_TEXT = 4096
MAX_LIST = 1000
STDOUT = Path("/dev/stdout")


# --- arguments ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Argument:
    """A positional argument. With `stdin`, the value `-` reads it from standard input.

    `completes` is the command that lists the values which a shell completes; `existing` requires such a path.
    """

    help: str
    metavar: str | None = None
    completes: type[Command] | None = None
    existing: Literal["file", "directory"] | None = None
    stdin: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """An option; `names` are its flags, with a space between them.

    A `local` option is for the command line only and is not sent to the agent. An option with a `prompt` is asked
    for on the terminal if it is missing. With `stdout`, the value `-` is the path `STDOUT`.
    """

    names: str
    help: str
    existing: Literal["file", "directory"] | None = None
    local: bool = False
    prompt: str | None = None
    stdout: bool = False


@dataclass(frozen=True, slots=True)
class NewPassphrase:
    """A passphrase: the first line of the file that the option names, or typed twice on the terminal."""

    names: str
    help: str


Shape = Argument | Option | NewPassphrase


def _absolute(path: Path) -> Path:
    if not path.is_absolute():  # the agent and the command line have different working directories
        raise ValueError("expected an absolute path")
    if len(str(path)) > MAX_TEXT:
        raise ValueError(f"expected a path of at most {MAX_TEXT} characters")
    return path


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


ShortText = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
AbsolutePath = Annotated[Path, Strict(False), AfterValidator(_absolute)]


# --- commands -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class About:
    """The description of a command, apart from its arguments.

    `name` is its name on the agent's socket, `words` are those of the command line (none for a request that only
    shell completion makes). `result` is the type of its result, `item` that of the items it reports before, if any.
    After a command that `changes` something the client has work to do. One that `only_waits` may be cancelled
    without losing anything.
    """

    name: str
    words: tuple[str, ...]
    help: str
    result: Any
    item: type[Result] | None
    changes: bool
    only_waits: bool

    def result_to_json(self, value: Any) -> Any:
        """Return a result as JSON values."""
        return to_json(self.result, value)

    def result_from_json(self, value: Any) -> Any:
        """Read a result that the agent sent. Raise `BadRequest` if it is none of this command's."""
        return read(self.result, value)

    def item_from_json(self, value: Any) -> Any:
        """Read an item that the agent sent. Raise `BadRequest` if it is none of this command's."""
        return read(self.item, value)


class Command(BaseModel):
    """Base of every command. A subclass without a `name` only holds arguments that several commands share."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
        defer_build=True,
    )

    about: ClassVar[About]

    @field_validator("*", mode="before")
    @classmethod
    def _check_unicode(cls, value: Any) -> Any:
        """Refuse text in which Python marks bytes that it could not decode: it can't be sent or stored."""
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, Path) and not _is_unicode(str(text)):
                raise ValueError(
                    "the name of this file or directory is not UTF-8: use a copy under another name"
                )
            if isinstance(text, str) and not _is_unicode(text):
                raise ValueError("expected text in UTF-8")
        return value

    def __init_subclass__(
        cls,
        *,
        name: str = "",
        line: str | None = None,
        result: Any = None,
        item: type[Result] | None = None,
        changes: bool = False,
        only_waits: bool = False,
    ) -> None:
        """Describe the command. `line` holds its words on the command line; by default they are those of `name`."""
        super().__init_subclass__()
        if name:
            words = name.split(".") if line is None else line.split()
            doc = inspect.cleandoc(cls.__doc__ or "")
            cls.about = About(name, tuple(words), doc, result, item, changes, only_waits)

    @classmethod
    def shapes(cls) -> dict[str, Shape]:
        """Return how each argument looks on the command line, by the name of its field."""
        return {
            name: next(data for data in field.metadata if isinstance(data, Shape))
            for name, field in cls.model_fields.items()
        }

    @classmethod
    def from_request(cls, arguments: dict[str, Any]) -> Self:
        """Check arguments that came to the agent. Raise `BadRequest`, which names the first wrong argument."""
        try:
            return cls.model_validate(arguments)
        except ValidationError as error:
            field, problem = next(problems(error))
            raise BadRequest(f"{cls.about.name}: argument {field!r}: {problem}") from None

    def to_request(self) -> dict[str, Any]:
        """Return the arguments as they are sent to the agent."""
        local = {name for name, shape in self.shapes().items() if isinstance(shape, Option) and shape.local}
        return self.model_dump(mode="json", exclude=local)

    @abstractmethod
    async def run(self, agent: AgentContext, say: Say) -> Any:
        """Run the command in the agent; return the result."""
