"""A workflow file, the files that its jobs call, and the copies of them that act runs.

act lacks some things that GitHub does, so the copies contain them: what a job needs to ask the
token issuer (only with `id-token: write`), the variables of its GitHub Environment, and a step that
shows the URL of its deployment. A called file's only job is written in place of the job that calls
it, because act begins no job any more after a called one has failed. Concurrency groups are left
out: act cannot read them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from scripts.config import yamlload
from scripts.config.yamlfile import YamlFile
from scripts.errors import UsageError, did_you_mean

Document = dict[str, Any]

FOLDER = Path(".github/workflows")
_EVENTS = ("push", "pull_request", "workflow_dispatch")
_NAMED_INPUT = re.compile(r"\binputs\.([\w-]+)")
_EXPRESSION = re.compile(r"\$\{\{(.*)\}\}", re.DOTALL)
_JOB_OUTPUT = re.compile(r"\$\{\{\s*jobs\.[\w-]+\.outputs\.([\w-]+)\s*\}\}")
_INPUT = re.compile(r"\$\{\{\s*inputs\.([\w-]+)\s*\}\}")
_PINNED = re.compile(r"([\w.-]+/[\w.-]+)(?:/[^@]*)?@(\S+)")


class _Loader(yamlload.Loader):
    """A YAML loader that reads `on` as a word, as GitHub does, and not as a boolean."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:bool"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that decide a job's identity."""

    id: str
    """In the workflow that the run starts from."""
    file: str
    """The workflow file that has its steps: the called one if the job calls one."""
    key: str
    """In this file."""
    environment: str | None
    """Its GitHub Environment."""
    tokens: bool
    """Whether it may ask for OIDC tokens."""


class Called(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow file that a job calls."""

    file: str
    data: Document

    @property
    def is_one_job(self) -> bool:
        """Whether it has one job."""
        return len(self.data["jobs"]) == 1


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """One workflow file, the files that its jobs call, and the inputs of the run."""

    file: str
    """The file's name, such as deliver.yml."""
    data: Document
    inputs: dict[str, str]
    called: dict[str, Called] = {}
    """Job -> the workflow that it calls."""

    @property
    def name(self) -> str:
        """The name that GitHub shows."""
        return str(self.data.get("name", self.file))

    @property
    def event(self) -> str:
        """The event that starts it: push, pull_request or workflow_dispatch."""
        return next((event for event in _EVENTS if event in self.data["on"]), "push")

    @property
    def actions(self) -> dict[str, str]:
        """The third-party actions that it uses: OWNER/NAME -> commit, without the check-out.

        act does the check-out itself, from the folder that it starts in.
        """
        files = [self.data, *(called.data for called in self.called.values())]
        jobs = [job for data in files for job in data["jobs"].values()]
        steps = [step for job in jobs for step in job.get("steps", [])]
        found = (_PINNED.fullmatch(step.get("uses", "")) for step in steps)
        return {m[1]: m[2] for m in found if m and m[1] != "actions/checkout"}

    @property
    def jobs(self) -> list[Job]:
        """Its jobs in the file's order; for a job that calls a file, the jobs of that file."""
        found = []
        for id_, job in self.data["jobs"].items():
            may_ask = _may_ask(self.data, job)
            called = self.called.get(id_)
            if not called:
                found.append(_job(id_, self.file, id_, job, self.inputs, tokens=may_ask))
                continue
            inputs = {k: _filled_in(str(v), self.inputs) for k, v in job.get("with", {}).items()}
            for key, inner in called.data["jobs"].items():
                # A called job has no right that the calling job lacks.
                tokens = may_ask and _may_ask(called.data, inner)
                found.append(_job(id_, called.file, key, inner, inputs, tokens=tokens))
        return found

    @property
    def log_names(self) -> dict[str, str]:
        """The name that a job of the copies has in act's log -> the job's id."""
        names = {}
        for job in self.jobs:
            called = self.called.get(job.id)
            inside = called is not None and not called.is_one_job
            words = [job.id, self.name, job.key] if inside else [self.name, job.id]
            names["/".join(words)] = job.id
        return names

    def copies(
        self,
        folder: str,
        variables: Callable[[Job], Mapping[str, str]],
        environment: Callable[[Job], Mapping[str, str]],
        builder: str,
    ) -> dict[str, str]:
        """Return the files that act runs: name -> text.

        Args:
            folder: Where they will be, as a path from the repository, such as ./copies.
            variables: A job -> the variables of its GitHub Environment.
            environment: A job -> environment variables that GitHub's runner would set.
            builder: What builds instead of a runner's Docker: "docker" or "cloud-build".
        """
        main = {**_without(self.data, "concurrency"), "name": self.name, "jobs": {}}
        made = {self.file: main}
        for job in self.jobs:
            calling = self.data["jobs"][job.id]
            called = self.called.get(job.id)
            own = called.data["jobs"][job.key] if called else calling
            own = _without(own, "concurrency", "name")
            own["env"] = {**own.get("env", {}), **environment(job)}
            own = _with_deployment(_built_by(_written_in(own, variables(job)), builder))
            if called and called.is_one_job:
                own = _in_place_of(calling, called.data, own)
            elif called:
                file = f"{job.id}.{called.file}"
                empty = {**_without(called.data, "concurrency"), "name": self.name, "jobs": {}}
                made.setdefault(file, empty)["jobs"][job.key] = own
                own = {**_without(calling, "concurrency", "name"), "uses": f"{folder}/{file}"}
            main["jobs"][job.id] = own
        return {file: yaml.safe_dump(data, sort_keys=False) for file, data in made.items()}


def _in_place_of(calling: Document, called: Document, job: Document) -> Document:
    """Return a called file's only job as a job of the calling file."""
    given = calling.get("with", {})

    def expression(match: re.Match[str]) -> str:
        text = str(given.get(match[1], ""))
        inner = _EXPRESSION.fullmatch(text)
        return f"({inner[1].strip()})" if inner else "'" + text.replace("'", "''") + "'"

    def written(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: written(part) for key, part in value.items()}
        if isinstance(value, list):
            return [written(part) for part in value]
        if isinstance(value, str) and "${{" in value:
            return _NAMED_INPUT.sub(expression, value)
        return value

    own: Document = written(job)
    outputs = {}
    for name, output in (called["on"]["workflow_call"].get("outputs") or {}).items():
        found = _JOB_OUTPUT.fullmatch(str(output["value"]))
        outputs[name] = own.get("outputs", {}).get(found[1], "") if found else output["value"]
    conditions: Document = {key: calling[key] for key in ("needs", "if") if key in calling}
    return {**conditions, **own, "outputs": outputs}


def _job(
    id_: str, file: str, key: str, job: Document, inputs: Mapping[str, str], *, tokens: bool
) -> Job:
    """Return the facts that decide a job's identity, with these inputs of its file."""
    named = job.get("environment")
    environment = named.get("name") if isinstance(named, dict) else named
    return Job(
        id=id_,
        file=file,
        key=key,
        environment=_filled_in(environment, inputs) if environment else None,
        tokens=tokens,
    )


def _may_ask(data: Document, job: Document) -> bool:
    """Return whether a job of a workflow may ask for OIDC tokens."""
    permissions = job.get("permissions", data.get("permissions"))
    return isinstance(permissions, dict) and permissions.get("id-token") == "write"


def _filled_in(text: str, inputs: Mapping[str, str]) -> str:
    """Return a text with the workflow's inputs in the place of expressions that name them."""
    return _INPUT.sub(lambda match: inputs.get(match[1], ""), text)


def _without(data: Document, *keys: str) -> Document:
    return {key: value for key, value in data.items() if key not in keys}


def _written_in(value: Any, variables: Mapping[str, str]) -> Any:
    """Return `value` with the text of each `vars.NAME` of an expression in its place."""
    if isinstance(value, dict):
        return {key: _written_in(part, variables) for key, part in value.items()}
    if isinstance(value, list):
        return [_written_in(part, variables) for part in value]
    if isinstance(value, str) and "${{" in value:
        literals = {name: "'" + text.replace("'", "''") + "'" for name, text in variables.items()}
        return re.sub(r"\bvars\.(\w+)\b", lambda m: literals.get(m[1], m[0]), value)
    return value


def _with_deployment(job: Document) -> Document:
    """Return a job that prints the URL that GitHub would show for its deployment."""
    named = job.get("environment")
    if not isinstance(named, dict) or "url" not in named:
        return job
    shows = {
        "name": "Show the URL of the deployment",
        "env": {"URL": named["url"]},
        "run": 'echo "the deployment\'s URL at GitHub: $URL"',
    }
    return {**job, "steps": [*job["steps"], shows]}


def _built_by(job: Document, builder: str) -> Document:
    """Return a job in which no step asks for Docker, unless that is the builder."""
    steps = [
        {**step, "run": step["run"].replace("--builder docker", f"--builder {builder}")}
        if "run" in step
        else step
        for step in job.get("steps", [])
    ]
    return {**job, "steps": steps} if steps else job


def load(root: Path, name: str, inputs: Mapping[str, str]) -> Workflow:
    """Read a workflow, and the files of this repository that its jobs call.

    Args:
        root: The repository.
        name: "deliver", "deliver.yml" or its path.
        inputs: The values of the Run workflow form.

    Raises:
        UsageError: a file does not exist or is not a workflow, or the inputs are not the form's.
    """
    stem = Path(name).name.removesuffix(".yml")
    data = _read(root, f"{FOLDER}/{stem}.yml", f"no workflow '{name}'")
    if [*data["on"]] == ["workflow_call"]:
        raise UsageError(
            f"{stem}.yml runs only when another workflow calls it", "rehearse the one that calls it"
        )
    called = {}
    for id_, job in data["jobs"].items():
        uses = str(job.get("uses", ""))
        if uses.startswith("./"):
            where = f"{stem}.yml: jobs.{id_}.uses"
            found = _read(root, uses.removeprefix("./"), where)
            if "workflow_call" not in found["on"]:
                raise UsageError(f"{where}: {uses} has no 'workflow_call' in its 'on'")
            called[id_] = Called(file=Path(uses).name, data=found)
    workflow = Workflow(file=f"{stem}.yml", data=data, inputs=dict(inputs), called=called)
    _check_inputs(workflow)
    return workflow


def _read(root: Path, path: str, missing: str) -> Document:
    """Return the workflow file at `path`; `missing` begins the message if there is none."""
    if not (root / path).is_file():
        known = sorted(found.stem for found in (root / FOLDER).glob("*.yml"))
        raise UsageError(
            f"{missing}: {path} does not exist",
            did_you_mean(Path(path).stem, known, "workflows here"),
        )
    data = YamlFile(root / path, path, _Loader).data
    if not isinstance(data, dict) or not isinstance(data.get("jobs"), dict) or "on" not in data:
        raise UsageError(f"{path}: not a workflow: it has no 'on' or no 'jobs'")
    return data


def _check_inputs(workflow: Workflow) -> None:
    on = workflow.data["on"]
    form = (on.get("workflow_dispatch") or {}) if isinstance(on, dict) else {}
    fields: dict[str, Any] = form.get("inputs") or {}
    for name in workflow.inputs:
        if name not in fields:
            raise UsageError(
                f"--input {name}: {workflow.file} has no such input",
                did_you_mean(name, list(fields), "inputs there") if fields else None,
            )
    for name, field in fields.items():
        if field.get("required") and not workflow.inputs.get(name):
            raise UsageError(f"{workflow.file} needs the input '{name}'", f"--input {name}=…")
