"""The requirements of a request: a permission, the resource it is on, and checks of the body.

Sources: the "IAM permissions" of each method in Google's references, such as
https://cloud.google.com/run/docs/reference/iam/permissions and
https://cloud.google.com/artifact-registry/docs/access-control#permissions.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple


class On(Enum):
    """The resource that a permission is needed on."""

    PROJECT = auto()
    SERVICE = auto()
    """A Cloud Run service; its project while the service does not exist."""
    REVISION = auto()
    """The service that a revision belongs to."""
    REPOSITORY = auto()
    IMAGE = auto()
    """The repository of an image, for a request of the registry's own protocol."""
    SECRET = auto()
    BUCKET = auto()
    OBJECT = auto()
    """The bucket of an object, whose contents a request may send as they are."""
    ACCOUNT = auto()
    LOGS = auto()
    """Each project that the body of a request for log entries names."""
    CALLER = auto()
    """Nothing: every caller with a valid token may send the request."""
    NOTHING = auto()
    """Nothing: the request needs no token."""
    THIS_MACHINE = auto()
    """Nothing of Google's: the request needs the secret of this start (`emulator.front_door`)."""


class Checks(Enum):
    """The checks of a request's body, once the caller has the permission."""

    POLICY = auto()
    """A new policy: its members exist, and the resource takes its roles."""
    PERMISSIONS = auto()
    """Permissions that the caller tests: they exist for the resource."""
    DEPLOYMENT = auto()
    """A service: the caller may use its account and its image."""
    BUILD = auto()
    """A build: the caller may use its account."""


# The prefix of the permissions on a kind of resource.
PREFIXES = {
    On.PROJECT: "resourcemanager.",
    On.SERVICE: "run.",
    On.REPOSITORY: "artifactregistry.",
    On.SECRET: "secretmanager.",
    On.BUCKET: "storage.",
    On.OBJECT: "storage.",
    On.ACCOUNT: "iam.serviceAccounts.",
}
# The API of a permission, by its prefix; longer prefixes first.
_APIS = {
    "aiplatform.": "aiplatform.googleapis.com",
    "artifactregistry.": "artifactregistry.googleapis.com",
    "binaryauthorization.": "binaryauthorization.googleapis.com",
    "cloudbuild.": "cloudbuild.googleapis.com",
    "iam.serviceAccounts.getAccessToken": "iamcredentials.googleapis.com",
    "iam.serviceAccounts.getOpenIdToken": "iamcredentials.googleapis.com",
    "iam.": "iam.googleapis.com",
    "logging.": "logging.googleapis.com",
    "monitoring.": "monitoring.googleapis.com",
    "resourcemanager.": "cloudresourcemanager.googleapis.com",
    "run.": "run.googleapis.com",
    "secretmanager.": "secretmanager.googleapis.com",
    "serviceusage.": "serviceusage.googleapis.com",
    "storage.": "storage.googleapis.com",
}


class Asks(NamedTuple):
    """The requirements of a route.

    Attributes:
        permission: The permission; "" if every caller may send the request.
        on: The resource that the permission is needed on.
        resource: The resource's name in a refusal. `{NAME}` stands for a part of the path.
        checks: The check of the body, if it needs one.
    """

    permission: str
    on: On
    resource: str = ""
    checks: Checks | None = None

    @property
    def api(self) -> str:
        """The API that is called, which has to be enabled; "" for one that always is."""
        named = self.permission or PREFIXES.get(self.on, "")
        return next((api for start, api in _APIS.items() if named.startswith(start)), "")


OPEN = Asks("", On.NOTHING)
LOCAL = Asks("", On.THIS_MACHINE)
CALLER = Asks("", On.CALLER)
