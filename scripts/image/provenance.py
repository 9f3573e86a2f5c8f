"""Check who built an image: the provenance that GitHub's build signed, with Sigstore's library.

Sources: https://docs.github.com/en/actions/concepts/security/artifact-attestations (what it signs),
https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md (the certificate's fields),
https://slsa.dev/spec/v1.1/verifying-artifacts (what to check). One bundle may be about several
images: https://github.com/actions/attest-build-provenance#identify-subjects-with-checksums-file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from scripts.config.image_reference import ImageReference
from scripts.config.workflows import BRANCH, BUILD, FOLDER, ISSUER
from scripts.errors import Failed, UsageError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.verify import Verifier

SIGNER = f"{FOLDER}/{BUILD}"
"""The workflow that builds and signs."""
PREDICATE = "https://slsa.dev/provenance/v1"

_STATEMENT = "application/vnd.in-toto+json"
_FIELDS = "1.3.6.1.4.1.57264.1."  # the certificate's own fields, by their last number
_TUF = "https://tuf-repo-cdn.sigstore.dev"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The repository that must have built an image.

    Attributes:
        name: OWNER/NAME at GitHub.
        repository_id: its number; "" if unknown. Numbers count, if known: names can be taken over.
        owner_id: its owner's number; "" if unknown.
    """

    name: str
    repository_id: str = ""
    owner_id: str = ""


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a signature's certificate, each as GitHub's token stated it; "" if absent."""

    signer: str = ""
    """The workflow file that signed, as a URL that ends with @ and its ref."""
    issuer: str = ""
    runner: str = ""
    repository: str = ""
    commit: str = ""
    ref: str = ""
    repository_id: str = ""
    owner_id: str = ""
    run: str = ""
    """The URL of the run."""

    @property
    def line(self) -> str:
        """The signature in one line."""
        return f"signed by {self.signer} for commit {self.commit[:7]} of {self.repository}"

    def problems(self, source: Source, commit: str) -> list[str]:
        """Return what differs from a build of the commit by the repository's own pipeline."""
        wanted = [
            ("issuer", self.issuer, ISSUER),
            ("signer", self.signer, f"{self.repository}/{SIGNER}@{BRANCH}"),
            ("runner", self.runner, "github-hosted"),
            ("branch", self.ref, BRANCH),
            ("commit", self.commit, commit),
        ]
        if source.repository_id and source.owner_id:
            wanted += [
                ("repository's number", self.repository_id, source.repository_id),
                ("owner's number", self.owner_id, source.owner_id),
            ]
        else:
            url = f"https://github.com/{source.name}".lower()
            wanted.append(("repository", self.repository.lower(), url))
        return [
            f"the {what} is {has or 'missing'}, not {value}"
            for what, has, value in wanted
            if has != value
        ]


def verify(
    bundle: bytes, verifier: Verifier, image: ImageReference, commit: str, source: Source
) -> Signed:
    """Check that a bundle is the provenance of an image that the source's pipeline built.

    Args:
        bundle: the Sigstore bundle. It may be anyone's.
        verifier: from `trusted`.
        image: the image by digest. The bundle must name it with its repository below the registry:
            the image of another service of the same commit does not count.
        commit: the full SHA that it must be built from.
        source: the repository that must have built it.

    Raises:
        Failed: it is not; the message says why.
    """
    from sigstore.models import Bundle

    policy = _Policy(source, commit)
    try:
        type_, payload = verifier.verify_dsse(Bundle.from_json(bundle), policy)
        about = _statement(type_, payload)
    except Failed:
        raise
    except Exception as error:  # hostile bytes: whatever goes wrong, nothing is proved
        first = " ".join(str(error).split())[:300]
        raise Failed(f"the signature is not valid: {first or type(error).__name__}") from None
    found = _subjects(about)
    if (_below_registry(image.path), image.digest) not in [
        (_below_registry(one.path), one.digest) for one in found
    ]:
        raise Failed(f"it is about {', '.join(map(str, found)) or 'no image'}, not about {image}")
    return policy.signed


class _Policy:
    """The rule for certificates, as `sigstore.verify.policy.VerificationPolicy` has it."""

    def __init__(self, source: Source, commit: str) -> None:
        self._source = source
        self._commit = commit
        self.signed = Signed()

    def verify(self, cert: Certificate) -> None:
        """Raise Failed if the certificate is for another build."""
        self.signed = _signed(cert)
        if problems := self.signed.problems(self._source, self._commit):
            raise Failed(f"{self.signed.line}: {'; '.join(problems)}")


def _signed(cert: Certificate) -> Signed:
    from cryptography import x509
    from cryptography.hazmat import asn1

    fields = {
        one.oid.dotted_string.removeprefix(_FIELDS): one.value
        for one in cert.extensions
        if one.oid.dotted_string.startswith(_FIELDS)
    }

    def text(number: str) -> str:
        field = fields.get(number)
        if not isinstance(field, x509.UnrecognizedExtension):
            return ""
        value: str = asn1.decode_der(str, field.value)
        return value

    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return Signed(
        signer=uris[0] if len(uris) == 1 else "",
        issuer=text("8"),
        runner=text("11"),
        repository=text("12"),
        commit=text("13"),
        ref=text("14"),
        repository_id=text("15"),
        owner_id=text("17"),
        run=text("21"),
    )


def subjects(bundle: bytes) -> list[ImageReference]:
    """Return the images that a bundle is about, by digest, without checking its signature.

    Raises:
        Failed: it is not a bundle of provenance.
    """
    import base64

    try:
        envelope = json.loads(bundle)["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        about = _statement(envelope["payloadType"], payload)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Failed(f"not a Sigstore bundle with a statement: {type(error).__name__}") from None
    return _subjects(about)


def _statement(type_: str, payload: bytes) -> dict[str, Any]:
    about = json.loads(payload)
    if type_ != _STATEMENT or not isinstance(about, dict):
        raise Failed(f"it signs {type_}, not a statement about an image")
    return about


def _subjects(about: dict[str, Any]) -> list[ImageReference]:
    """Return the images that a statement is about; refuse one that is not provenance."""
    if about.get("predicateType") != PREDICATE:
        raise Failed(f"it is a {about.get('predicateType')}, not {PREDICATE}")
    listed = about.get("subject")
    return [
        ImageReference.parse(f"{one.get('name')}@sha256:{one['digest'].get('sha256')}")
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and isinstance(one.get("digest"), dict)
    ]


def _below_registry(path: str) -> str:
    """Return a repository's path without PROJECT/REPOSITORY: copies of a registry differ there."""
    return "/".join(path.split("/")[2:])


def trusted(trust: Path | None, cache: Path) -> Verifier:
    """Return the verifier that trusts one Sigstore instance.

    Args:
        trust: the file of its trusted root, which needs no network; None for the public instance.
        cache: a folder for what the public instance publishes about itself.

    Raises:
        UsageError: the packages are not installed, or the file is missing or wrong.
        Failed: the public instance does not answer, or its answer does not verify.
    """
    try:
        from sigstore.models import TrustedRoot
        from sigstore.verify import Verifier
    except ImportError:
        raise UsageError(
            "the packages that check provenance are not installed",
            "./ship help deploy installs them; then run the same command again",
        ) from None
    if trust is not None:
        try:
            return Verifier(trusted_root=TrustedRoot.from_file(str(trust)))
        except OSError as error:
            raise UsageError(f"trust: {trust.name}: {error.strerror}") from None
        except Exception as error:  # pydantic's, sigstore's, cryptography's: one clear error
            first = " ".join(str(error).split())[:200]
            raise UsageError(
                f"trust: {trust.name} is not a trusted root: {first}",
                "gh attestation trusted-root prints some, one a line",
            ) from None
    try:
        with _folders(cache):
            return Verifier.production()
    except Exception as error:  # TUF's and the network's: without the root nothing is proved
        raise Failed(
            f"cannot read from {_TUF} whose signatures to trust: {error}",
            "try again. Traffic is unchanged, and ./ship rollback needs no provenance",
        ) from None


@contextmanager
def _folders(cache: Path) -> Iterator[None]:
    """Let Sigstore's library write below `cache`, not into the user's home."""
    names = ("XDG_DATA_HOME", "XDG_CACHE_HOME")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(cache)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
