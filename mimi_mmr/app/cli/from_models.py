"""The command line generated from the models: parameters, help, completion, checks.

What a command shows on the terminal, and what it does around the agent's part, is its `Front`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.cli import completion, passphrase
from mimi_mmr.app.cli.failures import failing
from mimi_mmr.app.cli.invocation import HomeOption, Invocation, PassphraseOption
from mimi_mmr.app.cli.options import JsonOption
from mimi_mmr.app.commands import NOUNS
from mimi_mmr.app.commands.model import STDOUT, Argument, Command, NewPassphrase, Option, Shape
from mimi_mmr.app.commands.result import problems
from ohttp_relay.cli.plain_help import PlainCommand, PlainGroup

MAX_STDIN = 1 << 20  # bytes
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_COMMON = [
    inspect.Parameter("home", _KEYWORD, default=None, annotation=HomeOption),
    inspect.Parameter("as_json", _KEYWORD, default=False, annotation=JsonOption),
    inspect.Parameter("passphrase_file", _KEYWORD, default=None, annotation=PassphraseOption),
]


@dataclass(frozen=True, slots=True)
class Front:
    """The command line's part of a command: how to `run` it, and what to do `before` it prompts the person."""

    run: Callable[[Invocation, Any], None]
    before: Callable[[Invocation], None] | None = None


def shown_by(human: Callable[[Any], None]) -> Front:
    """Return a front that asks the agent, and shows people the result by this function."""
    return Front(lambda invocation, command: invocation.show(command, invocation.ask(command), human))


def command_line(noun: str, fronts: Mapping[type[Command], Front]) -> typer.Typer:
    """Return the commands of a noun, in the order of the fronts."""
    app = typer.Typer(cls=PlainGroup, no_args_is_help=True, help=NOUNS[noun], add_completion=False)
    for model, front in fronts.items():
        app.command(model.about.words[-1], cls=PlainCommand, help=model.about.help)(_function(model, front))
    return app


def _function(model: type[Command], front: Front) -> Callable[..., None]:
    """Return a function with the parameters that typer is to read from it."""

    def run(home: Path | None, as_json: bool, passphrase_file: Path | None, **values: Any) -> None:
        with failing(" ".join(model.about.words), as_json):
            invocation = Invocation(Home.find(home), as_json, passphrase_file)
            if front.before is not None:
                front.before(invocation)
            front.run(invocation, _build(model, values))

    own = [_parameter(name, model.model_fields[name], shape) for name, shape in model.shapes().items()]
    run.__signature__ = inspect.Signature([*own, *_COMMON])  # type: ignore[attr-defined]
    run.__annotations__ = {}
    run.__name__ = model.__name__
    return run


# --- from fields to parameters ------------------------------------------------------------------------


def _parameter(name: str, field: FieldInfo, shape: Shape) -> inspect.Parameter:
    kind: Any = _plain(field.annotation)
    default = inspect.Parameter.empty if field.is_required() else field.default
    if isinstance(shape, NewPassphrase):
        kind, default = Path | None, None
    elif field.default_factory is not None or (isinstance(shape, Option) and shape.prompt):
        kind, default = kind | None, None
    return inspect.Parameter(name, _KEYWORD, default=default, annotation=Annotated[kind, _info(field, shape)])


def _plain(annotation: Any) -> Any:
    """Return a type without the parts that only pydantic understands."""
    origin, inner = get_origin(annotation), [_plain(part) for part in get_args(annotation)]
    if origin is Annotated:
        return inner[0]
    if origin in (Union, UnionType):
        return Union[tuple(inner)]  # noqa: UP007  # made at run time
    return list[inner[0]] if origin is list else annotation  # type: ignore[valid-type]


def _info(field: FieldInfo, shape: Shape) -> Any:
    if isinstance(shape, NewPassphrase):
        return typer.Option(*shape.names.split(), help=shape.help, dir_okay=False)
    common: dict[str, Any] = {"help": shape.help} | _bounds(field)
    if shape.existing is not None:
        common |= {"exists": True, f"{'dir' if shape.existing == 'file' else 'file'}_okay": False}
    if isinstance(shape, Option):
        return typer.Option(*shape.names.split(), **common)
    completes = completion.names_from_agent(shape.completes) if shape.completes else None
    return typer.Argument(metavar=shape.metavar, autocompletion=completes, **common)


def _bounds(field: FieldInfo) -> dict[str, Any]:
    """Return the bounds of a number, as typer calls them."""
    return {
        bound: getattr(data, name)
        for data in field.metadata
        for bound, name in (("min", "ge"), ("max", "le"))
        if hasattr(data, name)
    }


# --- from values to a command -------------------------------------------------------------------------


def _build(model: type[Command], values: Mapping[str, Any]) -> Command:
    """Return the command. Raise a usage error that names the argument for what typer could not check."""
    shapes = model.shapes()
    found = {name: _value(shape, values[name]) for name, shape in shapes.items()}
    try:
        return model.model_validate({name: value for name, value in found.items() if value is not None})
    except ValidationError as error:
        name, problem = next(problems(error))
        raise typer.BadParameter(problem, param_hint=_called(name, shapes[name])) from None


def _value(shape: Shape, value: Any) -> Any:
    if isinstance(shape, NewPassphrase):
        option = shape.names.split()[0]
        if value:
            return passphrase.read_new_passphrase(value, option)
        return passphrase.ask_new_passphrase(elsewhere=f"use {option}")
    if isinstance(shape, Option) and shape.prompt and not value:
        return _asked(shape, shape.prompt)
    if isinstance(shape, Argument) and shape.stdin and value == "-":
        return _from_stdin(shape)
    if isinstance(shape, Option) and shape.stdout and value == Path("-"):
        return STDOUT
    return value.absolute() if isinstance(value, Path) else value


def _asked(shape: Option, prompt: str) -> str:
    try:
        return str(typer.prompt(prompt, err=True))
    except UnicodeDecodeError as error:
        what = f"what was typed is not {error.encoding.upper()}"
        raise typer.BadParameter(what, param_hint=shape.names.split()[0]) from None


def _from_stdin(shape: Argument) -> str:
    """Return all of standard input, without its last line break. Raise a usage error if it is not text."""
    if sys.stdin is None:
        raise typer.BadParameter("standard input is closed", param_hint=shape.metavar)
    encoding = sys.stdin.encoding.lower()
    try:
        text = sys.stdin.buffer.read(MAX_STDIN).decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        what = f"expected text in {encoding.upper()} on standard input; byte {error.start} is not"
        raise typer.BadParameter(what, param_hint=shape.metavar) from None
    return text.replace("\r\n", "\n").removesuffix("\n")


def _called(name: str, shape: Shape) -> str:
    return (shape.metavar or name.upper()) if isinstance(shape, Argument) else shape.names.split()[0]
