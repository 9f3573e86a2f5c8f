"""Make a fork yours: set its service name, projects, region and repository, or adopt a service.

Asks for what the options do not give, shows the difference, asks for confirmation, and writes
pipelines/ in one step. Run it again to change an answer. The service's code stays in app/. If it is
not the sample any more, its Dockerfile gives the port, and the sample's values and smoke checks go.

--add writes the files of one more service beside the existing ones, which stay as they are.
--from-service reads a running service from Cloud Run and writes the files that describe it.
Afterwards, ./ship plan shows no change.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from scripts.command import options
from scripts.command.call import Call
from scripts.command.options import Yes, option
from scripts.config import pipelines, relations
from scripts.config.formats import is_chosen, not_chosen
from scripts.config.yamlfile import YamlFile
from scripts.errors import UsageError, did_you_mean
from scripts.image import source as sources
from scripts.init import add, adopt, environments, fitting, fork, forms, questions, tree, triggers
from scripts.init.add import Added
from scripts.init.environments import LOCAL
from scripts.init.fork import Answers, Fork
from scripts.init.tree import Files
from scripts.machine import git
from scripts.release.manifest import MINIMUM
from scripts.setup import github
from scripts.template import record


class _Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What init is about to write.

    Attributes:
        files: the new files.
        renamed: new path -> old path.
        notes: lines to print after the files are written.
        hidden: values that must not be printed (I9).
    """

    files: Files
    notes: list[str]
    renamed: dict[str, str] = {}
    hidden: list[str] = []


class Options(options.Options, frozen=True, kw_only=True):
    service: Annotated[
        str | None,
        option(help="the service's new name; if there are several services, which one to change"),
    ] = None
    add: Annotated[
        str | None, option("--add", metavar="NAME", help="add a service of this name")
    ] = None
    calls: Annotated[
        str | None,
        option("--calls", metavar="A[,B]", help="with --add: the services that it calls"),
    ] = None
    access: Annotated[
        Literal["public", "private"] | None,
        option(
            "--access",
            help="with --add: who may call it (default: as for the existing services)",
        ),
    ] = None
    project: Annotated[
        tuple[str, ...],
        option("--project", metavar="ENV=ID", help="an environment's project; may be repeated"),
    ] = ()
    environments: Annotated[
        str | None,
        option(
            "--environments",
            metavar="A,B",
            help="the environments, in the order in which a commit passes them",
        ),
    ] = None
    region: Annotated[
        str | None,
        option(
            "--region",
            metavar="R[,R]",
            help="the regions, in the order of their releases",
        ),
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
        option(
            "--source",
            metavar="FOLDER",
            help="the folder to build (default: unchanged; with --add: the service's name)",
        ),
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
                YamlFile(root / path, path)  # raises an error that names the line
        if options.add is not None:
            planned = _with_one_more(options, options.add, root, before)
        elif options.calls is not None or options.access is not None:
            raise UsageError("--calls and --access go with --add NAME")
        elif options.from_service:
            planned = _adopted(options, options.from_service, root, before)
        else:
            planned = _renamed(options, root, before)
        planned = _with_updates(planned, root)
        lines = tree.diff(before, planned.files, planned.renamed)
        for value in planned.hidden:
            lines = [line.replace(value, "(hidden)") for line in lines]
        if not lines:
            print("nothing to change: the files already have these values")
            return 0
        tree.stage(root, scratch, before, planned.files)
        print("\n".join(lines), flush=True)
        if options.dry_run:
            print("dry run: nothing was written")
            return 0
        if not options.yes:
            questions.confirm("Write these changes?")
        record.start(root)
        tree.put(root, scratch, before, planned.files)
    print("\n".join(["", *planned.notes]))
    return 0


def _with_updates(planned: _Planned, root: Path) -> _Planned:
    """Plan Dependabot's updates of each folder that an image of some service is built from."""
    folders = {}
    for name in fork.services(planned.files):
        for folder in Fork(planned.files, name).folders:
            if "Dockerfile" in (code := sources.read(root / folder)).texts:
                folders[folder] = code.names
    files = triggers.covering(planned.files, folders)
    return msgspec.structs.replace(planned, files=files)


def _renamed(options: Options, root: Path, files: Files) -> _Planned:
    """Plan the current service's files with the answers in them."""
    several = len(pipelines.services(root)) > 1
    current = Fork(files, _which(root, options.service))
    yes = options.yes
    repository = _repository(options.repository, root, yes=yes)
    if several:
        service = current.service
    else:
        service = questions.ask(
            "Service name", "SERVICE", forms.service, options.service,
            _suggestion(current, repository, root, yes=yes), yes=yes,
        )  # fmt: skip
    given = forms.of_each(options.project)
    known = list(current.projects) + [env for env in given if env not in current.projects]
    names = questions.ask(
        "Environments, in the order in which a commit passes them", "--environments",
        forms.environments, options.environments, ",".join(known),
        yes=yes,
    )  # fmt: skip
    stray = [env for env in given if env not in names]
    if stray:
        raise UsageError(
            f"--project {stray[0]}={given[stray[0]]}: no such environment",
            did_you_mean(stray[0], names, "environments"),
        )
    projects = {env: _project(current, env, given.get(env), yes=yes) for env in names}
    regions = _regions(current, options.region, yes=yes)
    registry = options.registry and forms.registry(options.registry)
    suggested = current.default_registry(list(projects.values()), regions)
    if suggested and not registry:
        registry = questions.ask(
            "Registry of the images", "--registry", forms.registry, None, suggested, yes=yes
        )
    source = forms.folder(options.source) if options.source else current.source
    answers = Answers(
        service=service, source=source, projects=projects, regions=regions, registry=registry,
        repository=repository,
    )  # fmt: skip
    if service != current.service and (root / "pipelines" / service).exists():
        raise UsageError(f"pipelines/{service}/ already exists: it is another service")
    if service != current.service:
        relations.read(root)  # raises an error that names the line
    made, renamed = current.with_answers(answers)
    code = sources.read(root / source)
    made = fitting.fit(made, service, code)
    production = f"pipelines/{service}/production.yaml"
    if repository and production in made and github.is_private(repository):
        made[production] = environments.unsigned(made[production])
    notes = _next(root, source, repository, next(iter(projects), None))
    if unchosen := [env for env, project in projects.items() if not is_chosen(project)]:
        words = " ".join(f"--project {env}=ID" for env in unchosen)
        notes[-1] = f"  then, for Google Cloud: docs/fork.md; ./ship init {words}"
    return _Planned(files=made, renamed=renamed, notes=notes)


def _with_one_more(options: Options, name: str, root: Path, files: Files) -> _Planned:
    """Plan the files with one more service in them."""
    stays = {
        "SERVICE": options.service, "--project": options.project, "--region": options.region,
        "--environments": options.environments, "--registry": options.registry,
        "--repository": options.repository, "--from-service": options.from_service,
    }  # fmt: skip
    for option_, value in stays.items():
        if value:
            raise UsageError(
                f"--add takes no {option_}: the service gets the environments, projects, regions"
                " and registry of the existing ones",
                f"run it without, then ./ship init {name} changes it",
            )
    name = forms.service(name)
    known = pipelines.services(root)
    added = Added(
        name=name, source=forms.folder(options.source or name),
        calls=forms.services(options.calls) if options.calls is not None else [],
        access=options.access,
    )  # fmt: skip
    add.check(files, added, known)
    code = _code(root, added)
    made = add.added_to(files, added, code, known)
    return _Planned(files=made, notes=_after_add(Fork(made, name), added))


def _after_add(made: Fork, added: Added) -> list[str]:
    """Return what to know and to do after a service was added, one line each."""
    public = [env for env in made.projects if made.access(env) == "public"]
    notes = []
    if public and added.access is None:
        notes.append(
            f"everyone may call {added.name} in {', '.join(public)}, as the existing services;"
            f" to change it: access: private in pipelines/{added.name}/ENVIRONMENT.yaml"
        )
    elif made.projects and added.access is None:
        notes.append(
            f"no one may call {added.name} without the role, as the existing services; to change"
            f" it: access: public in pipelines/{added.name}/ENVIRONMENT.yaml"
        )
    together = " ".join([*added.calls, added.name])
    todo = [
        f"git add -A && git commit -m 'Add {added.name}'",
        f"./ship doctor {added.name}, which says what to change before a build",
        f"./ship deliver {together} --yes, which delivers to the local Cloud Run",
    ]
    if made.projects:
        first = next(iter(made.projects))
        todo.append(f"then, for Google Cloud: ./ship bootstrap --env {first}, before a merge")
    return [*notes, "next:", *(f"  {line}" for line in todo)]


def _code(root: Path, added: Added) -> sources.Source:
    """Read the folder of a service to add.

    Raises:
        UsageError: it does not exist, leads outside the repository, or has no Dockerfile.
    """
    folder = root / added.source
    if not folder.is_dir():
        raise UsageError(
            f"--add {added.name}: the folder {added.source}/ does not exist",
            f"put the service's code and its Dockerfile into {added.source}/, or name its folder:"
            " --source FOLDER",
        )
    for place in (folder, folder / "Dockerfile"):
        if not place.resolve().is_relative_to(root.resolve()):
            raise UsageError(
                f"{place.relative_to(root)} is a link that leads outside the repository",
                "name a folder of this repository: --source FOLDER",
            )
    code = sources.read(folder)
    if "Dockerfile" not in code.texts:
        ignored = (folder / "Dockerfile").is_file()
        raise UsageError(
            f"{added.source}/Dockerfile is ignored by git, so that no commit has it"
            if ignored
            else f"--add {added.name}: {added.source}/ has no Dockerfile",
            "docs/your-service.md says what it needs, and has some to copy",
        )
    return code


def _adopted(options: Options, running_name: str, root: Path, files: Files) -> _Planned:
    """Plan the files with a running service in them."""
    name = forms.service(running_name)
    if options.service not in (None, name):
        raise UsageError(
            f"an adopted service keeps its name: {name}, not {options.service}",
            f"./ship init --from-service {name} --region R --project P",
        )
    if len(options.project) != 1 or options.region is None:
        raise UsageError("--from-service needs --region R and --project P, each once")
    regions = forms.regions(options.region)
    if len(regions) != 1:
        raise UsageError(
            f"--region {options.region}: --from-service reads one region",
            "add the other regions to the environment's file later",
        )
    env = options.env if options.env == LOCAL else forms.environment(options.env)
    running = adopt.find(
        root, files, name=name, env=env, project=forms.project(options.project[0]),
        region=regions[0],
    )  # fmt: skip
    adopt.check(running)
    source = options.source and forms.folder(options.source)
    source = source or adopt.folder_of(root, files, name)
    where = name if env == pipelines.DEFAULT_ENV else f"{name} --env {env}"
    notes = [
        f"WARNING: {variable} is a plain variable and its name sounds like a secret: keep it in"
        " Secret Manager, and out of git"
        for variable in running.sounds_secret
    ]
    if running.own_minimum:
        notes.append(
            f"each revision with traffic or a tag keeps {running.own_minimum} running; the files"
            f" move that to the service ({MINIMUM}), which the first plan shows"
        )
    notes += [
        f"the files describe what runs. To compare: ./ship plan {where}",
        *_next(root, source, _repository(options.repository, root), env),
    ]
    return _Planned(
        files=adopt.adopted(files, running, source),
        notes=notes,
        hidden=list(running.sounds_secret.values()),
    )


def _which(root: Path, wanted: str | None) -> str:
    """Return the name of the service to change: the wanted one, else the only one."""
    known = pipelines.services(root)
    if wanted in known:
        return str(wanted)
    if len(known) == 1:
        return known[0]
    if not known:
        raise UsageError(f"no pipelines/<service>/service.yaml under {root}")
    if wanted is None and sys.stdin.isatty():
        return questions.ask(
            f"Which service: {', '.join(known)}", "SERVICE", lambda text: _one_of(text, known),
            None, None,
        )  # fmt: skip
    if wanted is None:
        raise UsageError(f"name the service to change: {', '.join(known)}")
    return _one_of(wanted, known)


def _one_of(name: str, known: list[str]) -> str:
    if name not in known:
        hint = did_you_mean(name, known, "services here")
        raise UsageError(f"no service '{name}'", f"{hint}; to add one: ./ship init --add {name}")
    return name


def _project(current: Fork, env: str, given: str | None, *, yes: bool) -> str:
    """Return an environment's project; `not_chosen` if it is to be chosen later.

    A script without --yes must name each project, so that it does not forget one.
    """
    project = current.projects.get(env)
    if project is None or project in fork.SAMPLE_PROJECTS:
        project = not_chosen(env) if yes or sys.stdin.isatty() else None
    what = f"Project ID of {env}"
    if project and not is_chosen(project):
        what += ", or Enter to choose it later"
    return questions.ask(what, f"--project {env}=ID", forms.project, given, project, yes=yes)


def _regions(current: Fork, given: str | None, *, yes: bool) -> list[str] | None:
    """Return the regions of every environment; None if they differ and must stay."""
    if not given and not current.regions and current.projects:
        return None
    default = ",".join(current.regions) if current.regions else None
    return questions.ask("Region", "--region", forms.regions, given, default, yes=yes)


def _repository(given: str | None, root: Path, *, yes: bool = False) -> str | None:
    """Return OWNER/NAME on GitHub; None if it is unknown and no one is to be asked."""
    default = git.github_name(root)
    if given is None and default is None and (yes or not sys.stdin.isatty()):
        return None
    return questions.ask(
        "GitHub repository", "--repository", forms.repository, given, default, yes=yes
    )


def _suggestion(current: Fork, repository: str | None, root: Path, *, yes: bool) -> str | None:
    """Return the name to suggest for the service; None for the sample if no one is to be asked."""
    if not current.is_sample:
        return current.service
    if not (yes or sys.stdin.isatty()):
        return None
    name = (repository or root.name).rpartition("/")[2].lower().replace("_", "-")
    try:
        return forms.service(name)
    except UsageError:
        return None


def _next(root: Path, source: str, repository: str | None, env: str | None) -> list[str]:
    """Return what to do next, one line each."""
    todo = []
    code = sources.read(root / source)
    if not (root / source / "Dockerfile").is_file():
        todo.append(f"put the service's code and its Dockerfile into {source}/, then ./ship init")
    elif fitting.is_sample(code.names):
        todo.append(f"to deliver your own code: put it into {source}/, then ./ship init again")
    if repository and git.github_name(root) != repository:
        verb = "set-url" if git.has_origin(root) else "add"
        todo.append(f"git remote {verb} origin https://github.com/{repository}.git")
    todo += [
        "git add -A && git commit -m 'Make it ours'",
        "./ship doctor, which says what to change before a build",
        "./ship deliver --yes, which starts the local Cloud Run and delivers to it",
    ]
    if env and env != pipelines.DEFAULT_ENV:
        todo.append(f"then, for Google Cloud: docs/fork.md; ./ship deliver --env {env}")
    return ["next:", *(f"  {line}" for line in todo)]
