"""A small application like the sample, and the contents of an image packed from it."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emulator.builds.packing.pack import PackedImage, pack
from emulator.builds.platform import host_platform

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
DOCKERFILE = f"""\
FROM python:{PYTHON}-slim-trixie AS dependencies
WORKDIR /build
COPY requirements.txt ./
COPY wheels/ /wheels/
RUN --mount=type=cache,target=/root/.cache/pip \\
    pip install --no-index --find-links=/wheels --target=/deps -r requirements.txt

FROM python:{PYTHON}-slim-trixie
COPY --from=dependencies /deps /deps
ENV PYTHONPATH=/deps \\
    GREETING="hello there"
WORKDIR /srv
COPY main.py ./
USER 65532:65532
EXPOSE 8080
ARG COMMIT_SHA=unknown
ENV COMMIT_SHA=$COMMIT_SHA
CMD ["python", "main.py"]
"""


def write_wheel(folder: Path, name: str = "demo", version: str = "1.0") -> None:
    """Write a wheel with a package, some code to compile and a script."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"VERSION = {version!r}\nNAMES = {{'b', 'a', 'c'}}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name}-run = {name}:main\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(zipfile.ZipInfo(path), text)


def write_app(context: Path, dockerfile: str = DOCKERFILE) -> Path:
    """Write the application's folder."""
    context.mkdir(parents=True, exist_ok=True)
    write_wheel(context / "wheels")
    (context / "requirements.txt").write_text("demo==1.0\n")
    (context / "main.py").write_text("print('one')\n")
    (context / "Dockerfile").write_text(dockerfile)
    return context


def packed(
    context: Path,
    cache: Path,
    *,
    commit: str = "a" * 40,
    labels: dict[str, str] | None = None,
    progress: Callable[[str], None] = lambda _line: None,
    platform: str | None = None,
) -> PackedImage:
    return pack(
        context,
        contexts={},
        dockerfile=context / "Dockerfile",
        file=f"{context.name}/Dockerfile",
        arguments={"COMMIT_SHA": commit},
        created=1_700_000_000,
        platform=platform or host_platform(),
        cache=cache,
        labels=labels or {},
        progress=progress,
    )


def config_of(image: PackedImage) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(image.config)
    return config


def members(image: PackedImage) -> dict[str, tarfile.TarInfo]:
    """Return the members of all layers together, later ones over earlier ones."""
    found = {}
    for layer in image.layers:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer.path.read_bytes()))) as tar:
            found |= {member.name: member for member in tar}
    return found


def contents(image: PackedImage, path: str) -> bytes:
    for layer in reversed(image.layers):
        with tarfile.open(layer.path) as tar:
            try:
                file = tar.extractfile(path)
            except KeyError:
                continue
            assert file is not None
            return file.read()
    raise AssertionError(f"{path} is in no layer")
