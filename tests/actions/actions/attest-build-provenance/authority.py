"""A test authority: it signs provenance as GitHub and Sigstore do, with keys of its own.

Its certificates have a timestamp of a certificate log, and its bundles an entry of a transparency
log with inclusion proof, checkpoint and promise: everything that Sigstore's library checks. Each
log has one entry. `trusted_root` is what makes a verifier trust it. Nothing else does.

    python authority.py FOLDER CHECKSUMS     (action.yml calls this)
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_FIELDS = "1.3.6.1.4.1.57264.1."
_SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_STATEMENT = "application/vnd.in-toto+json"
_LOG = "log.example"
PREDICATE = "https://slsa.dev/provenance/v1"


class Authority:
    """One authority: a certificate authority and two logs.

    Args:
        seed: the same seed gives the same keys.
    """

    def __init__(self, seed: str = "one") -> None:
        self._keys = {name: _key(f"{seed}/{name}") for name in ("ca", "certificates", "log")}
        now = datetime.now(UTC)
        self._start = now - timedelta(days=1)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test authority {seed}")])
        key = self._keys["ca"]
        self._ca = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(self._start)
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .sign(key, hashes.SHA256())
        )

    def trusted_root(self) -> dict[str, Any]:
        """Return the trusted root, as `gh attestation trusted-root` prints one."""
        valid = {"start": self._start.strftime("%Y-%m-%dT%H:%M:%SZ")}

        def log(name: str) -> dict[str, Any]:
            key = {
                "rawBytes": _b64(_der(self._keys[name])),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": valid,
            }
            return {
                "baseUrl": f"https://{_LOG}",
                "hashAlgorithm": "SHA2_256",
                "publicKey": key,
                "logId": {"keyId": _b64(_id(self._keys[name]))},
            }

        certificate = {"rawBytes": _b64(self._ca.public_bytes(serialization.Encoding.DER))}
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log("log")],
            "ctlogs": [log("certificates")],
            "certificateAuthorities": [
                {
                    "subject": {"organization": "example", "commonName": "test authority"},
                    "uri": "https://ca.example",
                    "certChain": {"certificates": [certificate]},
                    "validFor": valid,
                }
            ],
            "timestampAuthorities": [],
        }

    def bundle(
        self, images: Mapping[str, str], commit: str, /, *, predicate: str = PREDICATE,
        **claims: str,
    ) -> dict[str, Any]:  # fmt: skip
        """Sign the provenance of images.

        Args:
            images: the repository of each image -> its digest.
            commit: the full SHA.
            predicate: the predicate type.
            claims: fields of the certificate that differ from those of `claims_of`.
        """
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [
                {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}
                for name, digest in images.items()
            ],
            "predicateType": predicate,
            "predicate": {},
        }
        payload = json.dumps(statement).encode()
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate(key, {**claims_of(commit), **claims})
        pae = f"DSSEv1 {len(_STATEMENT)} {_STATEMENT} {len(payload)} ".encode() + payload
        signature = _b64(_sign(key, pae))
        envelope = {
            "payload": _b64(payload),
            "payloadType": _STATEMENT,
            "signatures": [{"sig": signature}],
        }
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        entry = self._entry(envelope, payload, signature, _b64(pem))
        der = certificate.public_bytes(serialization.Encoding.DER)
        return {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": _b64(der)},
                "tlogEntries": [entry],
            },
            "dsseEnvelope": envelope,
        }

    def _certificate(
        self, key: ec.EllipticCurvePrivateKey, claims: dict[str, str]
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(self._ca.subject, x509.Name([]), key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(minutes=9))
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._keys["ca"].public_key()),
                False,
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(claims["signer"])]),
                critical=True,
            )
        )
        for name, number in _NUMBERS.items():
            oid = x509.ObjectIdentifier(_FIELDS + number)
            value = asn1.encode_der(claims[name])
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), False)
        unlogged = builder.sign(self._keys["ca"], hashes.SHA256())
        # RFC 6962, 3.2: what the log signs is the certificate without the list of timestamps.
        tbs = unlogged.tbs_certificate_bytes
        time = int(now.timestamp() * 1000)
        signed = struct.pack("!BBQH", 0, 0, time, 1) + _id(self._keys["ca"])
        signed += len(tbs).to_bytes(3, "big") + tbs + b"\0\0"
        signature = _sign(self._keys["certificates"], signed)
        one = b"\0" + _id(self._keys["certificates"]) + struct.pack("!QHBB", time, 0, 4, 3)
        one += len(signature).to_bytes(2, "big") + signature
        listed = len(one).to_bytes(2, "big") + one
        value = asn1.encode_der(len(listed).to_bytes(2, "big") + listed)
        timestamps = x509.UnrecognizedExtension(_SCT_LIST, value)
        return builder.add_extension(timestamps, False).sign(self._keys["ca"], hashes.SHA256())

    def _entry(
        self, envelope: dict[str, Any], payload: bytes, signature: str, verifier: str
    ) -> dict[str, Any]:
        """Return the transparency log's entry, of kind dsse as GitHub's are."""
        log = self._keys["log"]
        body = _canonical(
            {
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "envelopeHash": _hash(json.dumps(envelope).encode()),
                    "payloadHash": _hash(payload),
                    "signatures": [{"signature": signature, "verifier": verifier}],
                },
            }
        )
        time = int(datetime.now(UTC).timestamp())
        promise = {
            "body": _b64(body), "integratedTime": time, "logID": _id(log).hex(), "logIndex": 0,
        }  # fmt: skip
        root = _b64(hashlib.sha256(b"\0" + body).digest())
        note = f"{_LOG} - 1\n1\n{root}\n"
        signed = _b64(_id(log)[:4] + _sign(log, note.encode()))
        return {
            "logIndex": "0",
            "logId": {"keyId": _b64(_id(log))},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(time),
            "inclusionPromise": {"signedEntryTimestamp": _b64(_sign(log, _canonical(promise)))},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": root,
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n\u2014 {_LOG} {signed}\n"},
            },
            "canonicalizedBody": _b64(body),
        }


_NUMBERS = {
    "issuer": "8", "runner": "11", "repository": "12", "commit": "13", "ref": "14",
    "repository_id": "15", "owner_id": "17", "run": "21",
}  # fmt: skip


def claims_of(commit: str, name: str = "acme/shop") -> dict[str, str]:
    """Return what GitHub states about a job of build.yml on main."""
    url = f"https://github.com/{name}"
    return {
        "signer": f"{url}/.github/workflows/build.yml@refs/heads/main",
        "issuer": "https://token.actions.githubusercontent.com",
        "runner": "github-hosted",
        "repository": url,
        "commit": commit,
        "ref": "refs/heads/main",
        "repository_id": "2002",
        "owner_id": "1001",
        "run": f"{url}/actions/runs/1/attempts/1",
    }


def _usage(**given: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: given.get(name, False) for name in names})


def _key(seed: str) -> ec.EllipticCurvePrivateKey:
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest(), "big") >> 8
    return ec.derive_private_key(number, ec.SECP256R1())


def _sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


def _id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(_der(key)).digest()


def _hash(contents: bytes) -> dict[str, str]:
    return {"algorithm": "sha256", "value": hashlib.sha256(contents).hexdigest()}


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _b64(contents: bytes) -> str:
    return b64encode(contents).decode()


def main(folder: Path, checksums: Path) -> None:
    """Write `bundle.json` and `trusted_root.json` of a job of GitHub Actions.

    Args:
        folder: where to.
        checksums: a file in the format of sha256sum.
    """
    pairs = [line.split("  ") for line in checksums.read_text().splitlines()]
    images = {name: f"sha256:{digest}" for digest, name in pairs}
    commit, name = os.environ["GITHUB_SHA"], os.environ["GITHUB_REPOSITORY"]
    authority = Authority()
    claims = claims_of(commit, name)
    (folder / "bundle.json").write_text(json.dumps(authority.bundle(images, commit, **claims)))
    (folder / "trusted_root.json").write_text(json.dumps(authority.trusted_root()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
