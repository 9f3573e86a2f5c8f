"""The table of errors that users meet: what each one means, and how to fix it.

The patterns match the words of Google, GitHub and Docker. Sources: their troubleshooting pages,
and issues in which users quote the errors. Tests provoke each one.
"""

from __future__ import annotations

import re

import msgspec

from scripts.errors import ShipError


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """One error.

    Attributes:
        name: its name in reports.
        pattern: a regular expression for the text of the error.
        means: what is wrong. May use the groups of `pattern`, and {where}, {env}, {project},
            {service} and {account}.
        fix: the command or change that fixes it. May use the same names.
        local_fix: the same for a local Cloud Run, if that differs.
    """

    name: str
    pattern: str
    means: str
    fix: str
    local_fix: str = ""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What an error means, and the command or change that fixes it."""

    name: str
    means: str
    fix: str


_BOOTSTRAP = "./ship bootstrap --env {env}"
_LOGIN = "gcloud auth application-default login"

# The first match counts: specific patterns come before general ones.
TABLE = [
    Known(
        name="api-disabled",
        pattern=r"API has not been used in project (?P<project>\S+) before or it is disabled"
        r".*?/apis?/(?:api/)?(?P<api>[a-z]+\.googleapis\.com)",
        means="the API {api} is not enabled in {project}",
        fix="gcloud services enable {api} --project {project}",
    ),
    Known(
        name="no-billing",
        pattern=r"Billing account for project '(?P<number>[^']+)' is not found",
        means="project {number} has no billing account, so no API can be enabled",
        fix="gcloud billing projects link {number} --billing-account ACCOUNT",
    ),
    Known(
        name="quota-project",
        pattern=r"requires a quota project, which is not set by default",
        means="your credentials do not name the project whose quota they use",
        fix="gcloud auth application-default set-quota-project {project}",
    ),
    Known(
        name="token-exchange",
        pattern=r"Token exchange failed for project '(?P<where_to>[^']+)'"
        r"(?:.*?permission '(?P<permission>[^']+)')?",
        means="the registry of {where_to} does not accept these credentials:"
        " {account} may not push there, or Docker is logged in as another account",
        fix=_BOOTSTRAP,
    ),
    Known(
        name="secret-denied",
        pattern=r"Permission denied on secret: (?P<secret>\S+) for Revision service account"
        r" (?P<email>\S+?)\.? ",
        means="{email}, the account that the service runs as, may not read {secret}",
        fix=_BOOTSTRAP,
    ),
    Known(
        name="secret-missing",
        pattern=r"Secret projects/[^/]+/secrets/(?P<secret>[^/]+)/versions/\S+ was not found",
        means="the secret {secret} has no such version: it was created, but never given a value",
        fix="gcloud secrets versions add {secret} --project={project} --data-file=-",
        local_fix="./ship secrets set {secret}",
    ),
    Known(
        name="image-denied-to-agent",
        pattern=r"Service Agent (?P<agent>\S+) must have permission to read the image",
        means="Cloud Run's service agent {agent} may not read images of another project",
        fix=_BOOTSTRAP,
    ),
    Known(
        name="permission-denied",
        pattern=r"Permission ['\"](?P<permission>[\w.]+)['\"] denied on"
        r" (?:resource|service account)(?: ['\"]?(?P<resource>[^'\"() ]+)['\"]?)?",
        means="{account} lacks {permission} on {resource}",
        fix=_BOOTSTRAP,
        local_fix="./ship up --grant MEMBER=ROLE",
    ),
    Known(
        name="wrong-platform",
        pattern=r"Container manifest type '[^']+' must support amd64/linux",
        means="the image is not for linux/amd64, usually because it was built on an Arm laptop",
        fix="make a new commit, then ./ship deliver {where}: it always builds for linux/amd64",
    ),
    Known(
        name="port",
        pattern=r"failed to start and listen on the port defined(?: provided)? by the"
        r" PORT(?:=(?P<port>\d+))?",
        means="the container did not listen on $PORT in time: it exited, listens on another port or"
        " only on 127.0.0.1, or needs longer to start",
        fix="./ship logs {where}",
    ),
    Known(
        name="quota",
        pattern=r"Quota exceeded for quota metric '(?P<metric>[^']+)'"
        r"(?:.*?of service '(?P<api>[^']+)')?",
        means="the quota of {api} ({metric}) is used up for now",
        fix="wait a minute and run it again; to raise the quota:"
        " https://console.cloud.google.com/iam-admin/quotas?project={project}",
    ),
    Known(
        name="org-policy",
        pattern=r"do not belong to a permitted customer|iam\.allowedPolicyMemberDomains",
        means="your organization's policy iam.allowedPolicyMemberDomains forbids allUsers",
        fix="set access: private in pipelines/{service}/{env}.yaml, or ask the administrator of the"
        " organization for an exception",
    ),
    Known(
        name="org-policy-invoker",
        pattern=r"run\.managed\.requireInvokerIam",
        means="your organization's policy run.managed.requireInvokerIam forbids services that are"
        " open to everyone",
        fix="set access: private in pipelines/{service}/{env}.yaml, or ask the administrator of the"
        " organization for an exception",
    ),
    Known(
        name="no-repository",
        pattern=r"(?:NAME_UNKNOWN|name unknown): Repository \"(?P<repository>[^\"]+)\" not found",
        means="the repository {repository} does not exist: a push to Artifact Registry does not"
        " create it",
        fix=_BOOTSTRAP,
    ),
    Known(
        name="immutable-tag",
        pattern=r"cannot update tag (?P<tag>\S+?)\. The repository has enabled tag immutability",
        means="tag {tag} already names another image, and tags of this repository are immutable",
        fix="make a new commit, then ./ship deliver {where}",
    ),
    Known(
        name="attribute-condition",
        pattern=r"rejected by the attribute condition",
        means="Google does not accept this job: the provider's condition names another repository,"
        " branch, event, workflow file or runner, or this is a re-run: start a new run of the"
        " workflow on main instead (Run workflow)",
        fix=_BOOTSTRAP,
    ),
    Known(
        name="no-provider",
        pattern=r"The target service indicated by the \"audience\" parameters is invalid",
        means="the workload identity provider that the GitHub variable names does not exist, is"
        " disabled or was deleted",
        fix=_BOOTSTRAP,
    ),
    Known(
        name="clock",
        pattern=r"Token must be a short-lived token|Token used too (?:early|late)"
        r"|is stale to sign-in",
        means="this machine's clock is wrong, so Google refuses its tokens",
        fix="sudo timedatectl set-ntp true",
    ),
    Known(
        name="login-expired",
        pattern=r"Reauthentication (?:is needed|failed)|Token has been expired or revoked"
        r"|invalid_rapt|invalid_grant: Bad Request",
        means="the login has expired",
        fix=_LOGIN,
    ),
    Known(
        name="no-credentials",
        pattern=r"default credentials were not found",
        means="there are no Google credentials on this machine",
        fix=_LOGIN,
    ),
    Known(
        name="no-docker",
        pattern=r"Cannot connect to the Docker daemon",
        means="no Docker engine runs on this machine",
        fix="start Docker (Linux: sudo systemctl start docker)",
    ),
    Known(
        name="no-buildx",
        pattern=r"buildx. is not a docker command",
        means="Docker's buildx plugin, which builds the image, is not installed",
        fix="install it: https://docs.docker.com/go/buildx/",
    ),
]


def explain(text: str, **context: str) -> Explanation | None:
    """Explain an error by its text.

    Args:
        text: the error's whole text, evidence included.
        context: `where`, `env`, `project`, `service` and `account`, if known; `is_local` if it
            is about a local Cloud Run.

    Returns:
        The explanation; None if the error is unknown.
    """
    flat = " ".join(text.split())
    for known in TABLE:
        if found := re.search(known.pattern, flat, re.IGNORECASE):
            groups = {name: value for name, value in found.groupdict().items() if value}
            return _filled(known, {**context, **groups})
    return None


def named(name: str, **context: str) -> Explanation:
    """Return the explanation of the error with a name; `context` as for `explain`."""
    return _filled(next(known for known in TABLE if known.name == name), context)


def _filled(known: Known, values: dict[str, str]) -> Explanation:
    filled = _Values(values)
    fix = (known.local_fix if values.get("is_local") else "") or known.fix
    return Explanation(
        name=known.name, means=known.means.format_map(filled), fix=fix.format_map(filled)
    )


def explain_error(error: ShipError, **context: str) -> Explanation | None:
    """Explain an error by its message and evidence.

    The service's own words are left out: a text in its log is not Google's or Docker's.
    """
    return explain("\n".join([error.message, *error.evidence]), **context)


class _Values(dict[str, str]):
    """The values of a text's names; unknown ones get a word or a placeholder."""

    def __missing__(self, name: str) -> str:
        return _UNKNOWN.get(name, name.upper())


_UNKNOWN = {
    "account": "the caller",
    "resource": "it",
    "api": "an API",
}
