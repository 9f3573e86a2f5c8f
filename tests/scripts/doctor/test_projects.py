"""`ship doctor` on the projects: APIs, registry, image, secrets, policies of the organization."""

from __future__ import annotations

from emulator.names import project_number
from tests.emulator.registry_help import Client, labels_of
from tests.scripts.bootstrap_help import ADMIN, NAME, OPS, STAGING
from tests.scripts.doctor.doctor_help import BARE, BOOTSTRAP, REPOSITORY, Patient, fails


def test_a_bare_project(patient: Patient) -> None:
    """An API that is not enabled is reported once."""
    [found] = patient.wrong(env="bare")
    assert found["check"] == "apis"
    assert found["found"].startswith(f"not enabled in {BARE}: cloudresourcemanager.")
    assert found["fix"].startswith("gcloud services enable cloudresourcemanager.googleapis.com ")
    assert found["fix"].endswith(f" --project {BARE}")


def test_an_api_that_was_disabled(patient: Patient) -> None:
    run = f"projects/{STAGING}/services/run.googleapis.com"
    patient.api("POST", f"{run}:disable", {})
    found = patient.one_wrong("apis")
    assert found["found"] == f"not enabled in {STAGING}: run.googleapis.com"
    # A deployer may not list APIs: the call itself fails.
    as_deployer = patient.wrong(credentials=patient.speak_as("DEPLOYER"))
    assert {one["known"] for one in as_deployer} == {"api-disabled"}
    fixes = {one["fix"] for one in as_deployer}
    # Nor may it read the project's ID, so the fix has the number from Google's error.
    number = project_number(STAGING)
    assert fixes == {f"gcloud services enable run.googleapis.com --project {number}"}
    patient.api("POST", f"{run}:enable", {})
    assert patient.wrong() == []


def test_quota(patient: Patient) -> None:
    with patient.fault("quota-exceeded", service="artifactregistry.googleapis.com"):
        found = patient.wrong()
    assert {one["known"] for one in found} == {"quota"}
    assert {"registry", "roles"} <= {one["check"] for one in found}
    assert found[0]["found"].startswith("the quota of artifactregistry.googleapis.com")
    assert found[0]["fix"].startswith("wait a minute")


def test_the_registrys_token_exchange(patient: Patient) -> None:
    with patient.fault("token-exchange"):
        found = patient.one_wrong("image")
    assert found["known"] == "token-exchange"
    assert f"the registry of {OPS} does not accept these credentials: {ADMIN}" in found["found"]


def test_an_image_for_another_platform(patient: Patient) -> None:
    before = patient.project.git("rev-parse", "HEAD")
    sha = patient.project.commit()
    client = Client(patient.url, f"{OPS}/services/{NAME}")
    client.session.headers.update(patient.http.headers)
    client.image(sha, "linux/s390x", labels_of(sha, patient.project.time(sha)))
    found = patient.one_wrong("image")
    patient.project.git("reset", "--hard", "--quiet", before)
    assert found["known"] == "wrong-platform"
    assert "is for linux/s390x, not for linux/" in found["found"]


def test_session_affinity_beside_a_watch(patient: Patient) -> None:
    def watch(text: str) -> str:
        return text.replace("rollout:\n", "rollout:\n  bake: 10m\n  watch: {}\n").replace(
            "    template:\n",
            "    template:\n      metadata:\n        annotations:"
            ' {run.googleapis.com/sessionAffinity: "true"}\n',
        )

    with patient.file("staging.yaml", watch):
        _, findings = patient.doctor()
    [found] = [one for one in findings if one["check"] == "watch"]
    assert found["state"] == "warning"
    assert "sessionAffinity sends a user to the same revision" in found["found"]
    assert found["fix"].startswith("pipelines/svc/staging.yaml:")


def with_secret(text: str) -> str:
    return text.replace(
        "        - image: app\n",
        "        - image: app\n          env:\n            - name: KEY\n              valueFrom:\n"
        "                secretKeyRef: {name: key, key: latest}\n",
    )


def test_secrets(patient: Patient) -> None:
    with patient.file("service.yaml", with_secret):
        missing = {one["check"]: one for one in patient.wrong()}
        assert "secretmanager.googleapis.com" in missing["apis"]["found"]
        patient.set_up("staging")
        empty = patient.one_wrong("secrets")
        assert (empty["found"], empty["known"]) == ("key has no value", "secret-missing")
        assert empty["fix"].startswith(f"gcloud secrets versions add key --project={STAGING}")
        value = {"payload": {"data": "c2VjcmV0"}}
        patient.api("POST", f"projects/{STAGING}/secrets/key:addVersion", value)
        assert patient.wrong() == []
        one = f"projects/{STAGING}/secrets/key/versions/1"
        patient.api("POST", f"{one}:disable", {})
        assert patient.one_wrong("secrets")["found"] == "the newest value of key is disabled"
        patient.api("DELETE", f"projects/{STAGING}/secrets/key")
        gone = {one["check"]: one for one in patient.wrong()}
        assert gone["secrets"]["found"] == f"the secret key does not exist in {STAGING}"
        assert gone["secrets"]["fix"] == BOOTSTRAP
    assert patient.wrong() == []


def test_receivers_of_messages(patient: Patient) -> None:
    def notify(text: str) -> str:
        return (
            f"{text}notify:\n- to: slack\n  url: projects/{STAGING}/secrets/chat\n"
            "- to: google-chat\n  url: $CHAT_URL\n"
        )

    with patient.file("staging.yaml", notify):
        patient.set_up("staging")
        patient.api("DELETE", f"projects/{STAGING}/secrets/chat")
        missing = patient.wrong()
        assert f"the secret chat does not exist in {STAGING}" in [one["found"] for one in missing]
        patient.set_up("staging")
        assert patient.one_wrong("notify")["found"] == "chat has no value"
        value = {"payload": {"data": "eA=="}}
        patient.api("POST", f"projects/{STAGING}/secrets/chat:addVersion", value)
        _, findings = patient.doctor(CHAT_URL="")
        states = [(one["found"], one["state"]) for one in findings if one["check"] == "notify"]
        assert states == [
            ("chat has a value", "ok"),
            ("google-chat: $CHAT_URL is not set here; the job that delivers needs it", "skipped"),
        ]
        deployer = patient.speak_as("DEPLOYER")
        role = "roles/secretmanager.secretAccessor"
        with patient.without_role(f"projects/{STAGING}/secrets/chat", role):
            found = patient.wrong(credentials=deployer)
        assert any("secretmanager.versions.access" in one["found"] for one in found), found


def test_a_policy_of_the_organization(patient: Patient) -> None:
    public = patient.file("staging.yaml", lambda text: text.replace("private", "public"))
    with patient.fault("org-policy-invoker"), public:
        found = patient.one_wrong("access")
    assert found["known"] == "org-policy-invoker"
    assert "your organization's policy run.managed.requireInvokerIam" in found["found"]
    assert found["fix"].startswith(f"set access: private in pipelines/{NAME}/staging.yaml")


def test_no_repository(patient: Patient) -> None:
    patient.api("DELETE", REPOSITORY)
    found = {one["check"]: one for one in patient.wrong()}
    assert found["registry"]["found"].startswith("the repository us-central1-docker")
    assert found["registry"]["fix"] == BOOTSTRAP
    said = fails(patient, "build", "PUSHER", code=2)
    assert "denied" in said
    patient.bootstrap_fixes_it()
