"""Keep the triggers equal to pipelines/: each environment has one job and one build step. Pure.

The job of an environment in deliver.yml, or its step in deliver.yaml, differs from the others in
a few whole lines. A new one is a copy of an existing one with these lines replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from scripts.config import yamledit
from scripts.config.yamlfile import refusal
from scripts.init.tree import Files

DELIVER = ".github/workflows/deliver.yml"
CLOUD_BUILD = "cloudbuild/deliver.yaml"
DEPENDABOT = ".github/dependabot.yml"
_SHIPWAYS_PACKAGES = "/requirements"
_CALLED = "./.github/workflows/deliver-to.yml"
# How to tell the job or step that builds, and its lines that name the first environment.
_BUILDS = ("    uses: ./.github/workflows/build.yml\n", " ./ship build ")
_BUILD_FOR = ("      environment: ", "      - ENVIRONMENT=")
_SCRIPT = "    script: &deliver |\n"  # the first environment's step has it, the others name it
_LONGEST_BUILD = 86_400  # seconds; https://cloud.google.com/build/quotas

After = dict[str, str | None]
"""Environment -> the one that a commit passes before it, in order."""


def follow(files: Files, after: After) -> Files:
    """Return the files with one job and one build step for each of these environments.

    Raises:
        UsageError: one of the triggers' files is not YAML.
    """
    made = dict(files)
    for path, change in ((DELIVER, _deliver), (CLOUD_BUILD, _cloud_build)):
        if after and path in made:
            try:
                made[path] = change(made[path], after)
            except yaml.YAMLError as error:
                raise refusal(path, made[path], error) from None
    return made


def moved(files: Files, before: str, now: str) -> Files:
    """Return the files with the new folder to build in Dependabot's file."""
    if DEPENDABOT not in files:
        return files
    old, new = f"    directory: /{before}\n", f"    directory: /{now}\n"
    return {**files, DEPENDABOT: _with(files[DEPENDABOT], {old: new})}


def of_a_fork(files: Files) -> Files:
    """Return the files without updates of Shipway's own packages, which an upgrade brings."""
    if DEPENDABOT not in files or not yamledit.get(files[DEPENDABOT], ["updates"]):
        return files
    head, blocks, tail = yamledit.entries(files[DEPENDABOT], ["updates"])
    kept = [block for block in blocks if f"    directory: {_SHIPWAYS_PACKAGES}\n" not in block]
    return {**files, DEPENDABOT: head + "".join(kept) + tail}


def _deliver(text: str, after: After) -> str:
    """Return deliver.yml with one job for each environment."""

    def env_of(job: dict[str, Any]) -> str | None:
        return job.get("with", {}).get("environment") if job.get("uses") == _CALLED else None

    def write(block: str, env: str) -> str:
        needs = "    needs: build\n"
        if before := after[env]:
            condition = f"${{{{ needs.{before}.outputs.outcome == 'delivered' }}}}"
            needs = f"    needs: [build, {before}]\n    if: {condition}\n"
        _, _, rest = _with(block, {"    if: ": ""}).partition("\n")
        lines = {"    needs: ": needs, "      environment: ": f"      environment: {env}\n"}
        return f"  {env}:\n{_with(rest, lines)}"

    return _with_environments(text, "jobs", [*after], env_of, write)


def _cloud_build(text: str, after: After) -> str:
    """Return cloudbuild/deliver.yaml with one step for each environment."""
    first = next(iter(after))
    _, blocks, _ = yamledit.entries(text, ["steps"])
    script = next((_SCRIPT + b.partition(_SCRIPT)[2] for b in blocks if _SCRIPT in b), "")

    def env_of(step: dict[str, Any]) -> str | None:
        variables = dict(entry.split("=", 1) for entry in step.get("env", []))
        return variables.get("ENVIRONMENT") if "AFTER" in variables else None

    def write(block: str, env: str) -> str:
        lines = {
            "  - id: ": f"  - id: {env}\n",
            "    waitFor: ": f"    waitFor: [{after[env] or 'build'}]\n",
            "      - ENVIRONMENT=": f"      - ENVIRONMENT={env}\n",
            "      - AFTER=": f"      - AFTER={after[env] or ''}\n",
            "      - SHIPWAY_OUTPUTS=": f"      - SHIPWAY_OUTPUTS=.shipway/outputs/{env}\n",
        }
        if script:
            head, _, _ = block.partition("    script: ")
            block = head + (script if env == first else "    script: *deliver\n")
        return _with(block, lines)

    made = _with_environments(text, "steps", [*after], env_of, write)
    if made == text:
        return text
    steps = yamledit.get(made, ["steps"])
    times = [int(step["timeout"].removesuffix("s")) for step in steps if "timeout" in step]
    return _with(made, {"timeout: ": f"timeout: {min(sum(times), _LONGEST_BUILD)}s\n"})


def _with_environments(
    text: str,
    key: str,
    wanted: list[str],
    env_of: Callable[[Any], str | None],
    write: Callable[[str, str], str],
) -> str:
    """Return the file with one entry for each environment.

    Args:
        text: The file.
        key: The key of its jobs or steps.
        wanted: The environments, in order.
        env_of: A job or step -> its environment; None for one that belongs to none.
        write: The text of an existing entry, an environment -> the text of this one's entry.
    """
    head, blocks, tail = yamledit.entries(text, [key])
    data = yamledit.get(text, [key]) or []
    found = [env_of(entry) for entry in (data.values() if isinstance(data, dict) else data)]
    existing = {env: block for env, block in zip(found, blocks, strict=True) if env}
    if not existing or [*existing] == wanted:
        return text
    first = {start: f"{start}{wanted[0]}\n" for start in _BUILD_FOR}
    others = [
        _with(block, first) if any(sign in block for sign in _BUILDS) else block
        for env, block in zip(found, blocks, strict=True)
        if not env
    ]
    copied = [*existing.values()]
    made = [write(existing.get(env, copied[0 if env == wanted[0] else -1]), env) for env in wanted]
    between = blocks[-1][len(blocks[-1].rstrip("\n")) :]
    return head + "\n\n".join(block.strip("\n") for block in [*others, *made]) + between + tail


def _with(text: str, lines: dict[str, str]) -> str:
    """Return the text with other lines: the start of a line -> the new line, "" for none."""
    kept = text.splitlines(keepends=True)
    return "".join(
        next((new for start, new in lines.items() if line.startswith(start)), line) for line in kept
    )
