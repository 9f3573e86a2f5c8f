"""The Admin API's routes, in both forms of its URLs."""

from __future__ import annotations

from emulator.permissions import Asks, Checks, On
from emulator.routes import Route, policy_routes
from emulator.run import documents
from emulator.run.models import Admin
from emulator.run.responses import Responses

_KNATIVE = "/apis/serving.knative.dev/v1/namespaces/{project}"
_LOCATION = "/v1/projects/{project}/locations/{region}"
# A name ends where a custom verb, such as :getIamPolicy, begins.
_NAME = "{name:[^/:]+}"
# Names of resources, as refusals write them.
_SERVICES = "namespaces/{project}/services"
_SERVICE = f"{_SERVICES}/{{name}}"
_REVISIONS = "namespaces/{project}/revisions"
_REVISION = f"{_REVISIONS}/{{name}}"


def routes(admin: Admin) -> list[Route]:
    """Return the Admin API's routes."""
    answer = Responses(admin)
    found = [*_knative(answer, _KNATIVE), *_knative(answer, _LOCATION)]
    operation = f"{_LOCATION}/operations/{_NAME}"
    reads = Asks(
        "run.operations.get", On.PROJECT, "projects/{project}/locations/{region}/operations/{name}"
    )
    return [
        *found,
        Route("GET", operation, answer.get_operation, reads),
        Route("POST", f"{operation}:wait", answer.wait_for_operation, reads),
        *policy_routes(
            f"{_LOCATION}/services/{_NAME}",
            Asks("run.services", On.SERVICE, _SERVICE),
            (answer.get_policy, answer.set_policy, answer.test_permissions),
            read="GET",
        ),
    ]


def _knative(answer: Responses, base: str) -> list[Route]:
    services, revisions = f"{base}/services", f"{base}/revisions"
    service, revision = f"{services}/{_NAME}", f"{revisions}/{_NAME}"

    def on_services(verb: str, checks: Checks | None = None) -> Asks:
        return Asks(f"run.services.{verb}", On.PROJECT, _SERVICES, checks)

    def on_service(verb: str, checks: Checks | None = None) -> Asks:
        return Asks(f"run.services.{verb}", On.SERVICE, _SERVICE, checks)

    def on_revision(verb: str) -> Asks:
        return Asks(f"run.revisions.{verb}", On.REVISION, _REVISION)

    lists_revisions = Asks("run.revisions.list", On.PROJECT, _REVISIONS)
    # A service that does not exist yet has no policy of its own: its project's decides.
    creates = on_services("create", Checks.DEPLOYMENT)
    updates = on_service("update", Checks.DEPLOYMENT)
    found = [
        Route("GET", services, answer.list_services, on_services("list")),
        Route("POST", services, answer.create_service, creates),
        Route("GET", service, answer.get_service, on_service("get")),
        Route("PUT", service, answer.replace_service, updates),
        Route("DELETE", service, answer.delete_service, on_service("delete")),
        Route("GET", revisions, answer.list_revisions, lists_revisions),
        Route("GET", revision, answer.get_revision, on_revision("get")),
        Route("DELETE", revision, answer.delete_revision, on_revision("delete")),
    ]
    for plural, kind, view in (
        ("configurations", "Configuration", documents.configuration),
        ("routes", "Route", documents.route),
    ):
        where = f"namespaces/{{project}}/{plural}"
        lists = Asks(f"run.{plural}.list", On.PROJECT, where)
        gets = Asks(f"run.{plural}.get", On.SERVICE, f"{where}/{{name}}")
        found += [
            Route("GET", f"{base}/{plural}", answer.list_of(kind, view), lists),
            Route("GET", f"{base}/{plural}/{_NAME}", answer.one_of(view), gets),
        ]
    return found
