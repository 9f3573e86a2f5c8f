"""Keep the workflows equal to pipelines/: each environment has one job. Pure.

The job of an environment in deliver.yml differs from the others in a few whole lines. A new one is
a copy of an existing one with these lines replaced. watch.yml has one line with the environments.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import yaml

from scripts.config import workflows, yamledit
from scripts.config.yamlfile import refusal
from scripts.init.tree import Files

DELIVER = f"{workflows.FOLDER}/{workflows.DELIVER}"
WATCH = f"{workflows.FOLDER}/{workflows.WATCH}"
DEPENDABOT = workflows.DEPENDABOT
_SHIPWAYS_PACKAGES = "/requirements"
_PYTHONS_PACKAGES = re.compile(
    r"(requirements[^/]*\.(txt|in)|pyproject\.toml|setup\.(py|cfg)|Pipfile)$"
)
_BUILDS = f"    uses: ./{workflows.FOLDER}/{workflows.BUILD}\n"
_BUILD_FOR = "      environment: "
_WATCHES = "        environment: "

After = dict[str, str | None]
"""Environment -> the one that a commit passes before it, in order."""


def follow(files: Files, after: After) -> Files:
    """Return the files with one job for each of these environments.

    Raises:
        UsageError: the workflow is not YAML.
    """
    if not after or DELIVER not in files:
        return files
    try:
        made = {**files, DELIVER: _deliver(files[DELIVER], after)}
    except yaml.YAMLError as error:
        raise refusal(DELIVER, files[DELIVER], error) from None
    if WATCH in files:
        line = f"{_WATCHES}[{', '.join(_watched(files, after))}]\n"
        made[WATCH] = _with(files[WATCH], {_WATCHES: line})
    return made


def _watched(files: Files, after: After) -> list[str]:
    """Return the environments that have a `watch`; the last one if none has, as a job needs one."""

    def has_watch(env: str) -> bool:
        paths = [path for path in files if re.fullmatch(rf"pipelines/[^/]+/{env}\.yaml", path)]
        return any(yamledit.get(files[path], ["rollout", "watch"]) is not None for path in paths)

    return [env for env in after if has_watch(env)] or [*after][-1:]


def moved(files: Files, before: str, now: str) -> Files:
    """Return the files with the new folder to build in Dependabot's file."""
    if DEPENDABOT not in files:
        return files
    old, new = f"    directory: /{before}\n", f"    directory: /{now}\n"
    return {**files, DEPENDABOT: _with(files[DEPENDABOT], {old: new})}


def copied(files: Files, before: Collection[str], folder: str) -> Files:
    """Return the files with the updates of the folders that are built for one more folder."""
    if DEPENDABOT not in files or not yamledit.get(files[DEPENDABOT], ["updates"]):
        return files
    head, blocks, tail = yamledit.entries(files[DEPENDABOT], ["updates"])
    new: dict[str, str] = {}
    for block in blocks:
        [update] = yamledit.get(block, [])
        old = str(update.get("directory", "")).removeprefix("/")
        if old in before:
            lines = {f"    directory: /{old}\n": f"    directory: /{folder}\n",
                     f"      {old}:\n": f"      {folder.rpartition('/')[2]}:\n"}  # fmt: skip
            new.setdefault(update.get("package-ecosystem"), _with(block, lines))
    # The last block may end the file, without the empty line between two of them.
    text = "\n\n".join(block.strip("\n") for block in [*blocks, *new.values()])
    return {**files, DEPENDABOT: f"{head}{text}\n{tail}"} if new else files


def covering(files: Files, folders: Mapping[str, Collection[str]]) -> Files:
    """Return the files with updates for each folder that an image is built from.

    Args:
        files: the files of a fork.
        folders: the folders with a Dockerfile -> the path of every file in it.
    """
    missing = workflows.without_updates(files.get(DEPENDABOT, ""), folders)
    for folder in missing:
        files = copied(files, folders.keys() - {*missing}, folder)
        files = without_pip(files, folder, folders[folder])
    return files


def of_a_fork(files: Files) -> Files:
    """Return the files without updates of Shipway's own packages, which an upgrade brings."""
    if DEPENDABOT not in files:
        return files
    return _without(files, (f"    directory: {_SHIPWAYS_PACKAGES}\n",))


def without_pip(files: Files, folder: str, names: Collection[str]) -> Files:
    """Return the files without updates of Python's packages, if the service names none.

    Source: https://docs.github.com/en/code-security/reference/supply-chain-security/supported-ecosystems-and-repositories

    Args:
        files: the files of a fork.
        folder: the folder that is built.
        names: the path of every file in it.
    """
    if any(map(_PYTHONS_PACKAGES.search, names)) or DEPENDABOT not in files:
        return files
    return _without(files, ("package-ecosystem: pip ", f"    directory: /{folder}\n"))


def _without(files: Files, parts: tuple[str, ...]) -> Files:
    """Return the files without the updates whose text has all of these parts."""
    if not yamledit.get(files[DEPENDABOT], ["updates"]):
        return files
    head, blocks, tail = yamledit.entries(files[DEPENDABOT], ["updates"])
    kept = [block for block in blocks if not all(part in block for part in parts)]
    return {**files, DEPENDABOT: head + "".join(kept) + tail}


def _deliver(text: str, after: After) -> str:
    """Return deliver.yml with one job for each environment."""
    head, blocks, tail = yamledit.entries(text, ["jobs"])
    jobs: dict[str, Any] = yamledit.get(text, ["jobs"]) or {}
    found = [workflows.environment_of(job) for job in jobs.values()]
    existing = {env: block for env, block in zip(found, blocks, strict=True) if env}
    wanted = [*after]
    if not existing or [*existing] == wanted:
        return text
    first = {_BUILD_FOR: f"{_BUILD_FOR}{wanted[0]}\n"}
    others = [
        _with(block, first) if _BUILDS in block else block
        for env, block in zip(found, blocks, strict=True)
        if not env
    ]
    copied = [*existing.values()]
    made = [
        _job(existing.get(env, copied[0 if env == wanted[0] else -1]), env, after[env])
        for env in wanted
    ]
    between = blocks[-1][len(blocks[-1].rstrip("\n")) :]
    return head + "\n\n".join(block.strip("\n") for block in [*others, *made]) + between + tail


def _job(block: str, env: str, before: str | None) -> str:
    """Return an existing job's text as the job of an environment that comes after `before`."""
    came, needs = ("build", "build") if before is None else (before, f"[build, {before}]")
    listed = f"needs.{came}.outputs.{'delivered' if before else 'services'}"
    lines = {
        "    needs: ": f"    needs: {needs}\n    if: ${{{{ !cancelled() && {listed} }}}}\n",
        "      environment: ": f"      environment: {env}\n",
        "      services: ": f"      services: ${{{{ {listed} }}}}\n",
    }
    _, _, rest = _with(block, {"    if: ": ""}).partition("\n")
    return f"  {env}:\n{_with(rest, lines)}"


def _with(text: str, lines: dict[str, str]) -> str:
    """Return the text with other lines: the start of a line -> the new line, "" for none."""
    kept = text.splitlines(keepends=True)
    return "".join(
        next((new for start, new in lines.items() if line.startswith(start)), line) for line in kept
    )
