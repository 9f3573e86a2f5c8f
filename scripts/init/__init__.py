"""Make a fork yours: service name, projects, region, repository; or adopt a service that runs.

Asks what is not given, shows the difference, asks once more, and writes pipelines/ in one step.
Run it again whenever one of the answers changes. The service's code stays where it is, in app/.

--from-service reads a service from Cloud Run and writes the files that describe it: the first
./ship plan shows no change.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from scripts.command import options
from scripts.command.call import Call
from scripts.command.options import Yes, option
from scripts.config import pipelines
from scripts.config.yamlfile import YamlFile
from scripts.errors import UsageError, did_you_mean
from scripts.init import adopt, fork, forms, questions, tree
from scripts.init.environments import LOCAL
from scripts.init.fork import Answers, Fork
from scripts.init.tree import Files
from scripts.machine import git

Planned = tuple[Files, dict[str, str], list[str], list[str]]
"""The files that shall be, new path -> old path, what to say then, and what not to show (I9)."""


class Options(options.Options, frozen=True, kw_only=True):
    service: Annotated[str | None, option(help="the service's new name")] = None
    project: Annotated[
        tuple[str, ...],
        option("--project", metavar="ENV=ID", help="an environment's project; may be repeated"),
    ] = ()
    environments: Annotated[
        str | None,
        option("--environments", metavar="A,B", help="in the order in which a commit meets them"),
    ] = None
    region: Annotated[
        str | None,
        option("--region", metavar="R[,R]", help="in the order in which they are released"),
    ] = None
    registry: Annotated[
        str | None,
        option("--registry", metavar="HOST/PROJECT/REPOSITORY", help="the registry for the images"),
    ] = None
    repository: Annotated[
        str | None, option("--repository", metavar="OWNER/NAME", help="the repository on GitHub")
    ] = None
    source: Annotated[
        str | None,
        option("--source", metavar="FOLDER", help="the folder to build (default: unchanged)"),
    ] = None
    from_service: Annotated[
        str | None,
        option(
            "--from-service",
            metavar="NAME",
            help="adopt this running service; needs --region R and --project P",
        ),
    ] = None
    env: Annotated[
        str,
        option(
            "--env",
            help="with --from-service: the name of its environment (default: %(default)s)",
        ),
    ] = "production"
    dry_run: Annotated[bool, option("--dry-run", help="print the difference and write nothing")] = (
        False
    )
    yes: Yes = False


def run(options: Options, call: Call) -> int:
    root = call.root
    call.record.env = options.env
    with tree.alone(root) as scratch:
        before = tree.read(root)
        for path in before:
            if path.endswith((".yaml", ".yml")):
                YamlFile(root / path, path)  # what is no YAML is said with its line
        name = options.from_service
        after, renamed, said, hidden = (
            _adopted(options, name, root, before) if name else _renamed(options, root, before)
        )
        lines = tree.diff(before, after, renamed)
        for value in hidden:
            lines = [line.replace(value, "(not shown)") for line in lines]
        if not lines:
            print("nothing to change: the files say so already")
            return 0
        tree.stage(root, scratch, before, after)
        print("\n".join(lines), flush=True)
        if options.dry_run:
            print("dry run: nothing was written")
            return 0
        if not options.yes:
            questions.confirm("Write this?")
        tree.put(root, scratch, before, after)
    print("\n".join(["", *said]))
    return 0


def _renamed(options: Options, root: Path, files: Files) -> Planned:
    """The files of the service that is there, with the answers in them."""
    there = Fork(files, _which(root, options.service))
    repository = _repository(options.repository, root)
    suggested = _suggestion(there, repository, root)
    service = questions.ask("Service name", "SERVICE", forms.service, options.service, suggested)
    given = forms.of_each(list(options.project))
    known = list(there.projects) + [env for env in given if env not in there.projects]
    names = questions.ask(
        "Environments, in the order in which a commit meets them", "--environments",
        forms.environments, options.environments, ",".join(known),
    )  # fmt: skip
    stray = [env for env in given if env not in names]
    if stray:
        raise UsageError(
            f"--project {stray[0]}={given[stray[0]]}: no such environment",
            did_you_mean(stray[0], names, "environments"),
        )
    projects = {env: _project(there, env, given.get(env)) for env in names}
    now = there.regions
    regions = None
    if options.region or now or not there.projects:
        regions = questions.ask(
            "Region", "--region", forms.regions, options.region, ",".join(now) if now else None
        )
    wanted = there.default_registry(list(projects.values()), regions)
    registry = options.registry and forms.registry(options.registry)
    if wanted and not registry:
        registry = questions.ask(
            "Registry of the images", "--registry", forms.registry, None, wanted
        )
    source = forms.folder(options.source) if options.source else there.source
    answers = Answers(
        service=service, source=source, projects=projects, regions=regions, registry=registry,
        repository=repository,
    )  # fmt: skip
    if service != there.service and (root / "pipelines" / service).exists():
        raise UsageError(f"pipelines/{service}/ exists already: it is another service")
    after, renamed = there.with_answers(answers)
    return after, renamed, _next(root, source, repository, next(iter(projects), None)), []


def _adopted(options: Options, running_name: str, root: Path, files: Files) -> Planned:
    """The files with a service in them that runs already."""
    name = forms.service(running_name)
    if options.service not in (None, name):
        raise UsageError(
            f"a service keeps its name: {name}, not {options.service}",
            f"./ship init --from-service {name} --region R --project P",
        )
    if len(options.project) != 1 or options.region is None:
        raise UsageError("--from-service needs --region R and --project P, one of each")
    regions = forms.regions(options.region)
    if len(regions) != 1:
        raise UsageError(f"--region {options.region}: one region; add others to the file later")
    env = options.env if options.env == LOCAL else forms.environment(options.env)
    running = adopt.find(
        root, files, name=name, env=env, project=forms.project(options.project[0]),
        region=regions[0],
    )  # fmt: skip
    adopt.check(running)
    source = options.source and forms.folder(options.source)
    source = source or adopt.folder_of(root, files, name)
    after = adopt.adopted(files, running, source)
    said = [
        f"WARNING: {variable} is a plain variable and sounds like a secret: keep it in Secret"
        " Manager, and out of git"
        for variable in running.sounds_secret
    ]
    where = name if env == pipelines.DEFAULT_ENV else f"{name} --env {env}"
    said += [
        f"what runs is what the files say: ./ship plan {where}",
        f"pipelines/{name}/smoke.yaml must name the path that tells the commit",
    ]
    repository = _repository(options.repository, root)
    said += _next(root, source, repository, env)
    return after, {}, said, list(running.sounds_secret.values())


def _which(root: Path, wanted: str | None) -> str:
    """The service that is meant: the one of that name, else the only one."""
    known = pipelines.services(root)
    if wanted in known:
        return str(wanted)
    if len(known) == 1:
        return known[0]
    if not known:
        raise UsageError(f"no pipelines/<service>/service.yaml under {root}")
    raise UsageError(f"name the service: {', '.join(known)}")


def _project(there: Fork, env: str, given: str | None) -> str:
    now = there.projects.get(env)
    default = None if now in fork.SAMPLE_PROJECTS else now
    return questions.ask(
        f"Project id of {env}", f"--project {env}=ID", forms.project, given, default
    )


def _repository(given: str | None, root: Path) -> str | None:
    """OWNER/NAME on GitHub; None where nobody says."""
    origin = git.origin(root)
    default = None
    if origin.startswith("https://github.com/"):
        default = origin.removeprefix("https://github.com/")
    if given is None and default is None and not sys.stdin.isatty():
        return None
    return questions.ask("GitHub repository", "--repository", forms.repository, given, default)


def _suggestion(there: Fork, repository: str | None, root: Path) -> str | None:
    """What a service is called if nobody says; of the sample nothing is taken over unasked."""
    if not there.is_sample:
        return there.service
    if not sys.stdin.isatty():
        return None
    name = (repository or root.name).rpartition("/")[2].lower().replace("_", "-")
    try:
        return forms.service(name)
    except UsageError:
        return None


def _next(root: Path, source: str, repository: str | None, env: str | None) -> list[str]:
    """What to type now."""
    said = []
    if not (root / source / "Dockerfile").is_file():
        said.append(f"put the service's code and its Dockerfile in {source}/")
    if repository and git.origin(root) != f"https://github.com/{repository}":
        verb = "set-url" if git.has_origin(root) else "add"
        said.append(f"git remote {verb} origin https://github.com/{repository}.git")
    said += ["git add -A && git commit -m 'Make it ours'", "./ship up, then ./ship deliver"]
    if env and env != pipelines.DEFAULT_ENV:
        said.append(f"then, for the cloud: docs/fork.md; ./ship deliver --env {env}")
    return ["next:", *(f"  {line}" for line in said)]
