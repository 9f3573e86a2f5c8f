"""The Admin API's reads in both URL forms, policies, and gcloud's other requests."""

from __future__ import annotations

import pytest

from tests.emulator.cloud_run_help import service


@pytest.fixture
def client(connect, local_cloud_run, request):
    """Return a client in its own project."""
    return connect(local_cloud_run.url, f"p-{abs(hash(request.node.name))}")


def test_both_url_forms_return_the_same_service(client):
    client.ready(service("both", client.push(), "both-a"))
    knative = f"{client.url}/apis/serving.knative.dev/v1/namespaces/{client.project}"
    one = client.http.get(f"{knative}/services/both")
    assert one.json() == client.get("both")
    assert client.http.get(f"{knative}/revisions/both-a").json() == client.revision("both-a")
    everywhere = f"{client.url}/v1/projects/{client.project}/locations/-/services"
    lists = [client.http.get(url).json() for url in (f"{knative}/services", everywhere)]
    assert lists[0] == lists[1]
    assert lists[0]["kind"] == "ServiceList"
    assert lists[0]["items"] == [client.get("both")]


def test_the_region_comes_from_the_host_or_from_the_projects_services(client):
    knative = f"{client.url}/apis/serving.knative.dev/v1/namespaces/{client.project}/services"
    document = service("placed", client.push())
    host = {"Host": "europe-west1-run.googleapis.com"}
    made = client.http.post(knative, json=document, headers=host)
    assert made.json()["metadata"]["labels"]["cloud.googleapis.com/location"] == "europe-west1"
    assert client.http.get(f"{knative}/placed").status_code == 200
    elsewhere = {"Host": "us-central1-localhost:1234"}
    assert client.http.get(f"{knative}/placed", headers=elsewhere).status_code == 404
    assert client.http.get(f"{client.base}/services/placed").status_code == 404
    assert (
        client.http.get(client.base.replace("us-central1", "mars") + "/services").status_code == 404
    )


def test_a_project_can_be_named_by_its_number(client):
    ready = client.ready(service("numbered", client.push()))
    number = ready["metadata"]["namespace"]
    assert number.isdigit()
    url = f"{client.url}/apis/serving.knative.dev/v1/namespaces/{number}/services/numbered"
    assert client.http.get(url).json() == ready
    assert client.http.put(url, json=ready).status_code == 200


def test_lists_of_revisions_have_pages_and_selectors(client):
    image = client.push()
    for number in range(5):
        client.ready(service("paged", image, f"paged-{number}", NUMBER=str(number)))
    client.ready(service("other", image, "other-0"))
    url = f"{client.base}/revisions"
    selector = "serving.knative.dev/service=paged"
    names, token = [], ""
    for _ in range(3):
        params = {"labelSelector": selector, "limit": "2", "continue": token}
        page = client.http.get(url, params=params).json()
        names.append([item["metadata"]["name"] for item in page["items"]])
        token = page["metadata"].get("continue", "")
    assert names == [["paged-4", "paged-3"], ["paged-2", "paged-1"], ["paged-0"]]
    assert token == ""

    def selected(text: str) -> int:
        return len(client.http.get(url, params={"labelSelector": text}).json()["items"])

    assert selected("") == 6
    assert selected("serving.knative.dev/service in (paged, other)") == 6
    assert selected("serving.knative.dev/service!=paged") == 1
    assert selected("serving.knative.dev/configurationGeneration=1") == 2
    assert selected("serving.knative.dev/service,!nothing") == 6
    assert selected("nothing") == 0
    assert client.http.get(url, params={"labelSelector": "a b"}).status_code == 400
    assert client.http.get(url, params={"limit": "x"}).status_code == 400


def test_configurations_and_routes_show_parts_of_the_service(client):
    ready = client.ready(service("halved", client.push(), "halved-a"))
    configuration = client.http.get(f"{client.base}/configurations/halved").json()
    route = client.http.get(f"{client.base}/routes/halved").json()
    assert configuration["spec"] == {"template": ready["spec"]["template"]}
    assert configuration["status"]["latestReadyRevisionName"] == "halved-a"
    assert route["status"]["traffic"] == ready["status"]["traffic"]
    kinds = [
        client.http.get(f"{client.base}/{plural}").json()["kind"]
        for plural in ("configurations", "routes")
    ]
    assert kinds == ["ConfigurationList", "RouteList"]
    assert client.http.put(f"{client.base}/routes/halved", json=route).status_code == 405


def test_a_policy_is_stored_and_its_etag_is_checked(client):
    client.ready(service("policed", client.push()))
    url = f"{client.base}/services/policed"
    empty = client.http.get(f"{url}:getIamPolicy").json()
    assert "bindings" not in empty
    bindings = [{"role": "roles/run.invoker", "members": ["allUsers"]}]
    policy = {"policy": {"bindings": bindings, "etag": empty["etag"]}}
    stored = client.http.post(f"{url}:setIamPolicy", json=policy).json()
    assert stored["bindings"] == bindings
    assert client.http.get(f"{url}:getIamPolicy").json() == stored
    stale = client.http.post(f"{url}:setIamPolicy", json=policy)
    assert (stale.status_code, stale.json()["error"]["status"]) == (409, "ABORTED")
    asked = {"permissions": ["run.services.get"]}
    assert client.http.post(f"{url}:testIamPermissions", json=asked).json() == asked
    assert client.http.get(f"{client.base}/services/missing:getIamPolicy").status_code == 404
    bad = client.http.post(f"{url}:setIamPolicy", json={"policy": {"bindings": [{}]}})
    assert bad.status_code == 400


def test_errors_have_googles_shape(client):
    missing = client.http.get(f"{client.base}/services/missing")
    assert missing.status_code == 404
    assert missing.json()["error"]["status"] == "NOT_FOUND"
    json = {"Content-Type": "application/json"}
    broken = client.http.post(f"{client.base}/services", data=b"{", headers=json)
    assert broken.json()["error"]["status"] == "INVALID_ARGUMENT"
    unknown = client.http.get(f"{client.base}/services", params={"filter": "x"})
    assert unknown.status_code == 400
    nowhere = client.http.get(f"{client.url}/v1/nothing")
    assert nowhere.json()["error"]["code"] == 404


def test_gclouds_requests_before_a_deployment_are_answered(client):
    project = client.http.get(f"{client.url}/v1/projects/acme").json()
    assert project["projectId"] == "acme"
    enabled = client.http.get(f"{client.url}/v1/projects/acme/services/run.googleapis.com").json()
    assert enabled["state"] == "ENABLED"


def test_the_start_page_names_the_services_and_their_urls(client):
    ready = client.ready(service("shown", client.push()))
    page = client.http.get(client.url).text
    assert f"{client.project}/us-central1/shown  {ready['status']['url']}  Ready: True" in page
