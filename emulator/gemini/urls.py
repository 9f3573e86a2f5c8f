"""The routes of Gemini's models.

Source: https://cloud.google.com/iam/docs/roles-permissions/aiplatform (the permission). Google's
libraries ask v1beta1.
"""

from __future__ import annotations

from emulator.gemini import responses
from emulator.permissions import OPEN, Asks, On
from emulator.routes import Route

_NAME = "projects/{project}/locations/{location}/publishers/{publisher}/models/{model}"
_VERSIONS = ("v1", "v1beta1")


def routes() -> list[Route]:
    """Return the routes of Gemini's models."""
    asks = Asks("aiplatform.endpoints.predict", On.PROJECT, f"//aiplatform.googleapis.com/{_NAME}")
    methods = {"generateContent": responses.generate, "streamGenerateContent": responses.stream}
    path = _NAME.replace("{model}", "{model:[^/:]+}")
    named = [
        Route("POST", f"/{version}/{path}:{method}", handler, asks)
        for version in _VERSIONS
        for method, handler in methods.items()
    ]
    return [*named, Route("POST", "/", responses.unnamed, OPEN)]
