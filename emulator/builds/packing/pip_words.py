"""The words of pip: its options, and what an installation reads and makes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from emulator.builds.packing import tree as trees
from emulator.builds.packing.program import Program, Refused

PIP_ITSELF = re.compile(r"pip(\[.*)?([=<>!~ ].*)?")
_OF_AN_INDEX = re.compile(r"[A-Za-z0-9][\w.-]*(\[[\w,. -]*\])?\s*([=<>!~;@ ].*)?")
# The options of pip that a value follows.
_WITH_VALUE = frozenset(
    {"-r", "--requirement", "-c", "--constraint", "-i", "--index-url", "--extra-index-url", "-f",
     "--find-links", "--trusted-host", "--timeout", "--default-timeout", "--retries", "--platform",
     "--python-version", "--implementation", "--abi", "--only-binary", "--no-binary", "--proxy",
     "--progress-bar", "--cert", "--client-cert", "-w", "--wheel-dir", "-d", "--dest", "--log",
     "--upgrade-strategy", "-t", "--target", "--prefix", "--root", "-e", "--editable", "--src",
     "--cache-dir", "--root-user-action", "--python", "-C", "--config-settings", "--use-feature",
     "--global-option"}
)  # fmt: skip


def install(
    text: str,
    leading: list[str],
    arguments: list[str],
    *,
    prefix: str | None,
    site: str,
    folder: str,
    home: str,
) -> Program | None:
    """Return the program for a `pip install`; None if it installs nothing but pip.

    Args:
        text: the command, as the Dockerfile has it.
        leading: the options before `install`.
        arguments: the words after it.
        prefix: the environment that it installs into unless an option names another place.
        site: the folder of packages in an environment.
        folder: the working directory.
        home: the user's.

    Raises:
        Refused: an option cannot be packed.
    """
    words: list[str] = []
    reads: list[str] | None = []
    asks = False
    target = None
    for option, value in with_values(arguments):
        match option:
            case "--root":
                raise Refused("--root has no meaning here", "--prefix or --target")
            case "-e" | "--editable":
                raise Refused(
                    "an editable package points at its source in the build",
                    text.replace(option, "").replace("  ", " "),
                )
            case "--no-cache-dir" | "--cache-dir" | "--break-system-packages":
                continue  # the cache is this machine's own, in no layer
            case "--root-user-action" | "--no-warn-script-location" | "--python":
                continue
            case "--user":
                prefix = trees.inside(f"{home}/.local", "/")
            case "--prefix":
                prefix = trees.inside(value, folder)
            case "-t" | "--target":
                target = trees.inside(value, folder)
            case "":
                if target is None and PIP_ITSELF.fullmatch(value):
                    continue
                asks = True
                words.append(in_root(value))
                if not _OF_AN_INDEX.fullmatch(value) or "/" in value.partition("@")[0]:
                    reads = None
            case "-r" | "--requirement" | "-c" | "--constraint":
                asks = asks or option in ("-r", "--requirement")
                words += [option, in_root(value)]
                if reads is not None and "://" not in value:
                    reads.append(trees.inside(value, folder))
            case _:
                words += [option, in_root(value)] if value else [option]
                if option in ("-f", "--find-links") and "://" not in value:
                    reads = None
    if not asks:
        return None
    makes: tuple[str, ...] = (target,) if target is not None else ()
    if target is not None:
        prefix = None
        words.insert(0, f"--target={{root}}/{target}")
    else:
        makes = (f"{prefix}/{site}", f"{prefix}/bin")
    argv = ("pip", *leading, "install", *words)
    files = None if reads is None else tuple(reads)
    return Program(argv, folder, prefix, makes, files, (), text)


def with_values(words: list[str]) -> Iterator[tuple[str, str]]:
    """Yield pip's options with their values; what is no option has the option ""."""
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if not word.startswith("-"):
            yield "", word
        elif word[1:2] != "-" and word[:2] in _WITH_VALUE and len(word) > 2:
            yield word[:2], word[2:]
        elif option in _WITH_VALUE:
            yield option, value if equals else next(rest, "")
        else:
            yield word, ""


def in_root(word: str) -> str:
    """Put the image's root before an absolute path, also one that is an option's value."""
    if word.startswith("/"):
        return f"{{root}}{word}"
    option, equals, value = word.partition("=")
    if option.startswith("-") and equals and value.startswith("/"):
        return f"{option}={{root}}{value}"
    return word
