"""A fork's names: as its files have them, and the same files with other answers. Pure.

Each fact has one place: the service's name is its folder's in pipelines/ (and the manifest's), a
project is in its environment's file. Only values change, so comments stay.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import yaml

from scripts.config import relations, sources, yamledit
from scripts.config.formats import AT_ONCE, GRADUAL, is_chosen
from scripts.config.sources import SOURCE
from scripts.init import environments, triggers
from scripts.init.environments import LOCAL
from scripts.init.tree import Files

SAMPLE_SERVICE = "app"
SAMPLE_PROJECTS = ("acme-staging", "acme-prod", "acme-ops")
_NO_OWNER = re.compile(r"@OWNER(?=/)")
_ACCOUNT = ["overlay", "spec", "template", "spec", "serviceAccountName"]
_LONGEST_ACCOUNT = 30


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """The values that the files get.

    Attributes:
        service: the service's name.
        source: the folder that is built.
        projects: environment -> project ID, in the order in which a commit passes them; not local.
        regions: the regions of every environment; None keeps them.
        registry: the registry of every environment; None keeps it.
        repository: OWNER/NAME at GitHub, if known.
    """

    service: str
    source: str
    projects: dict[str, str]
    regions: list[str] | None = None
    registry: str | None = None
    repository: str | None = None


class Fork:
    """One service of the repository, with the names that its files have.

    Args:
        files: the result of `tree.read`.
        service: the service's name.

    Attributes:
        folders: those that its images are built from; `source` is the first, of its own image.
    """

    def __init__(self, files: Files, service: str) -> None:
        self.files = files
        self.service = service
        self._folder = f"pipelines/{service}"
        annotations = self._get("service", ["metadata", "annotations"]) or {}
        self.folders = [*sources.of({"metadata": {"annotations": annotations}}, service).values()]
        self.source = self.folders[0]
        self.projects = {
            env: str(self._get(env, ["project"])) for env in self._in_order(self._environments())
        }

    def _environments(self) -> list[str]:
        names = [path.rpartition("/")[2].removesuffix(".yaml") for path in self.files
                 if path.rpartition("/")[0] == self._folder and path.endswith(".yaml")]  # fmt: skip
        return sorted(name for name in names if name not in ("service", "smoke", LOCAL))

    def _in_order(self, names: list[str]) -> list[str]:
        """Sort the environments: each after the one that `after` names."""
        return [*_sorted({name: self._get(name, ["after"]) for name in names})]

    def _get(self, file: str, path: list[str | int]) -> Any:
        return yamledit.get(self.files.get(f"{self._folder}/{file}.yaml", ""), path)

    @property
    def regions(self) -> list[str] | None:
        """The regions of every environment; None if they differ."""
        regions: list[str] | None = self._same("regions")
        return regions

    @property
    def registry(self) -> str | None:
        """The registry of every environment; None if they differ."""
        registry: str | None = self._same("registry")
        return registry

    def access(self, env: str) -> str:
        """Return who may invoke the service in an environment: "public" or "private"."""
        return str(self._get(env, ["access"]) or "private")

    def _same(self, key: str) -> Any:
        found = [self._get(env, [key]) for env in self.projects]
        return found[0] if found and all(one == found[0] for one in found) else None

    @property
    def is_sample(self) -> bool:
        """Whether the files still have the sample's projects."""
        return any(project in SAMPLE_PROJECTS for project in self.projects.values())

    def default_registry(self, projects: list[str], regions: list[str] | None) -> str | None:
        """Return the registry to suggest; None if the files' own ones may stay.

        Args:
            projects: the environments' projects, in order.
            regions: the regions; None if the files' own stay.
        """
        host, _, rest = (self.registry or "").partition("/")
        project, _, name = rest.partition("/")
        if not project and (self.projects or not projects or not regions):
            return None
        if project in (*SAMPLE_PROJECTS, "") or not is_chosen(project):
            chosen = [*filter(is_chosen, projects)] or projects
            project = chosen[0] if chosen else project
        old = (self.regions or [""])[0]
        if regions and (not host or host == f"{old}-docker.pkg.dev"):
            host = f"{regions[0]}-docker.pkg.dev"
        return f"{host}/{project}/{name or 'services'}"

    def with_answers(self, answers: Answers) -> tuple[Files, dict[str, str]]:
        """Return the files with other answers.

        Returns:
            The files, and the renamed ones: new path -> old path.
        """
        folder = f"pipelines/{answers.service}"
        made: Files = {}
        renamed: dict[str, str] = {}
        kept = {"service", "smoke", LOCAL, *answers.projects}
        for path, text in self.files.items():
            parent, _, name = path.rpartition("/")
            if parent != self._folder or not name.endswith(".yaml"):
                inside = path.startswith(f"{self._folder}/")
                new = f"{folder}{path.removeprefix(self._folder)}" if inside else path
                made[new] = text
                if new != path:
                    renamed[new] = path
                continue
            env = name.removesuffix(".yaml")
            if env not in kept:
                continue
            new = f"{folder}/{name}"
            if new != path:
                renamed[new] = path
            if env == "service":
                text = self._manifest(text, answers)
            elif env == LOCAL:
                text = environments.local_with_regions(text, answers.regions)
            elif env != "smoke":
                text = self._environment(text, env, answers)
            made[new] = text
        before: str | None = None
        for env, project in answers.projects.items():
            if f"{folder}/{env}.yaml" not in made:
                made[f"{folder}/{env}.yaml"] = self._new(project, before, answers)
            before = env
        if relations.FILE in made and answers.service != self.service:
            made[relations.FILE] = _shared_by(made[relations.FILE], self.service, answers.service)
        made = triggers.moved(_owned(made, answers.repository), self.source, answers.source)
        return with_triggers(made), renamed

    def _manifest(self, text: str, answers: Answers) -> str:
        text = yamledit.replace(text, ["metadata", "name"], yamledit.scalar(answers.service))
        return with_source(text, answers)

    def _environment(self, text: str, env: str, answers: Answers) -> str:
        project, old = answers.projects[env], self.projects[env]
        text = yamledit.replace(text, ["project"], yamledit.scalar(project))
        text = environments.with_regions(text, answers.regions)
        if answers.registry and yamledit.get(text, ["registry"]) != answers.registry:
            text = yamledit.replace(text, ["registry"], answers.registry)
        after = yamledit.get(text, ["after"])
        earlier = list(answers.projects)[: list(answers.projects).index(env)]
        if after is None and earlier and earlier[-1] not in self.projects:
            text = yamledit.insert_after(text, ["registry"], environments.after_line(earlier[-1]))
        elif after is not None and after not in answers.projects:
            text = (
                yamledit.replace(text, ["after"], earlier[-1])
                if earlier
                else yamledit.remove(text, ["after"])
            )
        account = yamledit.get(text, _ACCOUNT)
        if account:
            name, _, domain = str(account).partition("@")
            if name == runtime_account(self.service):
                name = runtime_account(answers.service)
            if domain == f"{old}.iam.gserviceaccount.com":
                domain = f"{project}.iam.gserviceaccount.com"
            text = yamledit.replace(text, _ACCOUNT, f"{name}@{domain}")
        return text

    def _new(self, project: str, before: str | None, answers: Answers) -> str:
        first = next(iter(self.projects), None)
        access = self.access(first) if first else "private"
        regions = answers.regions or (self._get(first, ["regions"]) if first else None)
        registry = answers.registry or (self._get(first, ["registry"]) if first else None)
        return environments.new(
            project=project, regions=regions or [], registry=str(registry), after=before,
            access=access, confirm=before is not None, rollout=GRADUAL if before else AT_ONCE,
            account=f"{runtime_account(answers.service)}@{project}.iam.gserviceaccount.com",
        )  # fmt: skip


def _shared_by(text: str, before: str, now: str) -> str:
    """Return services.yaml with a service's new name where it uses a shared folder."""
    for folder, names in (yamledit.get(text, ["shared"]) or {}).items():
        for index, name in enumerate(names):
            if name == before:
                text = yamledit.replace(text, ["shared", folder, index], yamledit.scalar(now))
    return text


def services(files: Files) -> list[str]:
    """Return the services of the files, sorted."""
    found = [re.fullmatch(r"pipelines/([^/]+)/service\.yaml", path) for path in sorted(files)]
    return [match[1] for match in found if match]


def with_triggers(files: Files) -> Files:
    """Return the files with triggers for the environments of all services."""
    after: dict[str, str | None] = {}
    for name in services(files):
        for env in Fork(files, name).projects:
            before = yamledit.get(files[f"pipelines/{name}/{env}.yaml"], ["after"])
            after.setdefault(env, before)
    return triggers.of_a_fork(triggers.follow(files, _sorted(after)))


def _sorted(after: dict[str, str | None]) -> dict[str, str | None]:
    """Return environment -> the one before it, in the order in which a commit passes them."""
    ordered: dict[str, str | None] = {}
    while rest := [env for env in after if env not in ordered]:
        ready = [env for env in rest if after[env] not in rest]
        ordered |= {env: after[env] for env in ready or rest}
    return ordered


def runtime_account(service: str) -> str:
    """Return the name of the service account that a service runs as.

    Source: https://cloud.google.com/iam/docs/service-accounts-create (6 to 30 characters)
    """
    suffix = "-runtime"
    return service[: _LONGEST_ACCOUNT - len(suffix)].rstrip("-") + suffix


def with_source(text: str, answers: Answers) -> str:
    """Return the manifest, with an annotation if the folder that is built has another name."""
    path = ["metadata", "annotations", SOURCE]
    current = yamledit.get(text, path)
    wanted = answers.source if answers.source != answers.service else None
    if current == wanted:
        return text
    if current is not None and wanted is not None:
        return yamledit.replace(text, path, yamledit.scalar(wanted))
    if wanted is None:
        only = len(yamledit.get(text, path[:-1])) == 1
        return yamledit.remove(text, path[:-1] if only else path)
    note = "# the folder that is built"
    annotations = yamledit.get(text, path[:-1])
    if not annotations:
        line = f"annotations: {{{SOURCE}: {yamledit.scalar(wanted)}}} {note}"
        return yamledit.insert_after(text, ["metadata", "name"], line)
    first = next(iter(annotations))
    line = f"{SOURCE}: {yamledit.scalar(wanted)} {note}"
    made = yamledit.insert_after(text, [*path[:-1], first], line)
    if _has(made, path, wanted):
        return made
    # The annotations are on one line: write them as JSON, which is YAML too.
    return yamledit.replace(text, path[:-1], json.dumps({**annotations, SOURCE: wanted}))


def _has(text: str, path: list[str], wanted: str) -> bool:
    try:
        return bool(yamledit.get(text, path) == wanted)
    except yaml.YAMLError:
        return False


def _owned(files: Files, repository: str | None) -> Files:
    """Return the files with the repository's owner instead of the sample's."""
    if repository is None:
        return files
    owner = repository.partition("/")[0]
    return {
        path: _NO_OWNER.sub(f"@{owner}", text) if path.endswith("CODEOWNERS") else text
        for path, text in files.items()
    }
