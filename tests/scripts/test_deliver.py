"""`deliver`, and the verbs that it consists of, through the command line."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from scripts.demo.load import Load, failed
from scripts.machine.platform import host_platform
from tests.scripts.conftest import Project


def test_a_first_release_serves(project: Project) -> None:
    """I1, I2, I4: named revision, image by digest, checked, serving."""
    commit = project.git("rev-parse", "HEAD")
    done = project.done("deliver")
    service = project.service()
    revision = project.revision(commit)
    assert done["revision"] == revision
    region = done["regions"][0]
    assert (region["before"], region["after"]) == ({}, {revision: 100})
    assert project.shares() == {revision: 100}
    assert project.answers()["commit"] == commit
    assert service["spec"]["traffic"] == [
        {"revisionName": revision, "percent": 100},
        {"revisionName": revision, "tag": f"sha-{commit[:7]}"},
    ]
    image = service["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image.partition("@")[2] == done["digest"]


def test_the_live_image_is_by_digest_for_this_platform_and_tagged_with_the_commit(
    served: Project,
) -> None:
    """I2: read back from the registry."""
    commit = served.git("rev-parse", "HEAD")
    container = served.service()["spec"]["template"]["spec"]["containers"][0]
    path, _, digest = container["image"].partition("/")[2].partition("@")
    manifests = f"{served.cloud_run.url}/v2/{path}/manifests"
    by_tag = requests.get(f"{manifests}/{commit}", timeout=10)
    assert by_tag.headers["Docker-Content-Digest"] == digest
    config = requests.get(
        f"{served.cloud_run.url}/v2/{path}/blobs/{by_tag.json()['config']['digest']}", timeout=10
    ).json()
    assert f"{config['os']}/{config['architecture']}" == host_platform()
    assert config["config"]["Labels"]["org.opencontainers.image.revision"] == commit


def test_a_second_release_goes_through_the_steps_and_loses_no_request(served: Project) -> None:
    """I3: each step is one whole plan, and no request fails while plans change."""
    first = served.git("rev-parse", "HEAD")
    second = served.commit()
    with Load(served.service()["status"]["url"], rate=200) as load:
        ended = served.ship("deliver", "--bake", "0.3s")
        answers = load.answers()
    assert ended.returncode == 0, ended.stderr
    if sys.version_info[:2] != (3, 13):
        assert "deploy   The Dockerfile names Python 3.13. Here, the image runs" in ended.stderr
    assert failed(answers) == 0
    assert {a.revision for a in answers} == {served.revision(first), served.revision(second)}
    assert served.shares() == {served.revision(second): 100}
    log = served.done("history", "--changes")["changes"]
    steps = [c["percent"] for c in log if c["verb"] == "rollout"]
    assert steps == [100, 50, 10, 100]  # newest first; the last one is the first release's


def test_a_release_that_fails_its_checks_gets_no_traffic(served: Project) -> None:
    """I4, I5: stopped before its first user, with the response as evidence, and a hint."""
    before = served.shares()
    bad = served.commit(health="broken")
    with Load(served.service()["status"]["url"], rate=100) as load:
        ended = served.ship("deliver")
        answers = load.answers()
    assert ended.returncode == 1
    assert f"{served.revision(bad)} did not pass its smoke checks" in ended.stderr
    assert "field status is 'broken', expected 'ok'" in ended.stderr
    assert '"status": "broken"' in ended.stderr, "the body is the evidence"
    assert f"traffic is unchanged: {next(iter(before))} 100 %" in ended.stderr
    assert f"./ship status {served.name}" in ended.stderr
    assert served.shares() == before
    assert served.revision(bad) not in {answer.revision for answer in answers}


def test_a_first_release_that_fails_its_checks_is_no_rollback_target(project: Project) -> None:
    """I4: it serves from its start, as Cloud Run has nothing else; it is checked and reported."""
    bad = project.commit(health="broken")
    ended = project.ship("deliver")
    assert ended.returncode == 1
    assert "there is no other revision to roll back to" in ended.stderr
    assert project.shares() == {project.revision(bad): 100}
    good = project.commit(health="ok")
    project.done("deliver")
    assert project.shares() == {project.revision(good): 100}
    assert "nothing to roll back to" in project.ship("rollback").stderr


COMMIT_CHECK = "- {name: commit, path: /version, expect: {commit: commit}}\n"


def test_a_declared_check_of_the_commit_names_the_lines_that_the_dockerfile_lacks(
    served: Project,
) -> None:
    """I4: the URL must answer with the commit that was built; `ARG` alone gives no variable."""
    (served.pipeline / "smoke.yaml").write_text(COMMIT_CHECK)
    dockerfile = served.folder / served.name / "Dockerfile"
    right = dockerfile.read_text()
    served.commit()
    served.done("deliver")
    dockerfile.write_text(right.replace("COMMIT_SHA=$COMMIT_SHA ", ""))
    bad = served.commit()
    ended = served.ship("deliver")
    assert ended.returncode == 1
    assert f"commit: field commit is None, expected '{bad}'" in ended.stderr
    assert "  |   ARG COMMIT_SHA\n  |   ENV COMMIT_SHA=$COMMIT_SHA\n" in ended.stderr
    other = "0" * 40
    dockerfile.write_text(right.replace("=$COMMIT_SHA", f"={other}"))
    served.commit()
    ended = served.ship("deliver")
    assert f"field commit is '{other}'" in ended.stderr
    assert "ARG COMMIT_SHA" not in ended.stderr, "it is another commit's"


def test_a_failed_check_shows_the_log_and_the_command_for_more(served: Project) -> None:
    served.serve_with(
        "def health():\n"
        "    print('Traceback (most recent call last):', flush=True)\n"
        "    for number in range(20):\n"
        "        print('  File', number, flush=True)\n"
        "    print('OSError: no database', flush=True)\n"
        "    return 500, body()"
    )
    bad = served.revision(served.commit())
    ended = served.ship("deliver")
    assert ended.returncode == 1
    assert "health: status 500, expected 200" in ended.stderr
    _, _, log = ended.stderr.partition("the container's last log lines:\n")
    assert log.startswith("  | Traceback (most recent call last):\n  |   File 0\n")
    assert "  | OSError: no database\n" in log
    assert f"./ship logs {served.name} --revision {bad}" in " ".join(log.split())


def test_a_delivery_prints_where_the_service_is(project: Project) -> None:
    ended = project.ship("deliver")
    assert f"it serves at {project.service()['status']['url']}" in ended.stdout


def test_a_release_that_never_starts_shows_its_log(served: Project) -> None:
    """I5: the container's last log lines are in the error."""
    before = served.shares()
    served.commit(start="exit")
    ended = served.ship("deliver")
    assert ended.returncode == 1
    assert "did not start: HealthCheckContainerError" in ended.stderr
    assert "no database" in ended.stderr
    assert f"./ship logs {served.name} --revision" in " ".join(ended.stderr.split())
    assert f"traffic is unchanged: {next(iter(before))} 100 %" in ended.stderr
    assert served.shares() == before
    # A revision that never started blocks neither the next release nor a rollback.
    good = served.commit(start="listen")
    served.done("deliver")
    assert served.shares() == {served.revision(good): 100}
    served.commit(start="exit")
    assert served.ship("deliver").returncode == 1
    served.done("rollback")
    assert served.shares() == before


def test_a_release_that_never_listens_is_given_up(served: Project) -> None:
    """I5: it runs, but not on $PORT."""
    before = served.shares()
    served.commit(start="hang")
    ended = served.ship("deliver")
    assert ended.returncode == 1
    assert "failed to start and listen on the port" in ended.stderr
    assert "starting " in ended.stderr, "the log's last line"
    assert served.shares() == before


def test_a_failure_in_the_middle_moves_everything_back(served: Project) -> None:
    """I5: the checks of a later step fail; one write restores the traffic."""
    before = served.shares()
    served.serve_with(
        "answers = [(200, body())]  # well until it has answered its health check once\n"
        "def health():\n    return answers.pop() if answers else (500, body())"
    )
    served.commit()
    ended = served.ship("deliver")
    assert ended.returncode == 1
    assert "moved back" in ended.stderr
    assert served.shares() == before
    verbs = [change["verb"] for change in served.done("history", "--changes")["changes"]]
    assert verbs[:2] == ["failed", "rollout"]
    assert served.done("status")["regions"][0]["hold"] is None


def test_delivering_again_changes_nothing(served: Project) -> None:
    """I6."""
    before = served.service()
    ended = served.ship("deliver")
    assert ended.returncode == 0, ended.stderr
    assert "was built before" in ended.stderr
    assert served.service()["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert len(served.revisions()) == 1


def test_a_failed_revision_is_tried_again_under_a_new_name(project: Project) -> None:
    """I6: Cloud Run never starts a failed revision again, so a second try needs another name."""
    bad = project.commit(start="exit")
    assert project.ship("deliver").returncode == 1
    assert project.ship("deliver").returncode == 1
    assert sorted(project.revisions()) == [project.revision(bad), f"{project.revision(bad)}-2"]


def test_after_a_first_release_that_never_started_the_next_one_serves(project: Project) -> None:
    project.commit(start="exit")
    ended = project.ship("deliver")
    assert ended.returncode == 1
    assert "nothing serves yet" in ended.stderr
    good = project.commit(start="listen")
    project.done("deliver")
    assert project.shares() == {project.revision(good): 100}


def test_uncommitted_changes_are_left_out_with_a_note(served: Project) -> None:
    (served.folder / served.name / "settings.json").write_text("{broken")
    (served.pipeline / "smoke.yaml").write_text("broken: [")
    ended = served.ship("deliver")
    assert ended.returncode == 0, ended.stderr
    assert "2 uncommitted changes are left out" in ended.stderr


def test_the_verbs_one_by_one_are_a_delivery(project: Project) -> None:
    commit = project.git("rev-parse", "HEAD")
    assert project.done("build")["built"] is True
    assert project.done("build")["built"] is False, "I6: what is built is not built again"
    assert project.done("deploy")["revision"] == project.revision(commit)
    assert project.done("smoke")["passed"] is True
    project.done("rollout")
    assert project.shares() == {project.revision(commit): 100}


def test_a_deploy_moves_no_traffic(served: Project) -> None:
    before = served.shares()
    commit = served.commit()
    served.done("build")
    served.done("deploy")
    assert served.shares() == before
    assert served.revision(commit) in served.revisions()


@pytest.mark.parametrize("_", range(3))
def test_of_two_deliveries_at_once_the_newer_commit_serves(served: Project, _: int) -> None:
    """I3: two commits, two runners: the older one comes first or steps aside; never a mixture."""
    commits = [served.commit() for _ in range(2)]
    for commit in commits:
        served.done("build", "--commit", commit)
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(lambda c: served.ship("deliver", "--commit", c), commits))
    assert [e.returncode for e in ended] == [0, 0], [e.stderr for e in ended]
    assert served.shares() == {served.revision(commits[1]): 100}


def test_killed_at_any_moment_a_delivery_leaves_a_whole_plan(served: Project) -> None:
    """I3, I6: killed after each line that it prints, and finished by running it again."""
    for line_number in range(1, 9):
        commit = served.commit()
        with served.start("deliver", "--bake", "0.1s") as process:
            assert process.stderr
            for _ in range(line_number):
                process.stderr.readline()
            process.kill()
        assert sum(served.shares().values()) == 100
        assert served.answers()["status"] == "ok"
    assert served.ship("deliver").returncode == 0
    assert served.shares() == {served.revision(commit): 100}


def test_tags_and_labels_of_others_are_kept(served: Project) -> None:
    """I8: tags, labels and annotations; I1: their 'latest' is pinned to the current revision."""
    first = served.shares()
    service = served.service()
    service["metadata"].setdefault("labels", {})["cost-center"] = "7"
    service["metadata"]["annotations"]["acme.example/team"] = "web"
    service["spec"]["traffic"] = [
        {"latestRevision": True, "percent": 100},
        {"latestRevision": True, "tag": "newest"},
    ]
    served.put(service)
    served.commit(health="broken")
    assert served.ship("deliver").returncode == 1
    after = served.service()
    assert after["metadata"]["labels"]["cost-center"] == "7"
    assert after["metadata"]["annotations"]["acme.example/team"] == "web"
    assert served.shares() == first, "what follows the latest revision was pinned before the deploy"
    assert "latestRevision" not in str(after["spec"]["traffic"])
    assert {"newest"} <= {target.get("tag") for target in after["status"]["traffic"]}


def test_a_dry_run_writes_nothing_and_shows_the_changes(served: Project) -> None:
    """I10."""
    before = served.service()
    commit = served.commit()
    ended = served.ship("deliver", "--dry-run")
    assert ended.returncode == 0, ended.stderr
    assert served.revision(commit) in ended.stdout
    assert '"containers"' in ended.stdout
    assert served.service() == before
    path = f"shipway-local/services/{served.name}/manifests/{commit}"
    assert requests.get(f"{served.cloud_run.url}/v2/{path}", timeout=10).status_code == 404
