"""An example repository with its environments, independent of pipelines/."""

from __future__ import annotations

import tempfile
from pathlib import Path

from emulator.names import project_number
from scripts.config import pipelines, relations, workflows
from scripts.config.pipelines import Pipeline
from scripts.setup import permissions
from scripts.setup.identity_provider import Repository
from scripts.setup.permissions import Federation

REPOSITORY = Repository(owner="acme", owner_id=42, name="app", repository_id=4711)
NUMBERS = {p: project_number(p) for p in ("acme-ops", "acme-staging", "acme-prod")}

_MANIFEST = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: {name}
spec:
  template:
    spec:
      containers:
        - image: app
"""
_ENVIRONMENT = """
project: {project}
regions: [us-central1]
registry: us-central1-docker.pkg.dev/acme-ops/services
access: {access}
{after}
overlay:
  spec:
    template:
      spec:
        serviceAccountName: app-runtime@{project}.iam.gserviceaccount.com
"""


def pipeline(env: str, access: str = "public") -> Pipeline:
    """Return the example's service in one environment."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), "app", access)
        return pipelines.load(Path(folder), "app", env)


def planned(
    env: str, issuer: str = workflows.ISSUER, access: str = "public", *, calls: bool = False
) -> Federation:
    """Return the planned access of one environment of the example.

    With `calls`, the service calls another one, ai, which has the same access.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write(root, "app", access)
        if calls:
            _write(root, "ai", access)
            (root / relations.FILE).write_text("calls: {app: [ai]}")
        made = pipelines.load(root, "app", env)
        earlier = pipelines.earlier([made])
        return permissions.plan(REPOSITORY, [made], earlier, NUMBERS, issuer=issuer)


def _write(root: Path, name: str, access: str) -> None:
    """Write the files of a service in staging and production."""
    files = root / "pipelines" / name
    files.mkdir(parents=True)
    (files / "service.yaml").write_text(_MANIFEST.format(name=name))
    (files / "smoke.yaml").write_text("[]")
    for env, project, after in (
        ("staging", "acme-staging", ""),
        ("production", "acme-prod", "after: staging"),
    ):
        text = _ENVIRONMENT.format(project=project, access=access, after=after)
        (files / f"{env}.yaml").write_text(text)
