"""The verbs: the one table that the launcher, the help and the run page read.

To add a verb, add a line here and a file or folder of that name in scripts/. The first line of its
docstring is what `ship --help` shows. Standard library only, and cheap to import: the launcher
reads this before anything is installed.
"""

from __future__ import annotations

from typing import NamedTuple

_CONTAINED_IN = {
    "deliver": ("verify", "local", "dev"),
    "verify": ("dev",),
    "local": ("dev",),
    "dev": (),
}
"""Each lock file in requirements/ -> those that contain all of it, smallest first."""


class Verb(NamedTuple):
    """One verb.

    Attributes:
        name: the name to type, and of its file or folder in scripts/.
        group: the heading under which the help lists it.
        needs: the lock file that names the packages it needs.
        page: the title of its run page, with {what}, {service} and {env}.
        gives_traffic: whether it gives traffic to a revision, so that its run page says how to
            roll back.
        verifies: whether it may check an image's provenance, which needs the lock file `verify`.
        order: who comes first over several services: "callees", whose failure also stops their
            callers; "callers", whose failure stops no one; "" for any order.
    """

    name: str
    group: str
    needs: str = "deliver"
    page: str = ""
    gives_traffic: bool = False
    verifies: bool = False
    order: str = ""


_TRY = "try it"
_SET_UP = "set up"
_DELIVER = "deliver"
_OPERATE = "operate"

VERBS = (
    Verb("demo", _TRY, needs="local"),
    Verb("trial", _TRY, needs="local"),
    Verb("rehearse", _TRY, needs="dev"),
    Verb("up", _TRY, needs="local"),
    Verb("secrets", _TRY),
    Verb("test", _TRY, needs="dev"),
    Verb("check", _TRY, needs="dev"),
    # The next command is a local delivery, and one installation is faster than two.
    Verb("init", _SET_UP, needs="local"),
    Verb("bootstrap", _SET_UP),
    Verb("doctor", _SET_UP),
    Verb("upgrade", _SET_UP),
    Verb(
        "deliver",
        _DELIVER,
        page="Delivered {what} to {env}",
        gives_traffic=True,
        verifies=True,
        order="callees",
    ),
    Verb("build", _DELIVER, verifies=True),
    Verb("attach", _DELIVER),
    Verb("deploy", _DELIVER, verifies=True, order="callees"),
    Verb("smoke", _DELIVER),
    Verb(
        "rollout",
        _DELIVER,
        page="Rolled {what} out in {env}",
        gives_traffic=True,
        order="callees",
    ),
    Verb("status", _OPERATE),
    Verb("history", _OPERATE),
    Verb("plan", _OPERATE),
    Verb("logs", _OPERATE),
    Verb("promote", _OPERATE, page="Promoted {what} in {env}", gives_traffic=True, order="callees"),
    # A caller that was released with its callee needs it: first the caller leaves.
    Verb("rollback", _OPERATE, page="Rolled {service} back in {env}", order="callers"),
    Verb("hold", _OPERATE, page="Put {service} on hold in {env}"),
    Verb("resume", _OPERATE, page="Released the hold of {service} in {env}"),
)
_BY_NAME = {verb.name: verb for verb in VERBS}


def find(name: str) -> Verb | None:
    """Return the verb of that name, or None."""
    return _BY_NAME.get(name)


def lock_files(argv: list[str]) -> tuple[str, ...]:
    """Return the lock files of which one must be installed to run a command line, smallest first.

    Args:
        argv: the command line without the program's name. It may be empty or name no verb.
    """
    asks = argv[:1] == ["help"]
    words = argv[1:] if asks else argv
    verb = find(words[0]) if words else None
    name = verb.needs if verb else "deliver"
    # Without --env it is about the local environment, whose images no one signs. The help needs no
    # packages: a job installs them with it before it has an identity.
    pairs = zip(words, [*words[1:], ""], strict=False)  # without words there is none
    environments = {
        word.partition("=")[2] or after for word, after in pairs if word.startswith("--env")
    }
    if verb and verb.verifies and (asks or environments - {"local"}):
        name = "verify"
    return (name, *_CONTAINED_IN[name])
