"""Artifact Registry as the local Cloud Run sees it: an OCI registry, and images read out of it.

`urls` says which requests are served, `responses` and `blob_responses` speak the wire format,
`models` behaves and knows no HTTP; `storage` is what lies on the disk, `uploads` what is still on
its way there. `artifacts` and `artifact_responses` are Artifact Registry's own API on top of it,
`repositories` what was created by it.
"""

from emulator.registry.artifact_responses import ArtifactResponses
from emulator.registry.artifacts import Artifacts
from emulator.registry.images import Image, ImageNotFound, WrongPlatform
from emulator.registry.models import Registry
from emulator.registry.repositories import Repositories

__all__ = [
    "ArtifactResponses",
    "Artifacts",
    "Image",
    "ImageNotFound",
    "Registry",
    "Repositories",
    "WrongPlatform",
]
