"""The errors that people really meet, in their words: what each means, and what mends it.

The texts that are looked for are Google's, GitHub's and Docker's own. Sources: their pages on
troubleshooting, and the issues in which users quote them; tests provoke each.
"""

from __future__ import annotations

import re

import msgspec

from scripts.errors import ShipError


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """One error. `says` and `mend` may hold what `pattern` names, and {where}, {env}, {project},
    {service}, {account}."""

    name: str
    pattern: str
    says: str
    mend: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What an error means, and the one command or change that mends it."""

    name: str
    says: str
    mend: str


_BOOTSTRAP = "./ship bootstrap --env {env}"
_LOGIN = "gcloud auth application-default login"

# The first that matches is meant: what is more special comes first.
TABLE = [
    Known(
        name="api-disabled",
        pattern=r"API has not been used in project (?P<project>\S+) before or it is disabled"
        r".*?/apis?/(?:api/)?(?P<api>[a-z]+\.googleapis\.com)",
        says="the API {api} is not enabled in {project}",
        mend="gcloud services enable {api} --project {project}",
    ),
    Known(
        name="no-billing",
        pattern=r"Billing account for project '(?P<number>[^']+)' is not found",
        says="project {number} has no billing account, and no API is enabled without one",
        mend="gcloud billing projects link {number} --billing-account ACCOUNT",
    ),
    Known(
        name="quota-project",
        pattern=r"requires a quota project, which is not set by default",
        says="a person's credentials must say which project's quota they use",
        mend="gcloud auth application-default set-quota-project {project}",
    ),
    Known(
        name="token-exchange",
        pattern=r"Token exchange failed for project '(?P<where_to>[^']+)'"
        r"(?:.*?permission '(?P<permission>[^']+)')?",
        says="the registry of {where_to} does not take these credentials:"
        " {account} may not push there, or Docker is logged in as somebody else",
        mend=_BOOTSTRAP,
    ),
    Known(
        name="secret-denied",
        pattern=r"Permission denied on secret: (?P<secret>\S+) for Revision service account"
        r" (?P<email>\S+?)\.? ",
        says="{email}, as which the service runs, may not read {secret}",
        mend=_BOOTSTRAP,
    ),
    Known(
        name="secret-missing",
        pattern=r"Secret projects/[^/]+/secrets/(?P<secret>[^/]+)/versions/\S+ was not found",
        says="the secret {secret} has no such version: it was made, and never given a value",
        mend="gcloud secrets versions add {secret} --project={project} --data-file=-",
    ),
    Known(
        name="image-denied-to-agent",
        pattern=r"Service Agent (?P<agent>\S+) must have permission to read the image",
        says="Cloud Run's own agent {agent} may not read images of another project",
        mend=_BOOTSTRAP,
    ),
    Known(
        name="permission-denied",
        pattern=r"Permission ['\"](?P<permission>[\w.]+)['\"] denied on"
        r" (?:resource|service account)(?: ['\"]?(?P<resource>[^'\"() ]+)['\"]?)?",
        says="{account} lacks {permission} on {resource}",
        mend=_BOOTSTRAP,
    ),
    Known(
        name="wrong-platform",
        pattern=r"Container manifest type '(?P<type>[^']+)' must support amd64/linux"
        r"|is for [^;]+; \S+ takes (?P<wanted>[a-z0-9]+/[a-z0-9]+)",
        says="the image is not for the platform that runs it ({wanted}), usually because it was"
        " built on an Arm laptop",
        mend="make a new commit, then ./ship deliver {where}: it builds for {wanted} anywhere",
    ),
    Known(
        name="port",
        pattern=r"failed to start and listen on the port defined(?: provided)? by the"
        r" PORT(?:=(?P<port>\d+))?",
        says="the container did not listen on $PORT in time: it ended, listens on another port or"
        " on 127.0.0.1 alone, or needs longer to start",
        mend="./ship logs {where}",
    ),
    Known(
        name="quota",
        pattern=r"Quota exceeded for quota metric '(?P<metric>[^']+)'"
        r"(?:.*?of service '(?P<api>[^']+)')?",
        says="the quota of {api} ({metric}) is used up for now; nothing is broken",
        mend="wait a minute and type it again; for more:"
        " https://console.cloud.google.com/iam-admin/quotas?project={project}",
    ),
    Known(
        name="org-policy",
        pattern=r"do not belong to a permitted customer|iam\.allowedPolicyMemberDomains",
        says="a policy of your organisation (iam.allowedPolicyMemberDomains) forbids allUsers",
        mend="write access: private in pipelines/{service}/{env}.yaml, or ask the administrator"
        " of the organisation for an exception",
    ),
    Known(
        name="org-policy-invoker",
        pattern=r"run\.managed\.requireInvokerIam",
        says="a policy of your organisation (run.managed.requireInvokerIam) forbids services that"
        " are open to everybody",
        mend="write access: private in pipelines/{service}/{env}.yaml, or ask the administrator"
        " of the organisation for an exception",
    ),
    Known(
        name="no-repository",
        pattern=r"(?:NAME_UNKNOWN|name unknown): Repository \"(?P<repository>[^\"]+)\" not found",
        says="there is no repository {repository} to push to: Artifact Registry makes none by"
        " itself",
        mend=_BOOTSTRAP,
    ),
    Known(
        name="immutable-tag",
        pattern=r"cannot update tag (?P<tag>\S+?)\. The repository has enabled tag immutability",
        says="tag {tag} holds another image already, and tags of this repository never move",
        mend="make a new commit, then ./ship deliver {where}",
    ),
    Known(
        name="attribute-condition",
        pattern=r"rejected by the attribute condition",
        says="Google does not let this job in: another repository, branch, event or workflow file"
        " than the provider's condition names",
        mend=_BOOTSTRAP,
    ),
    Known(
        name="no-provider",
        pattern=r"The target service indicated by the \"audience\" parameters is invalid",
        says="the workload identity provider that the GitHub variable names is not there, disabled"
        " or deleted",
        mend=_BOOTSTRAP,
    ),
    Known(
        name="clock",
        pattern=r"Token must be a short-lived token|Token used too (?:early|late)"
        r"|is stale to sign-in",
        says="the clock of this machine is wrong: Google takes no token from another time",
        mend="sudo timedatectl set-ntp true",
    ),
    Known(
        name="login-expired",
        pattern=r"Reauthentication (?:is needed|failed)|Token has been expired or revoked"
        r"|invalid_rapt|invalid_grant: Bad Request",
        says="the login has expired",
        mend=_LOGIN,
    ),
    Known(
        name="no-credentials",
        pattern=r"default credentials were not found",
        says="there are no Google credentials on this machine",
        mend=_LOGIN,
    ),
    Known(
        name="no-docker",
        pattern=r"Cannot connect to the Docker daemon|no Docker engine answers",
        says="no Docker engine runs here",
        mend="start Docker (Linux: sudo systemctl start docker)",
    ),
    Known(
        name="no-buildx",
        pattern=r"docker has no buildx|buildx. is not a docker command",
        says="this Docker has no buildx, which builds the image",
        mend="install it: https://docs.docker.com/go/buildx/",
    ),
]


def explain(text: str, **context: str) -> Explanation | None:
    """What an error means, by its text; None for one that is not known.

    Args:
        text: everything that the error says, evidence included.
        context: `where`, `env`, `project`, `service` and `account`, as far as they are known.
    """
    flat = " ".join(text.split())
    for known in TABLE:
        if found := re.search(known.pattern, flat, re.IGNORECASE):
            groups = {name: value for name, value in found.groupdict().items() if value}
            values = _Values({**context, **groups})
            return Explanation(
                name=known.name,
                says=known.says.format_map(values),
                mend=known.mend.format_map(values),
            )
    return None


def explain_error(error: ShipError, **context: str) -> Explanation | None:
    """What an error of ours means, by its message and evidence.

    The service's own words are left out: a text in its log is not Google's or Docker's.
    """
    return explain("\n".join([error.message, *error.evidence]), **context)


class _Values(dict[str, str]):
    """What a text may name; what is not known is said in words."""

    def __missing__(self, name: str) -> str:
        return _UNKNOWN.get(name, name.upper())


_UNKNOWN = {
    "account": "whoever asks",
    "resource": "it",
    "api": "an API",
    "wanted": "linux/amd64",
}
