"""How each API refuses a caller without a permission.

Source of the errors' form: https://cloud.google.com/iam/docs/permission-error-messages.
"""

from __future__ import annotations

from emulator.errors import ApiError, error_info


def denied(permission: str, message: str) -> ApiError:
    """Return a 403 PERMISSION_DENIED that names the missing permission."""
    info = error_info("IAM_PERMISSION_DENIED", "iam.googleapis.com", {"permission": permission})
    return ApiError("PERMISSION_DENIED", message, [info])


def denied_on(permission: str, resource: str) -> ApiError:
    """Return the refusal of most APIs: it names the resource."""
    rest = "resource may" if permission.startswith("run.") else "it may"
    message = f"Permission '{permission}' denied on resource '{resource}' (or {rest} not exist)."
    return denied(permission, message)


def denied_on_account(permission: str) -> ApiError:
    """Return the refusal of a call about a service account, which does not name it."""
    message = f"Permission '{permission}' denied on resource (or it may not exist)."
    return denied(permission, message)


def denied_on_image(permission: str, image: str, location: str) -> ApiError:
    """Return the refusal of Artifact Registry.

    Args:
        permission: The missing permission.
        image: `PROJECT/REPOSITORY/IMAGE`.
        location: Where the repository is; `-` where the request does not say.
    """
    project, _, rest = image.partition("/")
    resource = f"projects/{project}/locations/{location}/repositories/{rest.partition('/')[0]}"
    message = f'Permission "{permission}" denied on resource "{resource}" (or it may not exist)'
    return denied(permission, message)
