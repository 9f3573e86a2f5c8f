"""The predefined roles, with those of their permissions that the local APIs check.

Source: https://cloud.google.com/iam/docs/roles-permissions (run, artifactregistry, iam, logging,
resourcemanager, secretmanager). A role that is not listed grants nothing.
"""

from __future__ import annotations

_RUN_VIEWER = frozenset(
    {
        "run.configurations.get",
        "run.configurations.list",
        "run.locations.list",
        "run.operations.get",
        "run.operations.list",
        "run.revisions.get",
        "run.revisions.list",
        "run.routes.get",
        "run.routes.list",
        "run.services.get",
        "run.services.getIamPolicy",
        "run.services.list",
        "resourcemanager.projects.get",
    }
)
_RUN_DEVELOPER = _RUN_VIEWER | {
    "run.operations.delete",
    "run.revisions.delete",
    "run.services.create",
    "run.services.delete",
    "run.services.update",
}
_RUN_ADMIN = _RUN_DEVELOPER | {"run.routes.invoke", "run.services.setIamPolicy"}

_READER = frozenset(
    {
        "artifactregistry.dockerimages.get",
        "artifactregistry.dockerimages.list",
        "artifactregistry.repositories.downloadArtifacts",
        "artifactregistry.repositories.get",
        "artifactregistry.packages.get",
        "artifactregistry.packages.list",
        "artifactregistry.repositories.list",
        "artifactregistry.tags.get",
        "artifactregistry.tags.list",
        "artifactregistry.versions.get",
        "artifactregistry.versions.list",
    }
)
_WRITER = _READER | {"artifactregistry.repositories.uploadArtifacts"}
_REPO_ADMIN = _WRITER | {
    "artifactregistry.repositories.deleteArtifacts",
    "artifactregistry.packages.delete",
    "artifactregistry.tags.delete",
    "artifactregistry.versions.delete",
}
_AR_ADMIN = _REPO_ADMIN | {
    "artifactregistry.repositories.create",
    "artifactregistry.repositories.delete",
    "artifactregistry.repositories.update",
    "artifactregistry.repositories.getIamPolicy",
    "artifactregistry.repositories.setIamPolicy",
}

_ACCOUNT_VIEWER = frozenset(
    {
        "iam.serviceAccounts.get",
        "iam.serviceAccounts.getIamPolicy",
        "iam.serviceAccounts.list",
        "resourcemanager.projects.get",
    }
)
_ACCOUNT_ADMIN = _ACCOUNT_VIEWER | {
    "iam.serviceAccounts.create",
    "iam.serviceAccounts.delete",
    "iam.serviceAccounts.setIamPolicy",
}
_TOKENS = frozenset({"iam.serviceAccounts.getAccessToken", "iam.serviceAccounts.getOpenIdToken"})
_POOL_VIEWER = frozenset(
    {
        "iam.workloadIdentityPoolProviders.get",
        "iam.workloadIdentityPoolProviders.list",
        "iam.workloadIdentityPools.get",
        "iam.workloadIdentityPools.list",
    }
)
_POOL_ADMIN = _POOL_VIEWER | {
    "iam.workloadIdentityPoolProviders.create",
    "iam.workloadIdentityPoolProviders.delete",
    "iam.workloadIdentityPoolProviders.undelete",
    "iam.workloadIdentityPoolProviders.update",
    "iam.workloadIdentityPools.create",
    "iam.workloadIdentityPools.delete",
    "iam.workloadIdentityPools.undelete",
    "iam.workloadIdentityPools.update",
}
_ROLE_VIEWER = frozenset({"iam.roles.get", "iam.roles.list"})
_ROLE_ADMIN = _ROLE_VIEWER | {
    "iam.roles.create",
    "iam.roles.delete",
    "iam.roles.undelete",
    "iam.roles.update",
}
_PROJECT_ADMIN = frozenset(
    {
        "resourcemanager.projects.get",
        "resourcemanager.projects.getIamPolicy",
        "resourcemanager.projects.setIamPolicy",
    }
)
_LOGGING_VIEWER = frozenset({"logging.logEntries.list"})
_MONITORING_VIEWER = frozenset({"monitoring.timeSeries.list"})
_SERVICE_USAGE = frozenset({"serviceusage.services.get", "serviceusage.services.list"})
_SERVICE_USAGE_ADMIN = _SERVICE_USAGE | {
    "serviceusage.services.disable",
    "serviceusage.services.enable",
    "serviceusage.services.use",
}
_ACT_AS = frozenset({"iam.serviceAccounts.actAs"})

_ADMISSION = frozenset({"binaryauthorization.policy.get", "binaryauthorization.policy.update"})
_BUILD_VIEWER = frozenset({"cloudbuild.builds.get", "cloudbuild.builds.list"})
_BUILD_EDITOR = _BUILD_VIEWER | {"cloudbuild.builds.create", "cloudbuild.builds.update"}

# Source: https://cloud.google.com/storage/docs/access-control/iam-roles
_OBJECT_VIEWER = frozenset({"storage.objects.get", "storage.objects.list"})
_OBJECT_CREATOR = frozenset({"storage.objects.create"})
_OBJECT_USER = _OBJECT_VIEWER | _OBJECT_CREATOR | {"storage.objects.delete"}
_STORAGE_ADMIN = _OBJECT_USER | {
    "storage.buckets.create",
    "storage.buckets.get",
    "storage.buckets.getIamPolicy",
    "storage.buckets.list",
    "storage.buckets.setIamPolicy",
    "storage.buckets.update",
}

_MODEL_USER = frozenset({"aiplatform.endpoints.predict"})

_SECRET_ACCESSOR = frozenset({"secretmanager.versions.access"})
_SECRET_VIEWER = frozenset(
    {
        "secretmanager.secrets.get",
        "secretmanager.secrets.getIamPolicy",
        "secretmanager.secrets.list",
        "secretmanager.versions.get",
        "secretmanager.versions.list",
    }
)
_SECRET_ADMIN = (
    _SECRET_ACCESSOR
    | _SECRET_VIEWER
    | {
        "secretmanager.secrets.create",
        "secretmanager.secrets.delete",
        "secretmanager.secrets.setIamPolicy",
        "secretmanager.secrets.update",
        "secretmanager.versions.add",
        "secretmanager.versions.destroy",
        "secretmanager.versions.disable",
        "secretmanager.versions.enable",
    }
)

ROLES: dict[str, frozenset[str]] = {
    "roles/aiplatform.user": _MODEL_USER | {"resourcemanager.projects.get"},
    "roles/monitoring.viewer": _MONITORING_VIEWER,
    "roles/binaryauthorization.policyEditor": _ADMISSION | {"resourcemanager.projects.get"},
    "roles/cloudbuild.builds.editor": _BUILD_EDITOR | {"resourcemanager.projects.get"},
    "roles/cloudbuild.builds.viewer": _BUILD_VIEWER | {"resourcemanager.projects.get"},
    "roles/artifactregistry.admin": _AR_ADMIN,
    "roles/artifactregistry.reader": _READER,
    "roles/artifactregistry.repoAdmin": _REPO_ADMIN,
    "roles/artifactregistry.writer": _WRITER,
    "roles/iam.roleAdmin": _ROLE_ADMIN | {"resourcemanager.projects.get"},
    "roles/iam.roleViewer": _ROLE_VIEWER | {"resourcemanager.projects.get"},
    "roles/iam.serviceAccountAdmin": _ACCOUNT_ADMIN,
    "roles/iam.serviceAccountOpenIdTokenCreator": frozenset({"iam.serviceAccounts.getOpenIdToken"}),
    "roles/iam.serviceAccountTokenCreator": _TOKENS,
    "roles/iam.serviceAccountUser": _ACT_AS
    | {"iam.serviceAccounts.get", "iam.serviceAccounts.list", "resourcemanager.projects.get"},
    "roles/iam.serviceAccountViewer": _ACCOUNT_VIEWER,
    "roles/iam.workloadIdentityPoolAdmin": _POOL_ADMIN,
    "roles/iam.workloadIdentityPoolViewer": _POOL_VIEWER,
    "roles/iam.workloadIdentityUser": _TOKENS,
    "roles/logging.viewer": _LOGGING_VIEWER | {"resourcemanager.projects.get"},
    # An owner has every permission except to get tokens of service accounts.
    "roles/owner": (
        _RUN_ADMIN | _AR_ADMIN | _ACCOUNT_ADMIN | _POOL_ADMIN | _PROJECT_ADMIN | _LOGGING_VIEWER
    )
    | _ROLE_ADMIN
    | _MODEL_USER
    | _SECRET_ADMIN
    | _MONITORING_VIEWER
    | _SERVICE_USAGE_ADMIN
    | _ADMISSION
    | _BUILD_EDITOR
    | _STORAGE_ADMIN
    | _ACT_AS,
    "roles/resourcemanager.projectIamAdmin": _PROJECT_ADMIN,
    "roles/run.admin": _RUN_ADMIN,
    "roles/run.developer": _RUN_DEVELOPER,
    "roles/run.invoker": frozenset({"run.routes.invoke"}),
    "roles/run.servicesInvoker": frozenset({"run.routes.invoke"}),
    "roles/run.viewer": _RUN_VIEWER,
    "roles/secretmanager.admin": _SECRET_ADMIN,
    "roles/secretmanager.secretAccessor": _SECRET_ACCESSOR,
    "roles/secretmanager.secretVersionManager": frozenset(
        {
            "secretmanager.versions.add",
            "secretmanager.versions.destroy",
            "secretmanager.versions.disable",
            "secretmanager.versions.enable",
            "secretmanager.versions.get",
            "secretmanager.versions.list",
        }
    ),
    "roles/secretmanager.secretVersionAdder": frozenset({"secretmanager.versions.add"}),
    "roles/secretmanager.viewer": _SECRET_VIEWER,
    "roles/serviceusage.serviceUsageAdmin": _SERVICE_USAGE_ADMIN,
    "roles/serviceusage.serviceUsageConsumer": _SERVICE_USAGE | {"serviceusage.services.use"},
    "roles/serviceusage.serviceUsageViewer": _SERVICE_USAGE,
    "roles/storage.admin": _STORAGE_ADMIN,
    "roles/storage.objectCreator": _OBJECT_CREATOR,
    "roles/storage.objectUser": _OBJECT_USER,
    "roles/storage.objectViewer": _OBJECT_VIEWER,
}

PERMISSIONS = frozenset().union(*ROLES.values())
"""Every permission that exists here: testIamPermissions refuses others."""
