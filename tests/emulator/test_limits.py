"""Cloud Run's limits: old revisions and tags are deleted."""

from __future__ import annotations

from emulator.names import Key
from emulator.run import limits
from tests.emulator.cloud_run_help import condition, service
from tests.history import write_history

SERVICE = Key("p", "r", "s")


def revision(name: str, made: str = "") -> tuple[Key, dict]:
    return SERVICE.sibling(name), {"metadata": {"creationTimestamp": made}}


def document(*targets: dict, created: str = "e", ready: str = "e") -> dict:
    status = {"latestCreatedRevisionName": created, "latestReadyRevisionName": ready}
    return {"spec": {"traffic": list(targets)}, "status": status}


def test_the_oldest_unused_revisions_are_surplus():
    revisions = [revision(name) for name in "abcde"]
    plan = [{"revisionName": "a", "percent": 100}, {"revisionName": "c", "tag": "t"}]

    def surplus(limit: int) -> list[str]:
        found = limits.surplus_revisions(document(*plan), revisions, limit)
        return [key.name for key in found]

    assert surplus(5) == []
    assert surplus(4) == ["b"]
    assert surplus(3) == ["b", "d"]
    assert surplus(1) == ["b", "d"]


def test_tags_without_traffic_are_dropped_from_the_oldest_revisions_first():
    other = SERVICE.sibling("o")
    services = [
        (SERVICE, document(
            {"revisionName": "a", "percent": 100, "tag": "live"},
            {"revisionName": "b", "tag": "old"},
            {"latestRevision": True, "tag": "latest"},
        )),
        (other, document({"revisionName": "o-a", "tag": "older"})),
    ]  # fmt: skip
    made = {
        SERVICE.sibling("a"): "2026-01-01",
        SERVICE.sibling("b"): "2026-01-03",
        SERVICE.sibling("o-a"): "2026-01-02",
    }
    assert limits.surplus_tags(services, made, 4) == []
    assert limits.surplus_tags(services, made, 3) == [(other, "older")]
    assert limits.surplus_tags(services, made, 2) == [(other, "older"), (SERVICE, "old")]
    assert limits.surplus_tags(services, made, 0)[2:] == [(SERVICE, "latest")]
    left = limits.without_tags(services[0][1]["spec"]["traffic"], {"old"})
    assert [target["tag"] for target in left] == ["live", "latest"]


def test_a_service_keeps_at_most_a_thousand_revisions(fresh_cloud_run, connect):
    client = connect(fresh_cloud_run.url)
    image = client.push()
    client.ready(service("long", image, "long-first"))
    client.ready(service("long", image, "long-second", A="1"))
    client.shift(
        "long",
        [
            {"revisionName": "long-second", "percent": 100},
            {"revisionName": "long-first", "tag": "kept"},
        ],
    )
    fresh_cloud_run.stop()
    made = write_history(fresh_cloud_run.state, "long", 998)
    fresh_cloud_run.start()
    client = connect(fresh_cloud_run.url)

    def names() -> set[str]:
        params = {"labelSelector": "serving.knative.dev/service=long"}
        items = client.http.get(f"{client.base}/revisions", params=params).json()["items"]
        return {item["metadata"]["name"] for item in items}

    assert names() == {"long-first", "long-second", *made}
    third = service("long", image, "long-third", A="2")
    third["spec"]["traffic"] = client.get("long")["spec"]["traffic"]
    client.ready(third)
    assert names() == {"long-first", "long-second", "long-third", *made[1:]}
    assert client.http.get(f"{client.base}/revisions/{made[0]}").status_code == 404
    assert condition(client.get("long"))["status"] == "True"
