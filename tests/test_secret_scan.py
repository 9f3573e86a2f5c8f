"""The scan of the history finds secrets, removed ones included, and never prints them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.conftest import ROOT

# Put together here, so that the scan of this repository's own history does not find them.
TOKEN = "ghp_" + "a1B2c3D4e5F6" * 3
API_KEY = "AIza" + "Sy0-_aB1c2D" * 3 + "9z"
CLIENT = "GOCSPX-" + "aB1c2D3" * 4
PASSWORD = "https://user:" + "s3same-open" + "@example.com"
ACCESS = "ya29." + "a0AfB_by-C" * 7


def key() -> str:
    return (
        ed25519.Ed25519PrivateKey.generate()
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


def git(folder: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *words],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip


def scan(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.secret_scan", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_secret_is_found_on_any_branch_also_after_its_removal(tmp_path: Path) -> None:
    git(tmp_path, "init", "--initial-branch=main")
    (tmp_path / "fine.txt").write_text("https://user:secret@example.com\nghp_short\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--message=fine")
    ended = scan(tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "secrets in the history: none\n")

    git(tmp_path, "switch", "--create", "side")
    secret = {
        "key.json": key().replace("\n", "\\n"),
        "token.py": TOKEN,
        "google.env": API_KEY,
        "client.yaml": CLIENT,
        "access.log": ACCESS,
        "url": PASSWORD,
    }
    for name, text in secret.items():
        (tmp_path / name).write_text(f'"{text}"\n')
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--message=leak")
    git(tmp_path, "rm", *secret)
    git(tmp_path, "commit", "--message=remove it")
    git(tmp_path, "switch", "main")
    ended = scan(tmp_path)
    assert ended.returncode == 1, ended.stderr
    for name, text in secret.items():
        assert f": {name}: " in ended.stdout
        assert text not in ended.stdout + ended.stderr
    assert "secrets in the history: 6" in ended.stdout
