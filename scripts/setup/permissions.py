"""What each identity may do: accounts, roles, and the permissions that they are needed for.

This is the only place that names roles and members. The bootstrap grants them, the doctor checks
them, docs/security.md shows them, and the tests attack them. Nothing here sends a request.

Sources: https://cloud.google.com/run/docs/deploying#permissions_required_to_deploy and
https://cloud.google.com/artifact-registry/docs/access-control (roles, and where they can be given).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

import msgspec

from scripts.config import relations
from scripts.config.pipelines import Pipeline
from scripts.config.relations import Called
from scripts.config.workflows import ISSUER
from scripts.errors import UsageError
from scripts.setup import resources
from scripts.setup.identity_provider import Provider, Repository
from scripts.setup.resources import Account, Resource

ARTIFACT_READER = "roles/artifactregistry.reader"
ARTIFACT_WRITER = "roles/artifactregistry.writer"
IMPERSONATE = "roles/iam.workloadIdentityUser"
ACT_AS = "roles/iam.serviceAccountUser"
LOG_WRITER = "roles/logging.logWriter"
OBJECT_CREATOR = "roles/storage.objectCreator"
OBJECT_USER = "roles/storage.objectUser"
OBJECT_VIEWER = "roles/storage.objectViewer"
RUN_INVOKER = "roles/run.invoker"
RUN_VIEWER = "roles/run.viewer"
SECRET_ACCESSOR = "roles/secretmanager.secretAccessor"  # noqa: S105  (a role)

# Custom roles, which hold the permissions of the needs that name them and nothing else: with
# run.developer, the deployer could delete a service; with run.viewer and logging.viewer, it could
# read the configuration of every service and every log view of the project.
DEPLOYER = "shipwayDeployer"
WATCHER = "shipwayWatcher"
BUILDER = "shipwayBuilder"
_TITLES = {
    DEPLOYER: "Shipway: deploys a service",
    WATCHER: "Shipway: watches a release",
    BUILDER: "Shipway: builds with Cloud Build",
}

_PULL = "artifactregistry.repositories.downloadArtifacts"
_PUSH = "artifactregistry.repositories.uploadArtifacts"


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A custom role of a project."""

    id: str
    project: str
    title: str
    permissions: tuple[str, ...]
    """Sorted."""

    @property
    def name(self) -> str:
        """Its name in policies and in Google's APIs."""
        return _custom(self.project, self.id)


class Need(msgspec.Struct, frozen=True):
    """A permission that a delivery uses on a resource, the role that gives it, and the reason."""

    permission: str
    resource: Resource
    role: str
    why: str


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """One role for one member on one resource, and the reason."""

    role: str
    resource: Resource
    member: str
    why: str


class Federation(msgspec.Struct, frozen=True, kw_only=True):
    """The access that one environment of a repository needs."""

    provider: Provider
    pusher: Account
    deployer: Account
    runtimes: list[Account]
    bindings: list[Binding]
    roles: list[Role] = []
    """The custom roles of the environment's project and of the project of the images."""
    builders: list[Account] = []
    """The accounts that Cloud Build builds as."""
    by_jobs: bool = True
    """Whether jobs of GitHub use the accounts, not builds of Cloud Build."""

    @property
    def accounts(self) -> list[Account]:
        """Every service account."""
        return list(dict.fromkeys([self.pusher, self.deployer, *self.runtimes, *self.builders]))

    @property
    def repository_variables(self) -> dict[str, str]:
        """The GitHub variables of the repository."""
        return {"WORKLOAD_IDENTITY_PROVIDER": self.provider.name, "PUSHER": self.pusher.email}

    @property
    def environment_variables(self) -> dict[str, str]:
        """The GitHub variables of this environment."""
        return {"DEPLOYER": self.deployer.email}


def home(pipelines: Sequence[Pipeline]) -> str:
    """Return the project of the pool and the pusher, which is the project of the images.

    Raises:
        UsageError: the images are in several projects.
    """
    projects = sorted({resources.images(p).project for p in pipelines})
    if len(projects) > 1:
        raise UsageError(
            f"the images are in several projects ({', '.join(projects)})",
            "give every environment of every service a registry in the same project",
        )
    return projects[0]


def plan(
    repository: Repository,
    pipelines: Sequence[Pipeline],
    earlier: Sequence[Pipeline],
    numbers: Mapping[str, str],
    *,
    issuer: str = ISSUER,
) -> Federation:
    """Plan the access of one environment.

    Args:
        repository: The repository at GitHub.
        pipelines: Every service of the repository in this environment.
        earlier: The same services in the environments that `after` names.
        numbers: Project ID -> project number, of `home` and of the environment's projects.
        issuer: The issuer of the jobs' tokens.

    Raises:
        UsageError: a file names no account to run as, or the files name several projects.
    """
    where = home(pipelines)
    env = pipelines[0].env
    projects = sorted({p.environment.project for p in pipelines})
    if len(projects) > 1:
        raise UsageError(
            f"environment '{env}' is in several projects ({', '.join(projects)})",
            "its services share a deployer: use one project in every file of this environment",
        )
    provider = Provider(
        project=where,
        number=numbers[where],
        id=f"github-{repository.repository_id}",
        condition=" && ".join(repository.conditions().values()),
        issuer=issuer,
    )
    pusher = _account(where, "push", repository, "pushes images from the main branch")
    deployer = _account(
        projects[0], f"deploy-{env}", repository, f"delivers to {env}, promotes and rolls back"
    )
    runtimes = {p.service: resources.runtime(p) for p in pipelines}
    related, known = relations.read(pipelines[0].root), {p.service: p for p in pipelines}
    calls = {p.service: relations.calls_of(p, related, known) for p in pipelines}
    bindings = [
        Binding(
            role=IMPERSONATE,
            resource=resources.of_account(pusher),
            member=provider.jobs(f"{repository.repository_id}/build"),
            why="lets the job in build.yml become the pusher",
        ),
        Binding(
            role=IMPERSONATE,
            resource=resources.of_account(deployer),
            member=provider.jobs(f"{repository.repository_id}/environment/{env}"),
            why=f"lets jobs in the GitHub Environment {env} become the deployer",
        ),
    ]
    push = [need for p in pipelines for need in push_needs(p)]
    deploy = [
        need for p in pipelines for need in deploy_needs(p, runtimes[p.service], calls[p.service])
    ]
    deploy += [need for p in earlier for need in earlier_needs(p)]
    bindings += _bindings(pusher.member, push)
    bindings += _bindings(deployer.member, deploy)
    builders = {p.service: account for p in pipelines if (account := resources.builder(p))}
    for pipeline in pipelines:
        if account := builders.get(pipeline.service):
            bindings += _bindings(account.member, build_needs(pipeline))
        agent = _agent(numbers[pipeline.environment.project])
        bindings += _bindings(agent, agent_needs(pipeline))
        needs = runtime_needs(pipeline, calls[pipeline.service])
        bindings += _bindings(runtimes[pipeline.service].member, needs)
    return Federation(
        provider=provider,
        pusher=pusher,
        deployer=deployer,
        runtimes=list({a.email: a for a in runtimes.values()}.values()),
        bindings=list(dict.fromkeys(bindings)),
        roles=_roles([*deploy, *push]),
        builders=list({a.email: a for a in builders.values()}.values()),
    )


def has_first(declared: Sequence[Pipeline]) -> bool:
    """Return whether a service's commits begin in this environment, so that they are built here."""
    return any(pipeline.environment.after is None for pipeline in declared)


def for_cloud_build(
    access: Federation, repository: Repository, declared: Sequence[Pipeline]
) -> Federation:
    """Plan the same for Cloud Build, where a build has one account: each environment has its own.

    In the environment where a commit begins, the account is also the pusher.

    Source: https://cloud.google.com/build/docs/securing-builds/configure-user-specified-service-accounts
    (the role that writes the build's log).
    """
    home_ = access.provider.project
    env, builds = declared[0].env, has_first(declared)
    does = "builds and delivers" if builds else "delivers"
    builder = _account(home_, f"build-{env}", repository, f"{does} to {env} in Cloud Build")
    replaced = {access.pusher.member, access.deployer.member}
    bindings = [
        Binding(
            role=LOG_WRITER,
            resource=Resource(kind="project", project=home_),
            member=builder.member,
            why="writes the build's log",
        ),
        *(
            msgspec.structs.replace(b, member=builder.member) if b.member in replaced else b
            for b in access.bindings
            if b.role != IMPERSONATE and (builds or b.member != access.pusher.member)
        ),
    ]
    return msgspec.structs.replace(
        access, pusher=builder, deployer=builder, bindings=bindings, by_jobs=False
    )


def push_needs(pipeline: Pipeline) -> list[Need]:
    """Return the permissions for building and pushing an image of one service."""
    registry = resources.images(pipeline)
    needs = [
        Need(_PUSH, registry, ARTIFACT_WRITER, "pushes images"),
        Need(_PULL, registry, ARTIFACT_WRITER, "reads images"),
    ]
    if account := resources.builder(pipeline):
        project, place = (
            Resource(kind="project", project=registry.project),
            resources.sources(pipeline),
        )
        role = _custom(registry.project, BUILDER)
        needs += [
            Need("cloudbuild.builds.create", project, role, "starts builds"),
            Need("cloudbuild.builds.get", project, role, "waits for builds"),
            Need("cloudbuild.builds.list", project, role, "finds a build whose answer was lost"),
            Need("cloudbuild.builds.update", project, role, "cancels builds"),
            Need("storage.objects.create", place, OBJECT_CREATOR, "uploads the source"),
            Need("storage.objects.get", place, OBJECT_VIEWER, "reads the log of builds"),
            Need(
                "iam.serviceAccounts.actAs", resources.of_account(account), ACT_AS, "builds as it"
            ),
        ]
    return needs


def build_needs(pipeline: Pipeline) -> list[Need]:
    """Return the permissions of the account that Cloud Build builds as."""
    place = resources.sources(pipeline)
    return [
        Need(_PUSH, resources.images(pipeline), ARTIFACT_WRITER, "pushes images"),
        Need("storage.objects.get", place, OBJECT_USER, "reads the source"),
        Need("storage.objects.create", place, OBJECT_USER, "writes the log"),
    ]


def deploy_needs(
    pipeline: Pipeline, runs_as: Account | None, calls: Sequence[Called] = ()
) -> list[Need]:
    """Return the permissions for releasing one service in its environment.

    Args:
        pipeline: The service in the environment.
        runs_as: The account that the service runs as; None leaves out the permission on it.
        calls: The services that it calls.
    """
    project = Resource(kind="project", project=pipeline.environment.project)
    deployer, watcher = _custom(project.project, DEPLOYER), _custom(project.project, WATCHER)
    needs = [
        Need(
            _PULL,
            resources.images(pipeline),
            ARTIFACT_READER,
            "Cloud Run requires it of the deployer",
        ),
        # Cloud Run checks the list permissions on the project, never on a service.
        Need("run.revisions.list", project, watcher, "lists revisions"),
        Need("run.revisions.get", project, watcher, "waits until a revision is ready"),
        Need("logging.logEntries.list", project, watcher, "shows the last log lines of a failure"),
    ]
    for receiver in pipeline.environment.notify:
        for reference in (receiver.url, receiver.key):
            if secret := resources.secret(reference or ""):
                why = f"notifies {receiver.to}"
                needs.append(Need("secretmanager.versions.access", secret, SECRET_ACCESSOR, why))
    watch = pipeline.environment.rollout.watch
    if watch and watch.source == "metrics":  # the log, it may read anyway
        why = "watches what users are answered"
        needs.append(Need("monitoring.timeSeries.list", project, watcher, why))
    if runs_as:
        why = "deploys a service that runs as this account"
        needs.append(Need("iam.serviceAccounts.actAs", resources.of_account(runs_as), ACT_AS, why))
    for service in resources.services(pipeline):
        needs += [
            Need("run.services.get", service, deployer, "reads the service"),
            Need("run.services.update", service, deployer, "deploys and moves traffic"),
        ]
        if pipeline.environment.access == "private":
            needs.append(Need("run.routes.invoke", service, RUN_INVOKER, "runs the smoke checks"))
    for callee, service in _called(pipeline, calls):
        why = f"reads the URL of {callee.service}, which {pipeline.service} calls"
        needs.append(Need("run.services.get", service, deployer, why))
    return needs


def earlier_needs(pipeline: Pipeline) -> list[Need]:
    """Return a release's permissions in the environment that a commit passes first.

    Args:
        pipeline: The service in the environment that `after` names.
    """
    project = Resource(kind="project", project=pipeline.environment.project)
    why = f"checks that a digest has served in {pipeline.env}"
    return [
        Need("run.services.get", project, RUN_VIEWER, why),
        Need("run.revisions.list", project, RUN_VIEWER, why),
    ]


def runtime_needs(pipeline: Pipeline, calls: Sequence[Called]) -> list[Need]:
    """Return the permissions of the account that a service runs as.

    Args:
        pipeline: The service in its environment.
        calls: The services that it calls.
    """
    why = "reads the secret when it starts"
    needs = [
        Need("secretmanager.versions.access", secret, SECRET_ACCESSOR, why)
        for secret in resources.secrets(pipeline)
    ]
    return [*needs, *_call_needs(pipeline, calls)]


def to_call(pipeline: Pipeline, account: Account) -> list[Binding]:
    """Return the roles with which a service's account invokes the private services it calls."""
    return _bindings(account.member, _call_needs(pipeline, relations.calls_of(pipeline)))


def _call_needs(pipeline: Pipeline, calls: Sequence[Called]) -> list[Need]:
    return [
        Need(
            "run.routes.invoke", service, RUN_INVOKER, f"{pipeline.service} calls {callee.service}"
        )
        for callee, service in _called(pipeline, calls)
        if callee.environment.access == "private"
    ]


def _called(pipeline: Pipeline, calls: Sequence[Called]) -> list[tuple[Pipeline, Resource]]:
    """Return the services that one calls, and each as a resource where it is called."""
    found = []
    for called in calls:
        regions = {called.region(region) for region in pipeline.environment.regions}
        found += [
            (called.pipeline, service)
            for service in resources.services(called.pipeline)
            if service.location in regions
        ]
    return found


def agent_needs(pipeline: Pipeline) -> list[Need]:
    """Return the permissions of Cloud Run's service agent: none for images in its own project."""
    registry = resources.images(pipeline)
    if registry.project == pipeline.environment.project:
        return []
    return [Need(_PULL, registry, ARTIFACT_READER, "Cloud Run pulls across projects")]


def _custom(project: str, role: str) -> str:
    """Return the full name of a project's custom role."""
    return f"projects/{project}/roles/{role}"


def _roles(needs: Sequence[Need]) -> list[Role]:
    """Return the custom roles that the needs name, each with exactly their permissions."""
    held: dict[str, set[str]] = {}
    for need in needs:
        if need.role.startswith("projects/"):
            held.setdefault(need.role, set()).add(need.permission)
    return [
        Role(
            id=(name := role.rpartition("/")[2]),
            project=role.split("/")[1],
            title=_TITLES[name],
            permissions=tuple(sorted(permissions)),
        )
        for role, permissions in sorted(held.items())
    ]


def _agent(number: str) -> str:
    """Return the member that is Cloud Run's service agent in the project with this number."""
    return f"serviceAccount:service-{number}@serverless-robot-prod.iam.gserviceaccount.com"


def _bindings(member: str, needs: Sequence[Need]) -> list[Binding]:
    """Return the roles that give a member its permissions, one for each role and resource."""
    reasons: dict[tuple[str, Resource], list[str]] = {}
    for need in needs:
        reasons.setdefault((need.role, need.resource), []).append(need.why)
    return [
        Binding(role=role, resource=resource, member=member, why=", ".join(dict.fromkeys(whys)))
        for (role, resource), whys in reasons.items()
    ]


def _account(project: str, what: str, repository: Repository, purpose: str) -> Account:
    """Return an account of this repository; several repositories may share a project."""
    end = f"-{repository.repository_id}"
    name = re.sub(r"[^a-z0-9]+", "-", what.lower())
    if name != what or len(name + end) > 30:
        digest = hashlib.sha256(what.encode()).hexdigest()[:4]
        name = f"{name[: 30 - len(end) - 5].rstrip('-')}-{digest}"
    return Account(email=f"{name}{end}@{project}.iam.gserviceaccount.com", purpose=purpose)
