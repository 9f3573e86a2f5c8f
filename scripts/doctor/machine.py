"""Checks on this machine: files, network, clock, credentials, Docker."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests

from scripts.cloud import known_errors
from scripts.cloud.google import unreachable
from scripts.config import workflows
from scripts.config.pipelines import environments
from scripts.config.running import NotUp
from scripts.config.sources import APP, SOURCE
from scripts.doctor.case import Case
from scripts.doctor.finding import Finding, of_error, ok, skipped, warning, wrong
from scripts.errors import ShipError, UsageError
from scripts.machine import git
from scripts.setup import resources

# Google refuses a token that is ten minutes off its own time, GitHub one that is a minute off.
_SKEW_SECONDS = 30
_TIMEOUT = 10


def files(case: Case) -> Iterator[Finding]:
    """Check that the files, which were read before, are complete and committed."""
    pipeline = case.pipeline
    where = f"pipelines/{pipeline.service}"
    yield ok("files", f"{where}/service.yaml, smoke.yaml, {pipeline.env}.yaml are well formed")
    for word, folder in pipeline.sources.items():
        if not (folder / "Dockerfile").is_file():
            builds = pipeline.service if word == APP else f"the image {word}"
            key = SOURCE if word == APP else f"{SOURCE}.{word}"
            yield wrong(
                "files",
                f"{folder.relative_to(pipeline.root)}/Dockerfile, which builds {builds}, does not"
                " exist",
                f"write it, or name another folder in {where}/service.yaml (annotation {key})",
            )
    updates = case.root / workflows.DEPENDABOT
    built = [str(one.relative_to(pipeline.root)) for one in pipeline.sources.values()]
    if updates.is_file():
        for name in workflows.without_updates(updates.read_text(encoding="utf-8"), built):
            yield warning(
                "files",
                f"{workflows.DEPENDABOT} has no updates of the base image of {name}/Dockerfile",
                f"./ship init {pipeline.service}, which writes them",
            )
    lacks = {*workflows.environments(case.root)} - {*environments(case.root, pipeline.service)}
    for env in [] if case.by_cloud_build else sorted(lacks):
        yield wrong(
            "files",
            f"{where}/{env}.yaml does not exist, and deliver.yml delivers every service to {env}:"
            " its job would fail",
            f"./ship init {pipeline.service} --project {env}=PROJECT, or remove the job {env}",
        )
    if case.takes_credentials:
        try:
            runs_as = resources.runtime(pipeline).email
        except ShipError as error:
            yield wrong("files", error.message, error.hint or "")
        else:
            yield ok("files", f"{pipeline.service} runs as {runs_as}")
    try:
        commit = git.commit(case.root)
        changed = git.uncommitted(case.root)
    except ShipError as error:
        yield wrong("git", error.message, error.hint or "")
        return
    left_out = f"; {changed} uncommitted changes are left out" if changed else ""
    yield ok("git", f"commit {commit.short} would be delivered{left_out}")


def network(case: Case) -> Iterator[Finding]:
    """Check that Google answers, and that this machine's clock agrees with Google's."""
    google = case.google
    try:
        google.url("run", "/")
    except NotUp as error:
        yield warning("network", f"{error.message}; ./ship deliver starts it", error.hint or "")
        return
    except UsageError as error:
        yield wrong("network", error.message, error.hint or "")
        return
    host = case.pipeline.endpoint or f"https://{case.environment.registry.partition('/')[0]}"
    # One address per host: the local Cloud Run has only one.
    asked = {urlsplit(url).netloc: url for url in (f"{host}/v2/", google.url("run", "/"))}
    skew = None
    for name, url in asked.items():
        try:
            answer = google.http.get(url, timeout=_TIMEOUT, allow_redirects=False)
        except requests.exceptions.RequestException as error:
            silent = unreachable(url, error)
            is_local = urlsplit(url).scheme == "http"
            fix = silent.hint if is_local else f"check the network and its proxy: curl -v {url}"
            yield wrong("network", silent.message, fix or "")
            continue
        if date := answer.headers.get("Date"):
            skew = time.time() - parsedate_to_datetime(date).timestamp()
        yield ok("network", f"{name} answers")
    if skew is None:
        yield skipped("clock", "no host answered with its time")
    elif abs(skew) > _SKEW_SECONDS:
        late = "ahead of" if skew > 0 else "behind"
        yield wrong(
            "clock",
            f"this machine's clock is {abs(skew):.0f} s {late} Google's, which refuses its tokens",
            "sudo timedatectl set-ntp true",
            "clock",
        )
    else:
        yield ok("clock", "agrees with Google's")


def credentials(case: Case) -> Iterator[Finding]:
    """Check that credentials exist and are valid. Also note the account that they belong to."""
    if not case.takes_credentials:
        yield ok("credentials", f"{case.pipeline.env} needs none")
        return
    try:
        case.account = case.google.account()
    except ShipError as error:
        yield of_error("credentials", error, case.context())
        return
    yield ok("credentials", f"valid: {case.account or 'an account without an e-mail address'}")


def docker(case: Case) -> Iterator[Finding]:
    """Check Docker's engine and buildx, if they build the environment's images."""
    if case.environment.after:
        yield ok("docker", f"not needed: the image comes from {case.environment.after}")
        return
    if case.environment.builder != "docker":
        yield ok("docker", "not needed: Cloud Build builds the images")
        return
    for words, what, known in (
        (["docker", "version", "--format", "{{.Server.Version}}"], "engine", "no-docker"),
        (["docker", "buildx", "version"], "buildx", "no-buildx"),
    ):
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, check=False, timeout=_TIMEOUT
            )
        except FileNotFoundError:
            install = "install Docker with buildx: https://docs.docker.com/engine/install/"
            yield wrong("docker", "docker is not installed", install, "no-docker")
            return
        except subprocess.TimeoutExpired:
            yield wrong(
                "docker", f"{' '.join(words)} does not answer", "restart Docker", "no-docker"
            )
            return
        if done.returncode == 0 and done.stdout.strip():
            yield ok("docker", f"{what} {done.stdout.split()[-2 if what == 'buildx' else 0]}")
            continue
        problem = known_errors.explain(done.stdout + done.stderr) or known_errors.named(known)
        yield wrong("docker", problem.means, problem.fix, problem.name)
        return
