"""A workflow file as it is, and the copy of it that act runs.

act leaves out three things that GitHub does, so the copy has them written in: what a job may ask
of the token issuer (only with `id-token: write`), the variables of a job's GitHub Environment, and
who may run at the same time (which act would not know how to read).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from scripts.errors import UsageError, did_you_mean

FOLDER = Path(".github/workflows")
_EXPRESSION = re.compile(r"\$\{\{\s*inputs\.([\w-]+)\s*\}\}")
_PINNED = re.compile(r"([\w.-]+/[\w.-]+)(?:/[^@]*)?@(\S+)")


class _Loader(yaml.SafeLoader):
    """YAML as GitHub reads it: `on` is a word, not a truth."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:bool"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What decides who a job can be: its GitHub Environment, and whether it gets tokens."""

    id: str
    environment: str | None
    tokens: bool


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """One workflow file, read with the inputs that somebody typed."""

    name: str
    """The file's name, such as deliver.yml."""
    data: dict[str, Any]
    inputs: dict[str, str]

    @property
    def event(self) -> str:
        """What starts it: push, pull_request or workflow_dispatch."""
        wanted = ("push", "pull_request", "workflow_dispatch")
        return next((event for event in wanted if event in self.data["on"]), "push")

    @property
    def actions(self) -> dict[str, str]:
        """The actions of others that it uses: OWNER/NAME -> commit, but for the check-out.

        act makes the check-out itself, from the folder that it is started in.
        """
        steps = [step for job in self.data["jobs"].values() for step in job.get("steps", [])]
        found = (_PINNED.fullmatch(step.get("uses", "")) for step in steps)
        return {m[1]: m[2] for m in found if m and m[1] != "actions/checkout"}

    @property
    def jobs(self) -> list[Job]:
        """Its jobs, in the file's order."""
        return [self._job(id_, job) for id_, job in self.data["jobs"].items()]

    def _job(self, id_: str, job: dict[str, Any]) -> Job:
        named = job.get("environment")
        environment = named.get("name") if isinstance(named, dict) else named
        permissions = job.get("permissions") or self.data.get("permissions") or {}
        return Job(
            id=id_,
            environment=_EXPRESSION.sub(lambda m: self.inputs.get(m[1], ""), environment)
            if environment
            else None,
            tokens=isinstance(permissions, dict) and permissions.get("id-token") == "write",
        )

    def copy(
        self,
        variables: Callable[[Job], Mapping[str, str]],
        environment: Callable[[Job], Mapping[str, str]],
    ) -> str:
        """The workflow as act is to run it.

        Args:
            variables: a job -> the variables of its GitHub Environment.
            environment: a job -> environment variables that GitHub's runner would set.
        """
        jobs = {}
        for job in self.jobs:
            own = {k: v for k, v in self.data["jobs"][job.id].items() if k != "concurrency"}
            own["env"] = {**own.get("env", {}), **environment(job)}
            jobs[job.id] = _written_in(own, variables(job))
        copied = {k: v for k, v in self.data.items() if k != "concurrency"}
        return yaml.safe_dump({**copied, "jobs": jobs}, sort_keys=False)


def _written_in(value: Any, variables: Mapping[str, str]) -> Any:
    """`value` with each `vars.NAME` of an expression as the text that it stands for."""
    if isinstance(value, dict):
        return {key: _written_in(part, variables) for key, part in value.items()}
    if isinstance(value, list):
        return [_written_in(part, variables) for part in value]
    if isinstance(value, str) and "${{" in value:
        literals = {name: "'" + text.replace("'", "''") + "'" for name, text in variables.items()}
        return re.sub(r"\bvars\.(\w+)\b", lambda m: literals.get(m[1], m[0]), value)
    return value


def load(root: Path, name: str, inputs: Mapping[str, str]) -> Workflow:
    """Read a workflow.

    Args:
        root: the repository.
        name: "deliver", "deliver.yml" or its path.
        inputs: what the Run workflow form is filled in with.

    Raises:
        UsageError: there is no such workflow, it is no workflow, or it takes other inputs.
    """
    known = sorted(path.stem for path in (root / FOLDER).glob("*.yml"))
    stem = Path(name).name.removesuffix(".yml")
    path = root / FOLDER / f"{stem}.yml"
    if not path.is_file():
        raise UsageError(
            f"no workflow '{name}': {FOLDER / path.name} does not exist",
            did_you_mean(stem, known, "workflows here"),
        )
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{FOLDER / path.name}: not valid YAML: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("jobs"), dict) or "on" not in data:
        raise UsageError(f"{FOLDER / path.name}: no workflow: it has no 'on' or no 'jobs'")
    workflow = Workflow(name=path.name, data=data, inputs=dict(inputs))
    _check_inputs(workflow)
    return workflow


def _check_inputs(workflow: Workflow) -> None:
    on = workflow.data["on"]
    form = (on.get("workflow_dispatch") or {}) if isinstance(on, dict) else {}
    fields: dict[str, Any] = form.get("inputs") or {}
    for name in workflow.inputs:
        if name not in fields:
            raise UsageError(
                f"--input {name}: {workflow.name} has no such input",
                did_you_mean(name, list(fields), "inputs there") if fields else None,
            )
    for name, field in fields.items():
        if field.get("required") and not workflow.inputs.get(name):
            raise UsageError(
                f"{workflow.name} needs the input '{name}'",
                f"--input {name}=…",
            )
