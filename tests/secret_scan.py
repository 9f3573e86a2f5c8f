"""Look for secrets in every commit of a repository (`nox -s security`).

A secret that a later commit removed is still public. detect-secrets knows the formats; Google's are
added here. Its guesses (high entropy, "password = ...") are left out: in this repository they find
names of secrets and digests.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import RegexBasedDetector

_GUESSES = {
    "Base64HighEntropyString",
    "HexHighEntropyString",
    "KeywordDetector",
    "IPPublicDetector",
}

# Passwords in URLs that tests hold on purpose, and what the tests do with them.
ALLOWED = {
    "secret": "a remote's URL, whose password must not be in any output",
    "hunter2": "an example of a password, in an earlier test of this scan",
    "b": "a malformed URL for the fuzzer",
    "{port}": "a request with a forged host",
}


class GoogleDetector(RegexBasedDetector):
    """Google's keys and tokens, by their prefixes.

    Source: https://docs.cloud.google.com/docs/authentication/api-keys
    """

    secret_type = "Google credential"
    denylist = (
        re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"),  # an API key
        re.compile(r"\bGOCSPX-[0-9A-Za-z_-]{28}\b"),  # a client's secret
        re.compile(r"\bya29\.[0-9A-Za-z_-]{60,}"),  # an access token
        re.compile(r"\b1//0[0-9A-Za-z_-]{60,}"),  # a refresh token
    )


def found(repository: Path) -> Iterator[str]:
    """Yield "commit: file: kind" for each secret that a commit of any branch adds.

    The secret itself is not in the text: this output goes to logs.

    Args:
        repository: a git repository, which may be bare.

    Raises:
        subprocess.CalledProcessError: git cannot read the repository.
    """
    kinds = get_mapping_from_secret_type_to_class().values()
    detectors = [kind() for kind in kinds if kind.__name__ not in _GUESSES] + [GoogleDetector()]
    log = subprocess.run(
        ["git", "-C", str(repository), "log", "--all", "--patch", "--unified=0", "--no-renames",
         "--no-color", "--no-ext-diff", "--no-textconv", "--text", "--format=commit %H"],
        stdout=subprocess.PIPE, check=True,
    ).stdout.decode(errors="replace")  # fmt: skip
    commit = file = ""
    for line in log.split("\n"):
        if match := re.fullmatch(r"commit ([0-9a-f]{12})[0-9a-f]{28,}", line):
            commit = match[1]
        elif line.startswith("+++ "):
            file = line[4:].removeprefix("b/")
        elif line.startswith("+"):
            for detector in detectors:
                for secret in detector.analyze_string(line[1:]):
                    if secret not in ALLOWED:
                        yield f"{commit}: {file}: {detector.secret_type}"


def main() -> int:
    """Print what was found; return 1 if there is any."""
    repository = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    lines = list(found(repository))
    for line in lines:
        print(line)
    print(f"secrets in the history: {len(lines) or 'none'}")
    if lines:
        print("revoke each one first: removing it from the history does not make it secret again")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
