"""Only what this repository's pipeline built from the commit is deployed.

A test authority signs as GitHub and Sigstore do; Sigstore's own library verifies.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from scripts.cloud.patience import Patience
from scripts.cloud.referrers import BUNDLE, Referrers
from scripts.cloud.session import Session
from scripts.command import verbs
from scripts.config import pipelines
from scripts.config.image_reference import ImageReference
from scripts.doctor import access
from scripts.doctor.case import Case, Named
from scripts.errors import Failed, UsageError
from scripts.image import provenance
from scripts.image.provenance import Source
from tests.authority import Authority
from tests.conftest import LocalCloudRun
from tests.github_rest import REPO, GitHub, needs_gh
from tests.scripts.conftest import Project
from tests.scripts.test_images import Pushed
from tests.scripts.test_init import Fork

DIGEST = "sha256:" + "ab" * 32
NAME = "us-central1-docker.pkg.dev/acme-ops/services/shop"
IMAGE = ImageReference.parse(f"{NAME}@{DIGEST}")
COMMIT = "c" * 40
BY_NAME = Source(name="acme/shop")
BY_NUMBER = Source(name="new-name/shop", repository_id="2002", owner_id="1001")
AUTHORITY = Authority()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of the authority's trusted root."""
    file = tmp_path_factory.mktemp("trust") / "trusted_root.json"
    file.write_text(json.dumps(AUTHORITY.trusted_root()))
    return file


def verify(root: Path, bundle: Any, source: Source = BY_NAME) -> provenance.Signed:
    verifier = provenance.trusted(root, Path("/nowhere"))
    return provenance.verify(json.dumps(bundle).encode(), verifier, IMAGE, COMMIT, source)


@pytest.mark.parametrize("source", [BY_NAME, BY_NUMBER, Source(name="ACME/Shop")])
def test_the_pipelines_own_provenance(root: Path, source: Source) -> None:
    signed = verify(root, AUTHORITY.bundle({NAME: DIGEST}, COMMIT), source)
    assert signed.line == (
        "signed by https://github.com/acme/shop/.github/workflows/build.yml@refs/heads/main"
        " for commit ccccccc of https://github.com/acme/shop"
    )
    assert signed.run == "https://github.com/acme/shop/actions/runs/1/attempts/1"


EVIL = "https://github.com/evil/shop"


@pytest.mark.parametrize(
    ("claims", "source", "why"),
    [
        ({"commit": "d" * 40}, BY_NAME, f"the commit is {'d' * 40}, not {COMMIT}"),
        ({"issuer": "https://evil.example"}, BY_NAME, "the issuer is https://evil.example"),
        ({"runner": "self-hosted"}, BY_NAME, "the runner is self-hosted, not github-hosted"),
        ({"ref": "refs/heads/mine"}, BY_NAME, "the branch is refs/heads/mine"),
        ({"signer": f"{EVIL}/.github/workflows/build.yml@refs/heads/main"}, BY_NAME, "the signer"),
        (
            {"signer": "https://github.com/acme/shop/.github/workflows/ci.yml@refs/heads/main"},
            BY_NUMBER,
            "the signer is https://github.com/acme/shop/.github/workflows/ci.yml@refs/heads/main",
        ),
        ({"repository": EVIL}, BY_NAME, f"the repository is {EVIL}"),
        ({"repository_id": "666"}, BY_NUMBER, "the repository's number is 666, not 2002"),
        ({"owner_id": "666"}, BY_NUMBER, "the owner's number is 666, not 1001"),
        ({"predicate": "https://spdx.dev/Document"}, BY_NAME, "it is a https://spdx.dev/Document"),
    ],
)
def test_provenance_of_another_build(
    root: Path, claims: dict[str, str], source: Source, why: str
) -> None:
    with pytest.raises(Failed) as caught:
        verify(root, AUTHORITY.bundle({NAME: DIGEST}, COMMIT, **claims), source)
    assert why in caught.value.message


def test_provenance_of_another_image(root: Path) -> None:
    other = "sha256:" + "00" * 32
    for name, digest in ((NAME, other), (f"{NAME}-2", DIGEST), (f"{NAME}/proxy", DIGEST)):
        with pytest.raises(Failed, match=f"it is about {name}@{digest}, not about {IMAGE}"):
            verify(root, AUTHORITY.bundle({name: digest}, COMMIT))


def test_one_signature_for_several_images(root: Path) -> None:
    """Each of them counts under its own name only; a copy of the registry has the same names."""
    other = "sha256:" + "00" * 32
    mirror = "europe-west1-docker.pkg.dev/acme-copy/mirror/shop"
    both = AUTHORITY.bundle({f"{NAME}-2": other, NAME: DIGEST}, COMMIT)
    assert verify(root, both).repository == "https://github.com/acme/shop"
    assert verify(root, AUTHORITY.bundle({mirror: DIGEST, f"{mirror}-2": other}, COMMIT))
    with pytest.raises(Failed, match="not about"):
        verify(root, AUTHORITY.bundle({f"{NAME}-2": DIGEST, NAME: other}, COMMIT))


def forged() -> dict[str, Any]:
    """Return bundles that prove nothing: name -> bundle."""
    good = json.dumps(AUTHORITY.bundle({NAME: DIGEST}, COMMIT))

    def changed(*path: Any, to: Any) -> Any:
        bundle = place = json.loads(good)
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to
        return bundle

    material, entry = "verificationMaterial", ("verificationMaterial", "tlogEntries", 0)
    other = AUTHORITY.bundle({NAME: DIGEST}, COMMIT)
    return {
        "another authority": Authority("two").bundle({NAME: DIGEST}, COMMIT),
        "another payload": changed("dsseEnvelope", "payload", to="e30="),
        "another certificate": changed(material, "certificate", to=other[material]["certificate"]),
        "no log entry, as private repositories have it": changed(material, "tlogEntries", to=[]),
        "another time": changed(*entry, "integratedTime", to="1"),
        "no proof": changed(*entry, "inclusionProof", to=None),
        "not a bundle": [],
        "empty": {},
    }


@pytest.mark.parametrize("name", forged())
def test_forged_provenance(root: Path, name: str) -> None:
    with pytest.raises(Failed, match="the signature is not valid: "):
        verify(root, forged()[name])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"mediaType": 1}', "[" * 5000])
def test_a_trust_file_that_is_none(tmp_path: Path, text: str) -> None:
    (file := tmp_path / "trust.json").write_text(text)
    with pytest.raises(UsageError, match=r"trust: trust\.json is not a trusted root"):
        provenance.trusted(file, tmp_path)


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One clear error, and nothing is written outside the cache."""
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(Failed) as caught:
        provenance.trusted(None, tmp_path / "cache")
    assert caught.value.message.startswith("cannot read from https://tuf-repo-cdn.sigstore.dev")
    assert not (tmp_path / "home").exists()


def test_who_is_asked_for_provenance() -> None:
    """Production at Google is, unless its file says otherwise; an endpoint stands in for Google."""
    files = pipelines.load(Path(__file__).parent.parent, None, "production")

    def asked(env: str, **changes: Any) -> bool:
        environment = msgspec.structs.replace(files.environment, **changes)
        return msgspec.structs.replace(files, env=env, environment=environment).verifies_provenance

    assert asked("production", endpoint=None)
    assert not asked("production", endpoint=None, verify="none")
    assert not asked("production", endpoint=None, registry="registry.example/acme/services")
    assert not asked("production", endpoint="http://127.0.0.1:8787")
    assert not asked("staging", endpoint=None)
    assert asked("staging", endpoint=None, verify="provenance")


def test_when_the_packages_are_installed() -> None:
    """A rollback does not wait for packages that only a deploy needs."""
    assert verbs.lock_files(["rollback", "--env", "production"])[0] == "deliver"
    assert verbs.lock_files(["deploy", "--env", "production"]) == ("verify", "dev")
    assert verbs.lock_files(["deploy", "--env=production"]) == ("verify", "dev")
    assert verbs.lock_files(["help", "deploy"])[0] == "verify"
    assert verbs.lock_files(["deliver", "--env", "local"])[0] == "deliver"
    assert verbs.lock_files(["deliver", "--env", "local-2"])[0] == "verify"
    assert verbs.lock_files(["deliver"]) == ("deliver", "verify", "local", "dev")


def test_an_unlabelled_image_under_the_commits_tag(pushed: Pushed) -> None:
    """The attack: someone who may push puts an image of theirs under a commit's tag."""
    project = pushed.project
    theirs = pushed.with_config(pushed.commit.sha, config={"Cmd": ["true"], "Labels": {}})
    refused = project.ship("deploy")
    assert refused.returncode == 3
    label = "it has no label org.opencontainers.image.revision, which ./ship build writes"
    assert label in refused.stderr
    delivered = project.ship("deliver", "--format", "json")
    assert delivered.returncode == 0, delivered.stderr
    assert "does not count: it has no label" in delivered.stderr
    answer = json.loads(delivered.stdout)
    assert answer["digest"] == pushed.digest != theirs


@pytest.fixture
def pushed(project: Project) -> Pushed:
    return Pushed(project)


def test_an_image_of_another_time(pushed: Pushed) -> None:
    labels = {"org.opencontainers.image.revision": pushed.commit.sha}
    pushed.with_config(pushed.commit.sha, config={"Labels": labels})
    error = pushed.refused()
    assert "it has no label org.opencontainers.image.created" in error.message


class Guarded(Pushed):
    """A project whose environment asks for provenance, in a repository at GitHub."""

    def __init__(self, folder: Path, cloud_run: LocalCloudRun, root: Path) -> None:
        project = Project(folder, cloud_run, f"svc-{uuid.uuid4().hex[:8]}")
        (folder / "trusted_root.json").write_text(root.read_text())
        file = project.pipeline / "local.yaml"
        file.write_text(f"{file.read_text()}verify: provenance\ntrust: trusted_root.json\n")
        project.git("remote", "add", "origin", "git@github.com:acme/shop.git")
        project.commit()
        super().__init__(project)

    def bundle(self, digest: str | None = None, **claims: str) -> Path:
        file = self.project.folder.parent / "bundle.json"
        name = str(self.images.repository)
        signed = AUTHORITY.bundle({name: digest or self.digest}, self.commit.sha, **claims)
        file.write_text(json.dumps(signed))
        return file

    def attach(self, file: Path, *more: str) -> Any:
        return self.project.ship("attach", "--bundle", str(file), *more)


@pytest.fixture
def guarded(tmp_path: Path, local_cloud_run: LocalCloudRun, root: Path) -> Guarded:
    return Guarded(tmp_path / "repository", local_cloud_run, root)


def test_only_a_signed_image_is_deployed(guarded: Guarded) -> None:
    """Refused in a dry run, too; and a signature for another commit counts for nothing."""
    project = guarded.project
    for words in (["deploy"], ["deploy", "--dry-run"], ["deliver"]):
        refused = project.ship(*words)
        assert refused.returncode == 3, (words, refused.stderr)
        assert "no signed provenance is attached to the image" in refused.stderr
        assert "verify: none in pipelines/" in refused.stderr
    assert project.service().get("kind") != "Service", "nothing was deployed"

    assert guarded.attach(guarded.bundle(commit="d" * 40)).returncode == 0
    refused = project.ship("deploy")
    assert f"the commit is {'d' * 40}, not {guarded.commit.sha}" in refused.stderr

    good = guarded.bundle()
    assert "would be attached" in guarded.attach(good, "--dry-run").stdout
    for said in ("attached", "was attached before"):
        assert said in guarded.attach(good).stdout
    deployed = project.done("deploy")
    assert deployed["provenance"]["repository"] == "https://github.com/acme/shop"
    assert deployed["provenance"]["commit"] == guarded.commit.sha


def test_a_rollback_needs_no_provenance(guarded: Guarded) -> None:
    """Nor a promotion: both deploy nothing. At 3 a.m. no signature is in the way (I5)."""
    project = guarded.project
    guarded.attach(guarded.bundle())
    first = project.done("deliver")["revision"]
    project.commit()
    later = Guarded.__new__(Guarded)
    Pushed.__init__(later, project)
    later.attach(later.bundle())
    second = project.done("deploy")["revision"]
    (project.folder / "trusted_root.json").unlink()
    (project.folder / ".git/config").write_text("")  # no origin, either
    project.done("promote", "--to", "100")
    assert project.shares() == {second: 100}
    project.done("rollback")
    assert project.shares() == {first: 100}


def test_a_bundle_about_another_image_is_not_attached(guarded: Guarded) -> None:
    """Nor one of which one image is another's, to any."""
    ours = str(guarded.images.repository)
    (file := guarded.project.folder.parent / "text").write_text(
        json.dumps(AUTHORITY.bundle({ours: guarded.digest, f"{ours}-2": DIGEST}, COMMIT))
    )
    refused = guarded.attach(file)
    assert refused.returncode == 2
    assert f"it is about {ours}-2@{DIGEST}, which is not an image of" in refused.stderr
    assert [*guarded.images.bundles(guarded.images.repository.by_digest(guarded.digest))] == []
    file.write_text("text")
    refused = guarded.attach(file)
    assert refused.returncode == 2
    assert "not a Sigstore bundle" in refused.stderr


def test_a_run_that_died_before_its_signature(guarded: Guarded) -> None:
    """The job that signs builds again; once signed, it does not. Elsewhere nothing is signed."""
    job = {
        "GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "acme/shop",
        "GITHUB_REPOSITORY_ID": "2002", "GITHUB_REPOSITORY_OWNER_ID": "1001",
    }  # fmt: skip
    again = guarded.project.done("build", **job)
    assert again["built"]
    assert guarded.project.done("build")["built"] is False
    assert guarded.attach(guarded.bundle(again["digest"])).returncode == 0
    assert guarded.project.done("build", **job)["built"] is False


def test_an_immutable_tag_that_does_not_count(guarded: Guarded) -> None:
    """The error says how to free the tag, since the registry deletes none."""
    found = guarded.images.find(guarded.commit)
    kept = guarded.images._kept_out(guarded.commit, found, Failed("tag immutability"))
    assert "does not count, and cannot be replaced: tag immutability" in kept.message
    assert (kept.hint or "").startswith("make a new commit, or delete ")


@needs_gh
@pytest.mark.parametrize(
    ("private", "by_cloud_build", "problem"),
    [
        (False, False, ""),
        (True, False, f"{REPO} is private, and GitHub signs nothing for it"),
        (False, True, "Cloud Build does not sign"),
    ],
)
def test_the_doctor_says_what_cannot_be_signed(
    tmp_path: Path, github_com: GitHub, private: bool, by_cloud_build: bool, problem: str
) -> None:
    github_com.private = private
    for words in (["init", "--quiet"], ["remote", "add", "origin", f"git@github.com:{REPO}.git"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    files = pipelines.load(Path(__file__).parent.parent, None, "production")
    environment = msgspec.structs.replace(files.environment, endpoint=None, credentials="none")
    named = Named(REPO, 42, 4711)
    case = Case(
        tmp_path,
        msgspec.structs.replace(files, environment=environment),
        named,
        by_cloud_build=by_cloud_build,
    )
    (finding,) = access.provenance(case)
    assert finding.state == ("wrong" if problem else "ok")
    assert problem in finding.found
    assert finding.fix == ("verify: none in pipelines/app/production.yaml" if problem else "")


@needs_gh
def test_init_writes_what_a_private_repository_needs(tmp_path: Path, github_com: GitHub) -> None:
    github_com.private = True
    fork = Fork(tmp_path / "fork")
    words = ["--repository", REPO, "--project", "production=shop-prod", "--yes"]
    words += ["--project", "staging=shop-stage", "--registry", "us-docker.pkg.dev/shop-ops/images"]
    fork.done("init", "shop", *words, **github_com.env())
    environment = pipelines.load(fork.folder, "shop", "production").environment
    assert environment.verify == "none"
    assert pipelines.load(fork.folder, "shop", "staging").environment.verify is None


class NoReferrers(Referrers):
    """A registry as its client sees it without the referrers API."""

    def _send(self, method: str, path: str, **options: Any) -> requests.Response:
        if "/referrers/" in path:
            path = f"{path.partition('/referrers/')[0]}/manifests/none"
        answer = super()._send(method, path, **options)
        answer.headers.pop("OCI-Subject", None)
        return answer


def test_a_registry_without_the_referrers_api(pushed: Pushed) -> None:
    """The specification's fallback: an index under a tag made of the image's digest."""
    registry = NoReferrers(pushed.project.cloud_run.url, Session(Patience()))
    path = pushed.images.repository.path
    for contents, new in ((b"one", True), (b"two", True), (b"one", False)):
        assert registry.attach(path, pushed.digest, contents, "x") is new
    assert [*registry.bundles(path, pushed.digest)] == [b"one", b"two"]
    assert [*pushed.images.bundles(pushed.images.repository.by_digest(pushed.digest))]


def test_a_bundle_that_is_too_large_is_passed_over(pushed: Pushed) -> None:
    """Anyone who may push can attach one: it must not keep the right one from being found."""
    registry = Referrers(pushed.project.cloud_run.url, Session(Patience()))
    path = pushed.images.repository.path
    for contents in (b"x" * ((1 << 20) + 1), b"small"):
        assert registry.attach(path, pushed.digest, contents, "x")
    assert [*registry.bundles(path, pushed.digest)] == [b"small"]


def test_skopeo_reads_what_was_attached(guarded: Guarded) -> None:
    """The artifact is one that another client takes."""
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    guarded.attach(guarded.bundle())
    listed = requests.get(f"{guarded.url}/referrers/{guarded.digest}").json()["manifests"]
    name = guarded.images.repository.by_digest(listed[0]["digest"])
    words = ["skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{name}"]
    read = json.loads(subprocess.check_output(words, text=True))
    assert read["artifactType"] == BUNDLE
    assert read["subject"]["digest"] == guarded.digest
