"""Checks of the Dockerfile and of the code that it starts, before anything is built."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import msgspec

from scripts.cloud import answers
from scripts.cloud.google import NotFound
from scripts.config import limits, relations
from scripts.config.yamlfile import YamlFile
from scripts.doctor.case import Case
from scripts.doctor.finding import Finding, of_error, ok, warning, wrong
from scripts.errors import ShipError
from scripts.image import dockerfile, listening, source
from scripts.image.dockerfile import Dockerfile, Instruction
from scripts.image.listening import Listening
from scripts.image.source import Source
from scripts.release.manifest import serving_container
from scripts.service.accepted import Files

COMMIT_ARGUMENT = "COMMIT_SHA"
EXAMINE = "/dockerfile:examine"
"""What the local Cloud Run offers: it builds without Docker what it can."""
_IN_FILE = re.compile(r"\bdocker(\.io|-ce|-ce-cli|-cli|d)\b|get\.docker\.com|docker\.sock")
_IN_CODE = (
    (re.compile(r"\bdocker\.(from_env|DockerClient|APIClient)\("), "the Docker client"),
    (re.compile(r"""\b(require\(|from )["']dockerode["']"""), "dockerode"),
    (
        re.compile(r"""^\s*(import|from) testcontainers\b|["']testcontainers["']"""),
        "testcontainers",
    ),
    (re.compile(r"/docker\.sock\b"), "Docker's socket"),
    (
        re.compile(
            r"""(subprocess|Popen|system|spawn|exec\w*|run|check_\w+)\(.*["'`]docker"""
            r"""(["'`]\s*,\s*\[?["'`]|\s+)(run|build|exec|pull|compose)\b"""
        ),
        "the command docker",
    ),
)
_COMMENTS = ("#", "//", "*", "/*")
_NO_DOCKER = (
    "to build images, use Cloud Build; for containers that end, Cloud Run jobs; for a Docker engine"
    " of your own, GKE or a virtual machine"
)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the other files say about the service.

    Attributes:
        folder: the folder that is built, as messages name it.
        port: the container's port.
        port_at: FILE:LINE of the port in the manifest.
        commit_at: FILE:LINE of the smoke check that asks for the commit; "" without one.
    """

    folder: str
    port: int = limits.DEFAULT_PORT
    port_at: str = "service.yaml"
    commit_at: str = ""


def findings(case: Case) -> Iterator[Finding]:
    """Check the Dockerfile, if there is one, and the code."""
    pipeline = case.pipeline
    try:
        text = (pipeline.source / "Dockerfile").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return  # the check of the files reports it
    files = Files(pipeline)
    spec = files.service["spec"]["template"]["spec"]
    container = serving_container(spec)
    index = spec["containers"].index(container)
    at = ["spec", "template", "spec", "containers", index, "ports", 0, "containerPort"]
    facts = Facts(
        folder=_shown(pipeline.source, case.root),
        port=limits.port_of(container),
        port_at=files.place(at)[0],
        commit_at=_commit_at(case),
    )
    found = [*problems(text, source.read(pipeline.source), facts)]
    yield from found
    if not any(one.state == "wrong" for one in found):
        yield ok("dockerfile", f"{facts.folder}/Dockerfile fits the manifest")


def _commit_at(case: Case) -> str:
    relative = Path("pipelines", case.pipeline.service, "smoke.yaml")
    for index, check in enumerate(case.pipeline.checks):
        if check.expect.commit:
            file = YamlFile(case.root / relative, str(relative))
            return f"{file.name}:{file.line([index, 'expect', 'commit'])}"
    return ""


def packing(case: Case) -> Iterator[Finding]:
    """Ask the environment's endpoint what of the Dockerfile it cannot build, if it tells that.

    Google's Cloud Build has Docker, and no such question.
    """
    pipeline = case.pipeline
    if pipeline.endpoint is None or case.environment.after:
        return
    try:
        text = (pipeline.source / "Dockerfile").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return  # the check of the files reports it
    names = source.read(pipeline.source).names
    shared = relations.read(case.root).contexts(case.pipeline.service)
    contexts = {name: source.read(case.root / path).names for name, path in shared.items()}
    asked = {"dockerfile": text, "files": names, "contexts": contexts}
    try:
        answer = case.google.query("cloudbuild", EXAMINE, asked, answers.Examined)
    except NotFound:
        return
    except ShipError as error:
        yield of_error("dockerfile", error, case.context())
        return
    file = f"{_shown(pipeline.source, case.root)}/Dockerfile"
    yield from examined(answer, file)


def examined(answer: dict[str, Any], file: str) -> Iterator[Finding]:
    """Yield what an endpoint answered about a Dockerfile, which messages call `file`."""
    for one in answer["problems"]:
        where = f"{file}:{one['line']}"
        found = f"{where}: {one['instruction']}: {one['reason']}"
        instead = f"{where}: write {one['instead']}" if one.get("instead") else ""
        if answer.get("docker"):
            yield warning("dockerfile", f"{found}; Docker builds it", instead)
        else:
            yield wrong("dockerfile", found, instead or "start Docker, which builds it as it is")
    for one in answer["notes"]:
        found = f"{file}:{one['line']}: {one['instruction']}: {one['text']}"
        if one.get("kind") == "interpreter":
            yield warning("dockerfile", found, "")
        else:
            yield ok("dockerfile", found)


def _shown(folder: Path, root: Path) -> str:
    return str(folder.relative_to(root)) if folder.is_relative_to(root) else folder.name


def problems(text: str, code: Source, facts: Facts) -> Iterator[Finding]:
    """Yield every problem of a Dockerfile and of the code that it starts. Pure.

    Args:
        text: the Dockerfile's.
        code: the folder that is built.
        facts: what the other files say.
    """
    file = f"{facts.folder}/Dockerfile"
    parsed = dockerfile.parse(text)
    if not parsed.stages:
        yield wrong("dockerfile", f"{file}: it has no FROM", f"{file}:1: write FROM and an image")
        return
    yield from _bases(parsed, file)
    yield from _port(parsed, code, facts)
    if facts.commit_at:
        yield from _commit(parsed, file, facts.commit_at)
    yield from _environment_files(parsed, code, facts)
    yield from _docker(parsed, code, facts)


def _bases(parsed: Dockerfile, file: str) -> Iterator[Finding]:
    """Warn of base images that are named by a tag, which can move."""
    seen = set()
    for stage in parsed.stages:
        base = stage.base
        if base in seen or base == "scratch" or "$" in base or "@" in base or parsed.stage(base):
            continue
        seen.add(base)
        alias = f" AS {stage.name}" if stage.name else ""
        yield warning(
            "dockerfile",
            f"{file}:{stage.start.line}: {base} is named by a tag, which can move:"
            " the same commit may become another image",
            f"{file}:{stage.start.line}: write FROM {base}@sha256:…{alias}, with the"
            f" digest that this prints: docker buildx imagetools inspect {base}",
        )


def _port(parsed: Dockerfile, code: Source, facts: Facts) -> Iterator[Finding]:
    """Check that the service listens where Cloud Run sends its requests."""
    at = listening.find(parsed, code.code)
    where = f"{facts.folder}/{at.file}:{at.line}"
    use_it = f"{where}: write {at.instead}" if at.instead else _in_code(where, at)
    if at.problem:
        yield wrong("dockerfile", f"{where}: {at.problem}", use_it)
    elif at.is_local:
        reachable = "it listens on 127.0.0.1, where only the container itself can reach it"
        yield wrong("dockerfile", f"{where}: {reachable}", use_it)
    elif at.port is not None and at.port != facts.port:
        declare = f"{facts.port_at}: write containerPort: {at.port}"
        sent = f"Cloud Run sends requests to {facts.port} ({facts.port_at}), and sets PORT to it"
        if at.reads_port is None:
            found = f"{where}: EXPOSE {at.port}, but {sent}"
            yield warning("dockerfile", found, f"{declare}, if it listens there")
        else:
            found = f"{where}: it listens on {at.port}, but {sent}"
            yield wrong("dockerfile", found, f"{declare}. Or {use_it}")
    for one in parsed.final("ENV"):
        port = one.pairs.get("PORT", str(facts.port))
        if port != str(facts.port):
            line = f"{facts.folder}/Dockerfile:{one.line}"
            found = f"{line}: PORT={port} has no effect: Cloud Run sets PORT to {facts.port}"
            fix = f"{line}: remove it, or {facts.port_at}: write containerPort: {port}"
            yield warning("dockerfile", found, fix)


def _in_code(where: str, at: Listening) -> str:
    if at.file.endswith(".py"):
        return f'{where}: write host="{listening.EVERYWHERE}", port=int(os.environ["PORT"])'
    if at.file.endswith((".js", ".mjs", ".cjs", ".ts")):
        return f"{where}: listen on process.env.PORT"
    return f"{where}: listen on $PORT"


def _commit(parsed: Dockerfile, file: str, commit_at: str) -> Iterator[Finding]:
    """Check that the image gets the commit that a smoke check asks for."""
    everything = [one for stage in parsed.stages for one in stage.instructions]
    takes = [one for one in everything if one.name == "ARG" and COMMIT_ARGUMENT in one.pairs]
    uses = any(re.search(rf"\$\{{?{COMMIT_ARGUMENT}\b", one.value) for one in everything)
    command = parsed.command()
    line = command.line if command else max((one.line for one in everything), default=1)
    argument, variable = f"ARG {COMMIT_ARGUMENT}", f"ENV {COMMIT_ARGUMENT}=${COMMIT_ARGUMENT}"
    asked = f"{commit_at} checks the commit"
    if not takes:
        found = f"{file}: {asked}, but no {argument} takes it from the build"
        fix = (
            f"above {file}:{line}: write two lines, {argument} and {variable}."
            f" Or {commit_at}: remove commit"
        )
        yield wrong("dockerfile", found, fix)
    elif not uses:
        at = f"{file}:{takes[-1].line}"
        found = f"{at}: {asked}, but {argument} is only known to the build"
        yield wrong("dockerfile", found, f"below {at}: write {variable}")


def _environment_files(parsed: Dockerfile, code: Source, facts: Facts) -> Iterator[Finding]:
    """Check that no .env file gets into the image, where everyone who may pull it can read it."""
    secret = [name for name in code.names if _holds_values(name)]
    ignored = code.texts.get(".dockerignore", "")
    for one in parsed.final("COPY", "ADD"):
        if "--from=" in one.value:
            continue
        copied = [name for name in secret if _copies(one, name) and not _ignores(ignored, name)]
        copied += [word for word in one.words[:-1] if _holds_values(word) and word not in copied]
        for name in dict.fromkeys(copied):
            where = f"{facts.folder}/Dockerfile:{one.line}"
            yield wrong(
                "dockerfile",
                f"{where}: {one.name} {one.value} puts {name} into the image and into git, where"
                " others can read its values",
                f"write {name} into {facts.folder}/.dockerignore and into .gitignore, then"
                f" git rm --cached {facts.folder}/{name}; plain values belong in env of the"
                " manifest, secret ones in Secret Manager",
            )


def _holds_values(name: str) -> bool:
    file = name.rpartition("/")[2]
    plain = (".example", ".sample", ".template", ".dist")
    return file == ".env" or (file.startswith(".env.") and not file.endswith(plain))


def _copies(one: Instruction, name: str) -> bool:
    for word in one.words[:-1]:
        place = word.removeprefix("./").strip("/")
        if place in ("", ".") or name.startswith(f"{place}/") or fnmatch(name, place):
            return True
    return False


def _ignores(text: str, name: str) -> bool:
    """Return whether a .dockerignore leaves a file out: its last line that matches decides."""
    left_out = False
    for line in text.splitlines():
        pattern = line.strip().removeprefix("!").strip("/").removeprefix("./")
        if not pattern or line.startswith("#"):
            continue
        anywhere = pattern.removeprefix("**/")
        parents = [name, *(str(one) for one in Path(name).parents)]
        matches = any(fnmatch(one, pattern) for one in parents)
        if matches or (anywhere != pattern and fnmatch(Path(name).name, anywhere)):
            left_out = not line.startswith("!")
    return left_out


def _docker(parsed: Dockerfile, code: Source, facts: Facts) -> Iterator[Finding]:
    """Warn of what needs a Docker engine: Cloud Run has none for its containers.

    Source: https://cloud.google.com/run/docs/container-contract (no privileged containers).
    """
    everywhere = [
        (f"{facts.folder}/Dockerfile", one.line, "Docker")
        for stage in parsed.stages
        for one in (stage.start, *stage.instructions)
        if _IN_FILE.search(one.value) or re.match(r"(\S+/)?docker(:|$)", one.value)
    ]
    for name, text in code.code.items():
        for number, code_line in enumerate(text.splitlines(), start=1):
            if code_line.lstrip().startswith(_COMMENTS) or name == "Dockerfile":
                continue
            if needs := next((what for form, what in _IN_CODE if form.search(code_line)), ""):
                everywhere.append((f"{facts.folder}/{name}", number, needs))
                break
    for file, line, needs in everywhere:
        found = f"{file}:{line}: {needs} needs a Docker engine, which no container of Cloud Run has"
        yield warning("dockerfile", found, _NO_DOCKER)
