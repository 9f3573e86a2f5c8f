"""The name of an image in a registry, as a type."""

from __future__ import annotations

import re

import msgspec

_BY_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")


class ImageReference(msgspec.Struct, frozen=True, kw_only=True):
    """HOST/PATH, with a tag or a digest or both.

    Source of the grammar: https://pkg.go.dev/github.com/distribution/reference
    """

    host: str
    """"" if the text names none, as in "nginx:1.27"."""
    path: str
    tag: str = ""
    digest: str = ""
    """sha256:… or ""."""

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Read a reference. Any text is accepted, because other tools deploy images as well.

        Args:
            text: such as HOST/PROJECT/REPOSITORY/SERVICE@sha256:….
        """
        name, _, digest = text.partition("@")
        first, slash, rest = name.partition("/")
        is_host = slash and ("." in first or ":" in first or first == "localhost")
        host, path = (first, rest) if is_host else ("", name)
        folder, slash, last = path.rpartition("/")
        last, _, tag = last.partition(":")
        return cls(host=host, path=f"{folder}{slash}{last}", tag=tag, digest=digest)

    def __str__(self) -> str:
        name = f"{self.host}/{self.path}" if self.host else self.path
        tag = f":{self.tag}" if self.tag else ""
        return f"{name}{tag}{f'@{self.digest}' if self.digest else ''}"

    def by_digest(self, digest: str) -> ImageReference:
        """Return the image of this digest in the same repository."""
        return ImageReference(host=self.host, path=self.path, digest=digest)

    def by_tag(self, tag: str) -> ImageReference:
        """Return the image of this tag in the same repository."""
        return ImageReference(host=self.host, path=self.path, tag=tag)

    @property
    def is_by_digest(self) -> bool:
        """Whether it names the image by a digest, which no one can move, unlike a tag (I2)."""
        return bool(_BY_DIGEST.fullmatch(str(self)))

    @property
    def repository(self) -> ImageReference:
        """HOST/PATH alone."""
        return ImageReference(host=self.host, path=self.path)

    @property
    def short_digest(self) -> str:
        """The short digest: "sha256:0123456789ab"; the whole reference if it has none."""
        return self.digest[:19] or str(self)

    @property
    def name(self) -> str:
        """The last part of the path: "app"."""
        return self.path.rpartition("/")[2]

    @property
    def short(self) -> str:
        """The last part of the path and the short digest: "app@sha256:0123456789ab"."""
        return f"{self.name}@{self.short_digest}" if self.digest else str(self)


def bucket_of(project: str) -> str:
    """Return the bucket for the sources of builds: gcloud's own, so that there is only one.

    The word google may not be in the name of a bucket.
    Source: gcloud's googlecloudsdk/command_lib/builds/staging_bucket_util.py.
    """
    return f"{project.replace('google', 'elgoog')}_cloudbuild"
