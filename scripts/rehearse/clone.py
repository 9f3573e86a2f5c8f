"""The clone that a rehearsal works in: at first at the previous commit.

Only its environment files differ from the repository: bakes are short, users' answers are not
watched, and without Docker the local Cloud Build builds the images.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import yaml

from scripts.config import pipelines
from scripts.config.pipelines import Pipeline
from scripts.config.yamlfile import YamlFile
from scripts.errors import UsageError
from scripts.machine import git, scratch


class ScratchClone:
    """A clone at the commit before the last one.

    Args:
        root: The repository.
        path: Where the clone is made.
        branch: The branch that it is on.
        repository: Its name at GitHub, OWNER/NAME.
        builder: "docker" or "cloud-build".
        bake: How long each step is watched, such as "0s".

    Attributes:
        before: The commit before the rehearsed one; forty zeros if that adds something to it.
    """

    def __init__(
        self, root: Path, path: Path, *, branch: str, repository: str, builder: str, bake: str
    ) -> None:
        self.path = path
        self._builder = builder
        self._bake = bake
        self._head = git.commit(root).sha
        scratch.git("clone", "--quiet", root.resolve().as_uri(), str(path))
        scratch.git("checkout", "--quiet", "-B", branch, cwd=path)
        address = f"https://github.com/{repository}"
        scratch.git("remote", "set-url", "origin", address, cwd=path)
        declared = _declared(path)
        with suppress(UsageError):  # the first commit has no previous one
            scratch.git("read-tree", "--reset", "-u", "HEAD~1", cwd=path)
        adds = _declared(path) != declared
        if adds:
            # It adds a service or an environment, where the previous commit cannot be delivered.
            scratch.git("read-tree", "--reset", "-u", "HEAD", cwd=path)
        self._commit("Before it")
        self.before = "0" * 40 if adds else git.commit(path).sha

    def _commit(self, subject: str) -> None:
        """Commit the current files, with environments that suit a rehearsal."""
        for file in sorted((self.path / "pipelines").glob("*/*.yaml")):
            if file.stem in ("service", "smoke", pipelines.DEFAULT_ENV):
                continue
            said = YamlFile(file, str(file.relative_to(self.path))).data
            # No users ask the scratch service, so there is nothing to watch.
            said["rollout"] = {**said.get("rollout", {}), "bake": self._bake, "watch": None}
            if self._builder == "cloud-build":
                project = said["registry"].split("/")[1]
                account = f"rehearsal-builder@{project}.iam.gserviceaccount.com"
                said |= {"builder": "cloud-build", "builds_as": account, "platform": "host"}
            file.write_text(yaml.safe_dump(said, sort_keys=False))
        scratch.git("add", "--all", cwd=self.path)
        scratch.git("commit", "--quiet", "--allow-empty", "--message", subject, cwd=self.path)

    def take_up(self) -> None:
        """Move from the previous commit to the one that is rehearsed."""
        scratch.git("read-tree", "--reset", "-u", self._head, cwd=self.path)
        self._commit("Rehearse it")


def _declared(root: Path) -> list[tuple[str, list[str]]]:
    return [
        (service, pipelines.environments(root, service)) for service in pipelines.services(root)
    ]


def all_pipelines(root: Path) -> list[Pipeline]:
    """Return every service in every environment except the local one.

    Raises:
        UsageError: there is none, or a file is wrong.
    """
    found = [
        pipelines.load(root, service, env)
        for service in pipelines.services(root)
        for env in pipelines.environments(root, service)
        if env != pipelines.DEFAULT_ENV
    ]
    if not found:
        raise UsageError("pipelines/ has only the environment local: there is nothing to rehearse")
    return found
