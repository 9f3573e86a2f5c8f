"""The failures of revisions that never start: reason, message and conditions.

The texts are Cloud Run's own, as its users quote them, except for `image_not_pulled`,
`image_not_unpacked`, `internal_error`, `mixed` and `secret_not_text`, which are Shipway's. The
reason SecretsAccessCheckFailed is documented.
Source: https://cloud.google.com/run/docs/configuring/services/secrets ("How secrets are checked at
deployment and runtime").
"""

from __future__ import annotations

_SECRETS = "SecretsAccessCheckFailed"


class StartFailed(Exception):
    """An instance that did not start.

    Attributes:
        reason: The reason that the revision's conditions give.
        message: The message that the revision's conditions give.
        failed: The condition of the revision, in addition to Ready, that becomes False.
        passed: The conditions of the revision that become True in spite of it.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        failed: str = "ContainerReady",
        passed: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.failed = failed
        self.passed = passed

    def with_logs(self, url: str) -> StartFailed:
        """Return the same failure with the address of the revision's logs in its message."""
        message = f"{self.message}\nLogs URL: {url}"
        return StartFailed(self.reason, message, failed=self.failed, passed=self.passed)


def never_listened(port: int, why: str = "") -> StartFailed:
    """Return the failure of a container that does not answer its startup probe.

    Args:
        port: The container's port.
        why: What is known about it here, which Cloud Run does not say.
    """
    return StartFailed(
        "HealthCheckContainerError",
        "The user-provided container failed to start and listen on the port defined provided by "
        f"the PORT={port} environment variable within the allocated timeout. This can happen when "
        "the container port is misconfigured or if the timeout is too short. The health check "
        "timeout can be extended. Logs for this revision might contain more information."
        f"{why and ' '}{why}",
        failed="ContainerHealthy",
        passed=("ContainerReady", "ResourcesAvailable"),
    )


def probe_failed(container: str, why: str = "") -> StartFailed:
    """Return the failure of a revision whose sidecar does not pass its startup probe.

    Cloud Run does not name the container there. Source of the text:
    https://github.com/terraform-google-modules/terraform-docs-samples/pull/254.

    Args:
        container: The container's name.
        why: What is known about it here.
    """
    return StartFailed(
        "HealthCheckContainerError",
        "The user-provided container failed the configured startup probe checks. Logs for this "
        f"revision might contain more information. Container '{container}' did not start."
        f"{why and ' '}{why}",
        failed="ContainerHealthy",
        passed=("ContainerReady", "ResourcesAvailable"),
    )


def mixed(packed: str, foreign: str) -> StartFailed:
    """Return the failure of a revision whose containers cannot run in one place here."""
    return StartFailed(
        "ContainerMissing",
        f"Container '{foreign}' has an operating system of its own, so only Docker can run it "
        f"here, but the image of '{packed}' was packed without one. The containers of an instance "
        "run in one place: write `builder: docker` into local.yaml, and make a new commit.",
    )


def image_not_found(image: str) -> StartFailed:
    """Return the failure of a revision whose image is not in the registry."""
    return StartFailed("ContainerMissing", f"Image '{image}' not found.")


def image_not_pulled(image: str, why: object) -> StartFailed:
    """Return the failure of a revision whose image the Docker engine cannot pull."""
    return StartFailed("ContainerMissing", f"Image '{image}': {why}")


def no_engine(image: str, why: object) -> StartFailed:
    """Return the failure of a revision whose image needs a Docker engine, where none answers."""
    return StartFailed(
        "ContainerMissing",
        f"Image '{image}' has an operating system of its own, so only Docker can run it here. "
        f"{why} Start Docker and deliver again, or let the local Cloud Run build the image.",
    )


def image_not_unpacked(image: str, why: Exception) -> StartFailed:
    """Return the failure of a revision whose image this machine cannot unpack."""
    text = f"Image '{image}' cannot be unpacked: {why or type(why).__name__}"
    return StartFailed("ContainerImageImportFailed", text)


def internal_error() -> StartFailed:
    """Return the failure of a revision that the local Cloud Run cannot start, for its own fault."""
    return StartFailed("Internal", "Internal error encountered.")


def image_not_supported(image: str, media_type: str) -> StartFailed:
    """Return the failure of a revision whose image is not for linux/amd64."""
    return StartFailed(
        "ContainerImageUnsupported",
        f"Cloud Run does not support image '{image}': Container manifest type '{media_type}' must "
        "support amd64/linux.",
    )


def secret_not_allowed(field: str, version: str, service_account: str) -> StartFailed:
    """Return the failure of a revision whose service account may not read a secret.

    Args:
        field: The place in the Service that names the secret.
        version: The secret's version, `projects/NUMBER/secrets/NAME/versions/VERSION`.
        service_account: The e-mail of the revision's service account.
    """
    return _secret(
        f"{field}: Permission denied on secret: {version} for Revision service account "
        f"{service_account}. The service account used must be granted the 'Secret Manager Secret "
        "Accessor' role (roles/secretmanager.secretAccessor) at the secret, project or higher "
        "level."
    )


def secret_not_found(field: str, version: str) -> StartFailed:
    """Return the failure of a revision whose secret, or its version, does not exist."""
    return _secret(f"{field}: Secret {version} was not found")


def secret_not_text(field: str, version: str) -> StartFailed:
    """Return the failure of a revision whose secret cannot be an environment variable's value.

    The message holds no part of the value.
    """
    return _secret(f"{field}: Secret {version} is not text")


def _secret(message: str) -> StartFailed:
    return StartFailed(_SECRETS, message, failed="ResourcesAvailable")
