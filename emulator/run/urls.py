"""Which requests belong to the Admin API, in both forms of its URLs."""

from __future__ import annotations

from aiohttp import web

from emulator.run import documents
from emulator.run.models import Admin
from emulator.run.responses import Responses

_KNATIVE = "/apis/serving.knative.dev/v1/namespaces/{project}"
_LOCATION = "/v1/projects/{project}/locations/{region}"
# A name ends where a custom verb, such as :getIamPolicy, begins.
_NAME = "{name:[^/:]+}"


def routes(admin: Admin) -> list[web.RouteDef]:
    """The Admin API's routes."""
    answer = Responses(admin)
    found: list[web.RouteDef] = []
    for base in (_KNATIVE, _LOCATION):
        found += [
            web.get(f"{base}/services", answer.list_services),
            web.post(f"{base}/services", answer.create_service),
            web.get(f"{base}/services/{_NAME}", answer.get_service),
            web.put(f"{base}/services/{_NAME}", answer.replace_service),
            web.delete(f"{base}/services/{_NAME}", answer.delete_service),
            web.get(f"{base}/revisions", answer.list_revisions),
            web.get(f"{base}/revisions/{_NAME}", answer.get_revision),
            web.delete(f"{base}/revisions/{_NAME}", answer.delete_revision),
        ]
        for plural, kind, view in (
            ("configurations", "Configuration", documents.configuration),
            ("routes", "Route", documents.route),
        ):
            found += [
                web.get(f"{base}/{plural}", answer.list_of(kind, view)),
                web.get(f"{base}/{plural}/{_NAME}", answer.one_of(view)),
            ]
    operation = f"{_LOCATION}/operations/{_NAME}"
    service = f"{_LOCATION}/services/{_NAME}"
    return [
        *found,
        web.get(operation, answer.get_operation),
        web.post(f"{operation}:wait", answer.wait_for_operation),
        web.get(f"{service}:getIamPolicy", answer.get_policy),
        web.post(f"{service}:setIamPolicy", answer.set_policy),
        web.post(f"{service}:testIamPermissions", answer.test_permissions),
    ]
