"""The text of an environment's file: a new one, or an existing one with other regions. Pure."""

from __future__ import annotations

import re

from scripts.config import yamledit
from scripts.config.formats import AT_ONCE, GRADUAL, Rollout

LOCAL = "local"


def new(
    *,
    project: str,
    regions: list[str],
    registry: str,
    after: str | None = None,
    access: str = "private",
    access_note: str = "",
    confirm: bool = False,
    rollout: Rollout = AT_ONCE,
    account: str | None = None,
) -> str:
    """Return a new environment's file.

    Args:
        project: its project's ID.
        regions: in the order in which they get a release.
        registry: HOST/PROJECT/REPOSITORY.
        after: the environment that a commit must serve in first; None for the first one.
        access: "public" or "private".
        access_note: a comment beside it.
        confirm: whether a change from a terminal asks for confirmation.
        rollout: how traffic moves.
        account: the address of the service account that the service runs as.
    """
    lines = [
        "# yaml-language-server: $schema=../schema.json",
        f"project: {yamledit.scalar(project)}",
        f"regions: {yamledit.flow(regions)}",
        f"registry: {registry}",
    ]
    if after:
        lines.append(after_line(after))
    lines.append(f"access: {access}{f' # {access_note}' if access_note else ''}")
    if confirm:
        lines.append("confirm: true # a change from a terminal asks first")
    lines += ["rollout:", f"  steps: {_steps(rollout)}"]
    if rollout.bake != Rollout().bake:
        lines.append(f"  bake: {rollout.bake}")
    text = "\n".join([*lines, ""])
    return with_account(text, account) if account else text


def after_line(before: str) -> str:
    """Return the line that names the environment that a commit must serve in first."""
    return (
        f"after: {yamledit.scalar(before)} # takes the digest that served there, and never rebuilds"
    )


def unsigned(text: str) -> str:
    """Return a file of an environment at Google, which takes images that no one signed."""
    if yamledit.get(text, ["verify"]) is not None:
        return text
    line = r"\g<0>verify: none # no provenance: GitHub signs nothing for a private repository\n"
    return re.sub(r"(?m)^registry:.*\n", line, text, count=1)


def with_account(text: str, account: str) -> str:
    """Return a file without an overlay with one that names the account to run as."""
    spec = f"    template:\n      spec:\n        serviceAccountName: {account}\n"
    return f"{text}overlay:\n  spec:\n{spec}"


def new_local(region: str) -> str:
    """Return the file of the local environment."""
    return _LOCAL_FILE.format(region=region, steps=_steps(GRADUAL))


def _steps(rollout: Rollout) -> str:
    return f"[{', '.join(map(str, rollout.steps))}]"


_LOCAL_FILE = """\
# yaml-language-server: $schema=../schema.json
# The local Cloud Run: one more environment, not a mode.
project: shipway-local
regions: [{region}]
registry: {region}-docker.pkg.dev/shipway-local/services
access: public
endpoint: up # instead of Google: what `./ship up` started for this checkout
credentials: none
builder: cloud-build # the local one needs no Docker; --builder docker uses it
platform: host # this machine's own, because it installs the dependencies
rollout:
  steps: {steps}
  bake: 0s
"""


def with_regions(text: str, regions: list[str] | None) -> str:
    """Return an environment's file with other regions; None keeps them."""
    if regions and yamledit.get(text, ["regions"]) != regions:
        return yamledit.replace(text, ["regions"], yamledit.flow(regions))
    return text


def local_with_regions(text: str, regions: list[str] | None) -> str:
    """Return the local environment's file with other regions, and its registry in the first one.

    Its project, and its registry's, stay: only regions follow the other environments.
    """
    old = yamledit.get(text, ["regions"]) or [""]
    text = with_regions(text, regions)
    registry = str(yamledit.get(text, ["registry"]))
    host = f"{old[0]}-docker.pkg.dev/"
    if regions and registry.startswith(host):
        new_registry = f"{regions[0]}-docker.pkg.dev/{registry.removeprefix(host)}"
        text = yamledit.replace(text, ["registry"], new_registry)
    return text
