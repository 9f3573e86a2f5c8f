"""Which permission each call asks for, by its route.

Sources: the "IAM permissions" of each method in Google's references, such as
https://cloud.google.com/run/docs/reference/iam/permissions and
https://cloud.google.com/artifact-registry/docs/access-control#permissions.
"""

from __future__ import annotations

from typing import NamedTuple

SERVICE, REVISION, PROJECT, REPOSITORY, ACCOUNT, PULL, PUSH, LOGS, SECRET, CALLER = (
    "service", "revision", "project", "repository", "account", "pull", "push", "logs", "secret",
    "caller",
)  # fmt: skip
# The API of a permission, by how it begins; the more special beginning first.
_APIS = {
    "artifactregistry.": "artifactregistry.googleapis.com",
    "cloudbuild.": "cloudbuild.googleapis.com",
    "iam.serviceAccounts.getAccessToken": "iamcredentials.googleapis.com",
    "iam.serviceAccounts.getOpenIdToken": "iamcredentials.googleapis.com",
    "iam.": "iam.googleapis.com",
    "logging.": "logging.googleapis.com",
    "monitoring.": "monitoring.googleapis.com",
    "resourcemanager.": "cloudresourcemanager.googleapis.com",
    "run.": "run.googleapis.com",
    "secretmanager.": "secretmanager.googleapis.com",
    "serviceusage.": "serviceusage.googleapis.com",
}
_OF_KIND = {
    SERVICE: "run.",
    REPOSITORY: "artifactregistry.",
    ACCOUNT: "iam.",
    SECRET: "secretmanager.",
    PROJECT: "resourcemanager.",
}


class Call(NamedTuple):
    """A permission, on which kind of resource it is needed, and what the resource is called.

    `resource` may contain the names of the route's parts. Without a permission, every caller may.
    """

    permission: str
    kind: str
    resource: str = ""

    @property
    def api(self) -> str:
        """The API that is called, which has to be enabled; "" where it always is."""
        asked = self.permission or _OF_KIND.get(self.kind, "")
        return next((api for start, api in _APIS.items() if asked.startswith(start)), "")


_KNATIVE = "/apis/serving.knative.dev/v1/namespaces/{project}"
_LOCATION = "/v1/projects/{project}/locations/{region}"
_NAMESPACE = "namespaces/{project}"
_ACCOUNT = "/v1/projects/{project}/serviceAccounts/{email}"
_POOL = "/v1/projects/{project}/locations/global/workloadIdentityPools"
_REPOSITORY = "/v1/projects/{project}/locations/{location}/repositories/{repository}"
_OCI = "/v2/{name}"
_IN_PROJECT = "projects/{project}"

# Asked by nobody in particular: pages for people, what makes a token out of something else, keys,
# and the paths by which whoever runs the local Cloud Run sets it up.
OPEN = frozenset(
    {"/", "/logs/{project}/{region}/{name}", "/v1/token", "/oauth2/v3/certs", "/tokeninfo"}
)
LOCAL = "/_local/"


def _knative(base: str) -> dict[tuple[str, str], Call]:
    services = f"{_NAMESPACE}/services"
    service = f"{services}/{{name}}"
    revision = f"{_NAMESPACE}/revisions/{{name}}"
    found = {
        ("GET", f"{base}/services"): Call("run.services.list", PROJECT, services),
        # A service that is not there yet has no policy of its own: its project's decides.
        ("POST", f"{base}/services"): Call("run.services.create", PROJECT, services),
        ("GET", f"{base}/services/{{name}}"): Call("run.services.get", SERVICE, service),
        ("PUT", f"{base}/services/{{name}}"): Call("run.services.update", SERVICE, service),
        ("DELETE", f"{base}/services/{{name}}"): Call("run.services.delete", SERVICE, service),
        ("GET", f"{base}/revisions"): Call(
            "run.revisions.list", PROJECT, f"{_NAMESPACE}/revisions"
        ),
        ("GET", f"{base}/revisions/{{name}}"): Call("run.revisions.get", REVISION, revision),
        ("DELETE", f"{base}/revisions/{{name}}"): Call("run.revisions.delete", REVISION, revision),
    }
    for kind in ("configurations", "routes"):
        where = f"{_NAMESPACE}/{kind}"
        found["GET", f"{base}/{kind}"] = Call(f"run.{kind}.list", PROJECT, where)
        one = Call(f"run.{kind}.get", SERVICE, f"{where}/{{name}}")
        found["GET", f"{base}/{kind}/{{name}}"] = one
    return found


def _policies(base: str, prefix: str, kind: str, resource: str) -> dict[tuple[str, str], Call]:
    reads = Call(f"{prefix}.getIamPolicy", kind, resource)
    return {
        ("GET", f"{base}:getIamPolicy"): reads,
        ("POST", f"{base}:getIamPolicy"): reads,
        ("POST", f"{base}:setIamPolicy"): Call(f"{prefix}.setIamPolicy", kind, resource),
        # Asking what one may is allowed to everybody.
        ("POST", f"{base}:testIamPermissions"): Call("", kind, resource),
    }


def _secrets() -> dict[tuple[str, str], Call]:
    base = "/v1/projects/{project}/secrets"
    resource = "projects/{project}/secrets/{name}"
    version = f"{resource}/versions/{{version}}"
    one, versions = f"{base}/{{name}}", f"{base}/{{name}}/versions"

    def call(permission: str, named: str, kind: str = SECRET) -> Call:
        return Call(f"secretmanager.{permission}", kind, named)

    return {
        ("GET", base): call("secrets.list", _IN_PROJECT, PROJECT),
        ("POST", base): call("secrets.create", _IN_PROJECT, PROJECT),
        ("GET", one): call("secrets.get", resource),
        ("PATCH", one): call("secrets.update", resource),
        ("DELETE", one): call("secrets.delete", resource),
        ("POST", f"{one}:addVersion"): call("versions.add", resource),
        ("GET", versions): call("versions.list", resource),
        ("GET", f"{versions}/{{version}}"): call("versions.get", version),
        ("GET", f"{versions}/{{version}}:access"): call("versions.access", version),
        **{
            ("POST", f"{versions}/{{version}}:{verb}"): call(f"versions.{verb}", version)
            for verb in ("destroy", "disable", "enable")
        },
        **_policies(one, "secretmanager.secrets", SECRET, resource),
    }


def _artifacts() -> dict[tuple[str, str], Call]:
    pull = Call("artifactregistry.repositories.downloadArtifacts", PULL)
    push = Call("artifactregistry.repositories.uploadArtifacts", PUSH)
    delete = Call("artifactregistry.repositories.deleteArtifacts", PULL)
    upload = f"{_OCI}/blobs/uploads/{{upload}}"
    return {
        ("POST", f"{_OCI}/blobs/uploads/"): push,
        **{(method, upload): push for method in ("GET", "PATCH", "PUT", "DELETE")},
        ("GET", f"{_OCI}/blobs/{{digest}}"): pull,
        ("DELETE", f"{_OCI}/blobs/{{digest}}"): delete,
        ("GET", f"{_OCI}/manifests/{{reference}}"): pull,
        ("PUT", f"{_OCI}/manifests/{{reference}}"): push,
        ("DELETE", f"{_OCI}/manifests/{{reference}}"): delete,
        ("GET", f"{_OCI}/tags/list"): pull,
        ("GET", f"{_OCI}/referrers/{{digest}}"): pull,
    }


def _artifact_registry() -> dict[tuple[str, str], Call]:
    """Artifact Registry's own API, as far as it is served here."""
    named = _REPOSITORY.removeprefix("/v1/")
    package = f"{_REPOSITORY}/packages/{{package}}"

    def call(permission: str) -> Call:
        return Call(f"artifactregistry.{permission}", REPOSITORY, named)

    location = _REPOSITORY.rpartition("/repositories/")[0]
    of_project = {
        (method, f"{location}/repositories"): Call(
            f"artifactregistry.repositories.{verb}", PROJECT, location.removeprefix("/v1/")
        )
        for method, verb in (("GET", "list"), ("POST", "create"))
    }
    return {
        **of_project,
        ("GET", f"{location}/operations/{{operation}}"): Call("", CALLER),
        ("GET", _REPOSITORY): call("repositories.get"),
        ("PATCH", _REPOSITORY): call("repositories.update"),
        ("DELETE", _REPOSITORY): call("repositories.delete"),
        ("GET", f"{_REPOSITORY}/dockerImages"): call("dockerimages.list"),
        ("GET", f"{_REPOSITORY}/dockerImages/{{image}}"): call("dockerimages.get"),
        ("GET", f"{_REPOSITORY}/packages"): call("packages.list"),
        ("GET", package): call("packages.get"),
        ("DELETE", package): call("packages.delete"),
        ("GET", f"{package}/versions"): call("versions.list"),
        ("GET", f"{package}/versions/{{version}}"): call("versions.get"),
        ("DELETE", f"{package}/versions/{{version}}"): call("versions.delete"),
        ("GET", f"{package}/tags"): call("tags.list"),
        ("DELETE", f"{package}/tags/{{tag}}"): call("tags.delete"),
    }


def _federation() -> dict[tuple[str, str], Call]:
    """Workload identity pools and providers: every permission is asked for on the project."""
    found: dict[tuple[str, str], Call] = {}
    provider = f"{_POOL}/{{pool}}/providers"
    for base, one, named in (
        (_POOL, "{pool}", "iam.workloadIdentityPools"),
        (provider, "{provider}", "iam.workloadIdentityPoolProviders"),
    ):
        for method, path, verb in (
            ("GET", base, "list"),
            ("POST", base, "create"),
            ("GET", f"{base}/{one}", "get"),
            ("PATCH", f"{base}/{one}", "update"),
            ("DELETE", f"{base}/{one}", "delete"),
            ("POST", f"{base}/{one}:undelete", "undelete"),
            ("GET", f"{base}/{one}/operations/{{operation}}", "get"),
        ):
            found[method, path] = Call(f"{named}.{verb}", PROJECT, _IN_PROJECT)
    return found


def _accounts() -> dict[tuple[str, str], Call]:
    base = "/v1/projects/{project}/serviceAccounts"
    return {
        ("GET", base): Call("iam.serviceAccounts.list", PROJECT, _IN_PROJECT),
        ("POST", base): Call("iam.serviceAccounts.create", PROJECT, _IN_PROJECT),
        ("GET", _ACCOUNT): Call("iam.serviceAccounts.get", ACCOUNT),
        ("DELETE", _ACCOUNT): Call("iam.serviceAccounts.delete", ACCOUNT),
    }


def _service_usage() -> dict[tuple[str, str], Call]:
    base = "/v1/projects/{project}/services"

    def call(verb: str) -> Call:
        return Call(f"serviceusage.services.{verb}", PROJECT, _IN_PROJECT)

    return {
        ("GET", base): call("list"),
        ("GET", f"{base}/{{name}}"): call("get"),
        ("GET", f"{base}:batchGet"): call("get"),
        ("POST", f"{base}/{{name}}:enable"): call("enable"),
        ("POST", f"{base}/{{name}}:disable"): call("disable"),
        ("POST", f"{base}:batchEnable"): call("enable"),
        ("GET", "/v1/operations/{name}"): Call("", CALLER),
    }


def _triggers() -> dict[tuple[str, str], Call]:
    """Source: https://cloud.google.com/build/docs/iam-roles-permissions#permissions."""
    base = f"{_LOCATION}/triggers"
    place = _LOCATION.removeprefix("/v1/")

    def call(verb: str) -> Call:
        return Call(f"cloudbuild.builds.{verb}", PROJECT, place)

    return {
        ("GET", base): call("list"),
        ("POST", base): call("create"),
        ("GET", f"{base}/{{trigger}}"): call("get"),
        ("PATCH", f"{base}/{{trigger}}"): call("update"),
        ("DELETE", f"{base}/{{trigger}}"): call("update"),
    }


CALLS: dict[tuple[str, str], Call] = {
    **_knative(_KNATIVE),
    **_knative(_LOCATION),
    **_policies(
        f"{_LOCATION}/services/{{name}}", "run.services", SERVICE, f"{_NAMESPACE}/services/{{name}}"
    ),
    **_policies(
        _REPOSITORY,
        "artifactregistry.repositories",
        REPOSITORY,
        "projects/{project}/locations/{location}/repositories/{repository}",
    ),
    **_policies("/v1/projects/{project}", "resourcemanager.projects", PROJECT, _IN_PROJECT),
    **_policies("/v3/projects/{project}", "resourcemanager.projects", PROJECT, _IN_PROJECT),
    **_policies(_ACCOUNT, "iam.serviceAccounts", ACCOUNT, ""),
    **_artifacts(),
    **_artifact_registry(),
    **_secrets(),
    ("GET", f"{_LOCATION}/operations/{{name}}"): Call(
        "run.operations.get", PROJECT, "projects/{project}/locations/{region}/operations/{name}"
    ),
    ("POST", f"{_LOCATION}/operations/{{name}}:wait"): Call(
        "run.operations.get", PROJECT, "projects/{project}/locations/{region}/operations/{name}"
    ),
    ("POST", f"{_ACCOUNT}:generateAccessToken"): Call(
        "iam.serviceAccounts.getAccessToken", ACCOUNT
    ),
    ("POST", f"{_ACCOUNT}:generateIdToken"): Call("iam.serviceAccounts.getOpenIdToken", ACCOUNT),
    **_federation(),
    **_accounts(),
    **_service_usage(),
    **_triggers(),
    ("GET", "/v3/projects/{project}"): Call("resourcemanager.projects.get", PROJECT, _IN_PROJECT),
    ("GET", "/v1/projects/{project}"): Call("resourcemanager.projects.get", PROJECT, _IN_PROJECT),
    ("GET", "/v1/projects/{project}/locations"): Call("run.locations.list", PROJECT, _IN_PROJECT),
    ("POST", "/v2/entries:list"): Call("logging.logEntries.list", LOGS),
    ("GET", "/v3/projects/{project}/timeSeries"): Call(
        "monitoring.timeSeries.list", PROJECT, _IN_PROJECT
    ),
}
