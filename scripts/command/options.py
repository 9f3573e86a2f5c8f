"""The options of verbs: typed structs that argparse fills from the command line.

Each verb declares a struct `Options`. A field's type says what the option takes, its default what
holds without it, and `option` how it is typed and explained. Options that several verbs share are
written once, here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import structs

from scripts.command import values
from scripts.config.pipelines import DEFAULT_ENV
from scripts.errors import UsageError

T = TypeVar("T", bound="Options")

# From Python 3.14 on argparse writes colors, which the filter of our streams would show as text.
_PLAIN: dict[str, Any] = {"color": False} if sys.version_info >= (3, 14) else {}


class _Option(msgspec.Struct, frozen=True, kw_only=True):
    """An option on the command line; `flag` is None for a positional argument."""

    flag: str | None
    help: str
    metavar: str | None
    parse: Callable[[str], object] | None
    choices: Sequence[str] | None
    either: str | None


class _Rest(msgspec.Struct, frozen=True):
    """The field that takes every argument that is not an option of the verb."""

    usage: str


def option(
    flag: str | None = None,
    *,
    help: str,
    metavar: str | None = None,
    parse: Callable[[str], object] | None = None,
    choices: Sequence[str] | None = None,
    either: str | None = None,
) -> _Option:
    """Describe an option, inside `Annotated`.

    Args:
        flag: "--to"; None for a positional argument.
        help: its line in `--help`; %(default)s stands for the default.
        metavar: what stands for the value in `--help`.
        parse: returns the value, or raises ArgumentTypeError; the field's type unless given.
        choices: the values that are allowed; those of a Literal unless given.
        either: the name of a group of options of which at most one may be typed.
    """
    return _Option(
        flag=flag, help=help, metavar=metavar, parse=parse, choices=choices, either=either
    )


def rest(usage: str) -> _Rest:
    """Describe the field that takes every argument that is not an option of the verb."""
    return _Rest(usage)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """A verb's options."""


Format = Annotated[Literal["table", "json"], option("--format", help="format of the result")]
Service = Annotated[
    str | None, option(help="the folder's name in pipelines/; needed if there are several")
]
Services = Annotated[
    tuple[str, ...],
    option(
        metavar="SERVICE",
        help="the folder's name in pipelines/; for several: ai api, or ai,api (needed if there"
        " are several)",
    ),
]
Every = Annotated[bool, option("--all", help="every service that has the environment")]
Timeout = Annotated[
    str,
    option(
        "--timeout",
        parse=values.duration,
        metavar="TIME",
        help="how long to keep trying while Google fails to answer (default: %(default)s)",
    ),
]
Yes = Annotated[bool, option("--yes", help="do not ask before changing anything")]
Commit = Annotated[str, option("--commit", metavar="REF", help="default: %(default)s")]
Builder = Annotated[
    Literal["docker", "cloud-build"] | None,
    option(
        "--builder", help="Docker's buildx, or Google's Cloud Build (default: the environment's)"
    ),
]
Digests = Annotated[
    dict[str, str] | None,
    option(
        "--digest",
        parse=values.image_digests,
        metavar="DIGEST",
        help="the commit's images must have these digests, and nothing is built: sha256:…, or"
        " SERVICE=sha256:…,… as `ship build` prints for several",
    ),
]
Since = Annotated[
    str | None,
    option(
        "--since",
        metavar="REF",
        help="those that commits after REF touch; every service if REF is unknown here",
    ),
]
Override = Annotated[
    str | None, option("--override", metavar="HOLD", help="override the hold of this name")
]
Bake = Annotated[
    str | None,
    option(
        "--bake",
        parse=values.duration,
        metavar="TIME",
        help="how long each step is watched: 90s, 5m (default: the environment's)",
    ),
]
# For a verb that has a bake of its own, whatever the environment's.
FixedBake = Annotated[
    str,
    option(
        "--bake",
        parse=values.duration,
        metavar="TIME",
        help="how long each step is watched (default: %(default)s)",
    ),
]
Repository = Annotated[
    str | None,
    option(
        "--repository",
        metavar="OWNER/NAME",
        help="the repository on GitHub (default: the remote origin)",
    ),
]
RepositoryId = Annotated[
    int | None,
    option("--repository-id", metavar="N", help="the repository's number (default: ask gh)"),
]
OwnerId = Annotated[
    int | None, option("--owner-id", metavar="N", help="the owner's number (default: ask gh)")
]
Trigger = Annotated[
    Literal["github", "cloud-build"],
    option("--trigger", help="what delivers: GitHub Actions or Cloud Build (default: %(default)s)"),
]
Connection = Annotated[
    str | None,
    option(
        "--connection",
        metavar="NAME",
        help="with --trigger cloud-build: the connected repository",
    ),
]


class ServiceOptions(Options, frozen=True, kw_only=True):
    """The options of a verb about services.

    Attributes:
        takes_every: whether `--all` stands for every service.
    """

    takes_every: ClassVar[bool] = True

    services: Services = ()
    every: Every = False
    env: Annotated[str, option("--env", help="environment (default: %(default)s)")] = DEFAULT_ENV
    format: Format = "table"
    timeout: Timeout = "60s"

    @property
    def service(self) -> str | None:
        """The service that is named; None if none is.

        Raises:
            UsageError: several are named, where one is meant.
        """
        if len(self.services) > 1 or (self.every and self.takes_every):
            raise UsageError("this takes one service", "name one of them")
        return self.services[0] if self.services else None


class WritingOptions(ServiceOptions, frozen=True, kw_only=True):
    """The options of a verb that changes a service."""

    dry_run: Annotated[bool, option("--dry-run", help="only read; print what would be written")] = (
        False
    )
    yes: Yes = False
    reason: Annotated[
        str | None,
        option("--reason", parse=values.reason, help="why; kept in the service's history"),
    ] = None


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are shown like all others."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        raise UsageError(message, f"./{self.prog} --help")


def parse(verb: str, options: type[T], documentation: str | None, argv: list[str]) -> T:
    """Read a verb's options from the command line.

    Args:
        verb: its name.
        options: its struct.
        documentation: the docstring of its file, which `--help` shows.
        argv: what was typed after the verb.

    Raises:
        UsageError: an option is unknown, or a value is missing or wrong.
        SystemExit: the user typed `--help`, which is printed.
    """
    parser = _Parser(
        prog=f"ship {verb}",
        description=documentation,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **_PLAIN,
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback if it fails")
    taker = None
    groups: dict[str, argparse._MutuallyExclusiveGroup] = {}
    for field in structs.fields(options):
        type_, note = get_args(field.type)
        if isinstance(note, _Rest):
            taker = field.name
            parser.usage = f"ship {verb} {note.usage}"
        elif note.either is None:
            _add(parser, field, type_, note)
        else:
            if note.either not in groups:
                groups[note.either] = parser.add_mutually_exclusive_group()
            _add(groups[note.either], field, type_, note)
    found, others = parser.parse_known_args(argv)
    if hasattr(found, "services"):
        # A name after an option, which argparse does not take for a further one.
        if not any(word.startswith("-") for word in others):
            found.services, others = [*(found.services or []), *others], []
        listed = (word.split(",") for word in found.services or [])
        # A form's empty field names none.
        found.services = [name.strip() for words in listed for name in words if name.strip()]
    if others and taker is None:
        parser.error(f"unrecognized arguments: {' '.join(others)}{_meant(parser, others[0])}")
    given = {name: value for name, value in vars(found).items() if name != "debug"}
    # argparse collects repeated options in lists; a struct that never changes holds tuples.
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }
    return options(**given, **({taker: tuple(others)} if taker else {}))


def words(given: Options) -> list[str]:
    """Return the options that make this struct, as they are typed, without the positional ones."""
    typed: list[str] = []
    for field in structs.fields(given):
        _, note = get_args(field.type)
        value = getattr(given, field.name)
        if isinstance(note, _Rest) or note.flag is None or value == field.default:
            continue
        for one in value if isinstance(value, tuple) else [value]:
            if isinstance(one, dict):
                one = ",".join(f"{name}={text}" for name, text in one.items())
            typed.append(note.flag if one is True else f"{note.flag}={one}")
    return typed


def _meant(parser: argparse.ArgumentParser, word: str) -> str:
    """Return a question that names the option that a word may stand for; "" if none is close."""
    import difflib

    known = [flag for action in parser._actions for flag in action.option_strings]
    word = word.partition("=")[0]
    # "--enviroment" and "--env": one may start with the other.
    close = [flag for flag in known if flag.startswith("--") and word.startswith(flag)]
    close = close or [flag for flag in known if word.startswith("--") and flag.startswith(word)]
    close = close or difflib.get_close_matches(word, known, 1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else ""


def _add(
    place: argparse._ActionsContainer, field: structs.FieldInfo, type_: Any, note: _Option
) -> None:
    """Add one field of a struct to a parser or a group."""
    taken, many = _taken(type_)
    words: dict[str, Any] = {"help": note.help}
    if taken is bool:
        words["action"] = "store_true"
    else:
        words["metavar"] = note.metavar
        words["type"] = note.parse or (str if get_origin(taken) is Literal else taken)
        words["choices"] = note.choices or (
            get_args(taken) if get_origin(taken) is Literal else None
        )
        # Without a value of its own, None: the struct's default holds.
        words["default"] = None if many or field.required else field.default
        if note.flag is None:
            words["nargs"] = "*" if many else None if field.required else "?"
        elif many:
            words["action"] = "append"
        else:
            words["required"] = field.required
    if note.flag is None:
        place.add_argument(field.name, **words)
    else:
        place.add_argument(note.flag, dest=field.name, **words)


def _taken(type_: Any) -> tuple[Any, bool]:
    """Return the type of one value of a field, and whether the field takes several."""
    if get_origin(type_) in (Union, UnionType):
        (type_,) = (one for one in get_args(type_) if one is not NoneType)
    if get_origin(type_) is tuple:
        return get_args(type_)[0], True
    return type_, False
