"""Who gets in: the workload identity provider, and which of GitHub's jobs it accepts.

Sources: https://cloud.google.com/iam/docs/workload-identity-federation-with-deployment-pipelines
(conditions, mapping, members), https://docs.github.com/en/actions/reference/security/oidc (claims).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from scripts.config.workflows import BRANCH, BUILD, DELIVER, DELIVER_TO, FOLDER, ISSUER, WATCH

POOL = "shipway"
_BUTTONS = ("promote.yml", "rollback.yml", "resume.yml")
# The files that a run starts from, and the files whose jobs get an identity.
WORKFLOWS = (DELIVER, *_BUTTONS, WATCH)
JOB_WORKFLOWS = (BUILD, DELIVER_TO, *_BUTTONS, WATCH)


def _file(name: str) -> str:
    """Return a workflow file of the repository, as tokens name it on the main branch."""
    return f"assertion.repository + '/{FOLDER}/{name}@{BRANCH}'"


# Numbers instead of names, which someone else can take over. The subject is not GitHub's `sub`: it
# contains names, has another form in repositories created since June 2026, and can exceed Google's
# 127 bytes. This one leads from an audit log to the run.
# `job` contains the repository because several repositories may have providers in the same pool.
# Without an environment, only build.yml's job has a role: a job that someone forgets to put into an
# environment must not become the pusher.
MAPPING = {
    "google.subject": "assertion.repository_id + '/' + assertion.run_id",
    "attribute.job": (
        "assertion.repository_id"
        " + (has(assertion.environment) ? '/environment/' + assertion.environment"
        f" : assertion.job_workflow_ref == {_file(BUILD)} ? '/build' : '/none')"
    ),
}


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """A repository at GitHub; `owner_id` and `repository_id` never change.

    `self_hosted_runners` says whether jobs on runners of one's own get an identity, too. It is set
    in .shipway.toml.
    """

    owner: str
    owner_id: int
    name: str
    repository_id: int
    self_hosted_runners: bool = False

    @property
    def full_name(self) -> str:
        """OWNER/NAME."""
        return f"{self.owner}/{self.name}"

    def conditions(self) -> dict[str, str]:
        """Return the conditions on a job's token, by name; all of them must hold.

        A token names two files: `workflow_ref` is the one that the run started from, and
        `job_workflow_ref` is the one that the job is in. They differ if the first calls the second
        as a reusable workflow. Both are checked: without the first, any workflow of this repository
        could call build.yml or deliver-to.yml; without the second, deliver.yml could call any file.
        https://docs.github.com/en/actions/how-tos/secure-your-work/security-harden-deployments/oidc-with-reusable-workflows

        A run that is repeated ("Re-run jobs") repeats its own commit's workflow files and code for
        up to 30 days, on `ref` main, whatever main has become. So only first attempts get in.
        https://docs.github.com/en/actions/how-tos/manage-workflow-runs/re-run-workflows-and-jobs
        """
        runner = {"runner": "assertion.runner_environment == 'github-hosted'"}
        return {
            "owner": f"assertion.repository_owner_id == '{self.owner_id}'",
            "repository": f"assertion.repository_id == '{self.repository_id}'",
            "branch": f"assertion.ref == '{BRANCH}'",
            # Only the watch runs on a schedule. It takes no input, and begins no release.
            "event": "(assertion.event_name in ['push', 'workflow_dispatch']"
            " || (assertion.event_name == 'schedule'"
            f" && assertion.workflow_ref == {_file(WATCH)}))",
            "workflow": f"assertion.workflow_ref in [{_files(WORKFLOWS)}]",
            "job": f"assertion.job_workflow_ref in [{_files(JOB_WORKFLOWS)}]",
            "attempt": "assertion.run_attempt == '1'",
            **({} if self.self_hosted_runners else runner),
        }


def _files(names: Sequence[str]) -> str:
    return ", ".join(map(_file, names))


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """The workload identity provider that accepts the tokens of one repository's jobs."""

    project: str
    number: str
    """The number of the pool's project."""
    id: str
    condition: str
    pool: str = POOL
    issuer: str = ISSUER
    mapping: dict[str, str] = msgspec.field(default_factory=lambda: dict(MAPPING))

    @property
    def pool_name(self) -> str:
        """The pool's name in members of policies."""
        return f"projects/{self.number}/locations/global/workloadIdentityPools/{self.pool}"

    @property
    def name(self) -> str:
        """Its name, which is the value of the GitHub variable WORKLOAD_IDENTITY_PROVIDER."""
        return f"{self.pool_name}/providers/{self.id}"

    def jobs(self, where: str) -> str:
        """Return the member that stands for the jobs whose attribute `job` is `where`."""
        return f"principalSet://iam.googleapis.com/{self.pool_name}/attribute.job/{where}"
