"""Find out where a service listens, from its Dockerfile and its code, before anything runs.

Cloud Run sends requests to the container's port, and sets PORT to it. Source:
https://cloud.google.com/run/docs/container-contract#port. Sources of the servers' defaults:
https://flask.palletsprojects.com/en/stable/cli/, https://www.uvicorn.org/settings/,
https://docs.gunicorn.org/en/stable/settings.html#bind (it reads PORT),
https://hypercorn.readthedocs.io/en/latest/how_to_guides/configuring.html,
https://docs.streamlit.io/develop/api-reference/configuration/config.toml,
https://docs.pylonsproject.org/projects/waitress/en/latest/runner.html.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping

import msgspec

from scripts.image.dockerfile import Dockerfile, Instruction, expand, split

Files = Mapping[str, str]
"""Path below the folder that is built -> text."""

EVERYWHERE = "0.0.0.0"  # noqa: S104  (what Cloud Run asks for)
_LOCAL = re.compile(r"^(127\.0\.0\.1|localhost|::1|\[::1\])$")


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A web server's defaults: where it listens, its options, the variables that it reads."""

    port: int
    host: str
    port_option: str = "--port"
    host_option: str = "--host"
    variables: tuple[str, str] = ("", "")
    """Of the port, and of the host."""


_SERVERS = {
    "flask": Server(port=5000, host="127.0.0.1", variables=("FLASK_RUN_PORT", "FLASK_RUN_HOST")),
    "uvicorn": Server(port=8000, host="127.0.0.1", variables=("UVICORN_PORT", "UVICORN_HOST")),
    "hypercorn": Server(port=8000, host="127.0.0.1", port_option="--bind"),
    "waitress-serve": Server(port=8080, host=EVERYWHERE),
    "streamlit": Server(
        port=8501, host=EVERYWHERE, port_option="--server.port",
        host_option="--server.address",
        variables=("STREAMLIT_SERVER_PORT", "STREAMLIT_SERVER_ADDRESS"),
    ),
}  # fmt: skip
_READS_PORT = re.compile(r"\$(PORT\b|\{PORT[}:])")
_ADDRESS = re.compile(r"(?:https?://)?(?P<host>\[[0-9a-fA-F:]*\]|[\w.*-]*):(?P<port>[0-9]{2,5})")
_PORT_OPTION = re.compile(r"--?[\w.-]*port|-p")
_ADDRESS_OPTION = re.compile(r"--bind|-b|--listen|--http|--http-socket|--addr|--address")
_HOST_OPTION = re.compile(r"--host|-h|--server\.address|--hostname|-H")
_SCRIPT = re.compile(r"[\w./-]+\.(py|js|mjs|cjs|ts)")
# Servers that a program starts itself: app.run(port=5000), server.listen(3000).
_CALLS = re.compile(r"\.(?:run|listen)\((?P<arguments>.*)")
_LITERAL = re.compile(r"(?:\bport\s*[=:]\s*|^\s*)(?P<port>[0-9]{2,5})\b")


class Listening(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service listens, as far as its files tell.

    Attributes:
        port: the port, if it is fixed; None if it is not, or unknown.
        reads_port: whether it listens on $PORT; None if unknown.
        is_local: whether only the container itself can reach it.
        file: the file that says so, below the folder that is built.
        line: its line there.
        instead: the same line for every port and host; "" if it cannot be told.
        problem: why the process does not get the port, although its command names $PORT.
    """

    port: int | None = None
    reads_port: bool | None = None
    is_local: bool = False
    file: str = "Dockerfile"
    line: int = 1
    instead: str = ""
    problem: str = ""


def find(dockerfile: Dockerfile, files: Files) -> Listening:
    """Return where the service listens.

    Args:
        dockerfile: the service's.
        files: its code.
    """
    command = dockerfile.command()
    found = _of_command(command, dockerfile, files) if command else Listening()
    if found.port is None and found.reads_port is None:
        return _exposed(dockerfile, files, found)
    return found


def _of_command(command: Instruction, dockerfile: Dockerfile, files: Files) -> Listening:
    variables = dockerfile.variables()
    words = command.words
    is_shell = command.exec_form is None
    if not is_shell and len(words) > 2 and words[1] == "-c" and words[0].endswith("sh"):
        words, is_shell = split(words[2]), True
    text = " ".join(words)
    line = command.line
    instead = f"{command.name} exec {_with_port(words)}"
    if _READS_PORT.search(text):
        if not is_shell:
            problem = "this form does not replace $PORT"
            return Listening(reads_port=False, line=line, instead=instead, problem=problem)
        return _checked(Listening(reads_port=True, line=line), words, variables, instead)
    words = _unwrapped([expand(word, variables) for word in words], files)
    port = _port(words + split(variables.get("GUNICORN_CMD_ARGS", "")))
    if port is not None:
        at = Listening(port=port, reads_port=False, line=line, instead=instead)
        return _checked(at, words, variables, instead)
    server = _server(words)
    if server is not None:
        set_port = variables.get(server.variables[0], "")
        at = Listening(
            port=int(set_port) if set_port.isdecimal() else server.port,
            reads_port=False, line=line, instead=instead,
        )  # fmt: skip
        return _checked(at, words, variables, instead)
    if words and words[0] == "gunicorn":
        has_config = any(word in ("-c", "--config") for word in words)
        return Listening(reads_port=None if has_config else True, line=line)
    return _of_code(words, files)


def _checked(at: Listening, words: list[str], variables: dict[str, str], instead: str) -> Listening:
    """Return where it listens, with whether only the container itself can reach it."""
    server = _server(words)
    host = server.host if server else ""
    if server and server.variables[1] in variables:
        host = variables[server.variables[1]]
    for before, word in zip(["", *words], words, strict=False):
        option, equals, value = word.partition("=")
        if _HOST_OPTION.fullmatch(before):
            host = word
        elif equals and _HOST_OPTION.fullmatch(option):
            host = value
        elif address := _ADDRESS.fullmatch(value if equals else word):
            host = address["host"] or EVERYWHERE
    if not _LOCAL.match(host):
        return at
    return msgspec.structs.replace(at, is_local=True, instead=instead)


def _port(words: list[str]) -> int | None:
    """Return the port that a command's words fix."""
    for before, word in zip(["", *words], words, strict=False):
        option, equals, value = word.partition("=")
        if word.isdecimal() and _PORT_OPTION.fullmatch(before):
            return int(word)
        if equals and value.isdecimal() and _PORT_OPTION.fullmatch(option):
            return int(value)
        address = _ADDRESS.fullmatch(value if equals else word)
        if address and (
            _ADDRESS_OPTION.fullmatch(option if equals else before)
            or address["host"] in (EVERYWHERE, "127.0.0.1", "localhost", "*", "[::]")
        ):
            return int(address["port"])
    return None


def _with_port(words: list[str]) -> str:
    """Return the command with $PORT as its port, and reachable from outside the container."""
    words = [word for word in words if word != "exec"]
    server = _server(words)
    made: list[str] = []
    has_port = has_host = False
    for before, word in zip(["", *words], words, strict=False):
        option, equals, value = word.partition("=")
        address = _ADDRESS.fullmatch(value if equals else word)
        if _READS_PORT.search(word):
            has_port = True
        elif word.isdecimal() and _PORT_OPTION.fullmatch(before):
            word, has_port = "$PORT", True
        elif equals and value.isdecimal() and _PORT_OPTION.fullmatch(option):
            word, has_port = f"{option}=$PORT", True
        elif address and (equals or _ADDRESS_OPTION.fullmatch(before)):
            place = f"{EVERYWHERE}:$PORT"
            word, has_port, has_host = f"{option}={place}" if equals else place, True, True
        if _HOST_OPTION.fullmatch(before):
            word, has_host = EVERYWHERE, True
        elif equals and _HOST_OPTION.fullmatch(option):
            word, has_host = f"{option}={EVERYWHERE}", True
        made.append(word)
    if server and server.port_option == "--bind":
        made += [] if has_port else ["--bind", f"{EVERYWHERE}:$PORT"]
    elif server:
        made += [] if has_host or server.host == EVERYWHERE else [server.host_option, EVERYWHERE]
        made += [] if has_port else [server.port_option, "$PORT"]
    return " ".join(word if _READS_PORT.search(word) else shlex.quote(word) for word in made)


def _server(words: list[str]) -> Server | None:
    program = _unwrapped(words, {})[:1]
    return _SERVERS.get(program[0]) if program else None


def _unwrapped(words: list[str], files: Files) -> list[str]:
    """Return the words from the program on: behind exec, a runner, `python -m`, or npm's script."""
    if "&&" in words:
        words = words[len(words) - words[::-1].index("&&") :]
    while words and (words[0] in ("exec", "env") or re.match(r"\w+=", words[0])):
        words = words[1:]
    if words[:2] in (["poetry", "run"], ["uv", "run"], ["pipenv", "run"]):
        words = words[2:]
    if len(words) > 2 and words[0].startswith("python") and words[1] == "-m":
        words = words[2:]
    if words[:2] == ["npm", "start"] or words[:3] == ["npm", "run", "start"]:
        try:
            script = json.loads(files.get("package.json", "{}"))["scripts"]["start"]
            return _unwrapped(split(str(script)), {})
        except (ValueError, KeyError, TypeError):
            return words
    return [words[0].rpartition("/")[2], *words[1:]] if words else words


def _of_code(words: list[str], files: Files) -> Listening:
    """Return where the script that the command runs listens."""
    for word in words:
        name = word.removeprefix("./").rpartition("/app/")[2].removeprefix("/")
        text = files.get(name)
        if text is None or not _SCRIPT.fullmatch(word):
            continue
        if re.search(r"\bPORT\b", text):
            return Listening(reads_port=True, file=name)
        for number, code in enumerate(text.splitlines(), start=1):
            call = _CALLS.search(code)
            if not call or code.lstrip().startswith(("#", "//")):
                continue
            literal = _LITERAL.search(call["arguments"])
            is_flask = name.endswith(".py") and "Flask(" in text
            if literal is None and not (is_flask and code.rstrip().endswith(")")):
                continue
            return Listening(
                port=int(literal["port"]) if literal else _SERVERS["flask"].port,
                reads_port=False,
                is_local=is_flask and code.rstrip().endswith(")") and "host" not in code,
                file=name,
                line=number,
            )
        return Listening(file=name)
    return Listening()


def _exposed(dockerfile: Dockerfile, files: Files, found: Listening) -> Listening:
    """Return the port that EXPOSE names, if nothing in the code reads PORT."""
    if any(re.search(r"\bPORT\b", text) for text in files.values()):
        return msgspec.structs.replace(found, reads_port=True)
    for one in dockerfile.final("EXPOSE"):
        port = one.words[0].partition("/")[0] if one.words else ""
        if port.isdecimal():
            return Listening(port=int(port), line=one.line)
    return found
