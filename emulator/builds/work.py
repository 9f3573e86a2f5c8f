"""The work of a build: fetch its source, run its steps, push its images, and write its log."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from emulator.builds import engine, steps
from emulator.builds.errors import BuildError, Failed, UsageError
from emulator.builds.models import Cancelled, Handle, log_of
from emulator.builds.packing import pack
from emulator.builds.packing.dockerfile import DockerfileError
from emulator.builds.packing.pack import PackedImage
from emulator.builds.packing.tree import FIXED_TIME
from emulator.builds.platform import host_platform
from emulator.builds.push import Pusher, readable
from emulator.builds.steps import DockerBuild
from emulator.cloud_storage.models import Buckets
from emulator.errors import ApiError
from emulator.registry.errors import OciError

Document = dict[str, Any]

_CREATED = "org.opencontainers.image.created"
_LARGEST = 2 << 30  # bytes of a source, unpacked
_MOST = 100_000  # files of a source
_LONGEST_HEADER = 256 << 10  # bytes


class Work:
    """Does the work of builds.

    Args:
        folder: A folder for sources; emptied.
        cache: The folder for layers and dependencies, which later builds use again.
        buckets: Cloud Storage.
        pusher: Pushes images.
        may: `may(email, permission, bucket)` is whether an account has a permission on a bucket.
    """

    def __init__(
        self,
        folder: Path,
        cache: Path,
        buckets: Buckets,
        pusher: Pusher,
        may: Callable[[str, str, str], bool],
    ) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._cache = cache
        self._buckets = buckets
        self._pusher = pusher
        self._may = may

    def run(self, build: Document, handle: Handle) -> Document:
        """Do what a build asks for; return the fields of its end."""
        log = _Log(self._buckets, build, handle, self._may)
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            try:
                return _Run(self, build, Path(folder), log, handle).run()
            except BuildError as error:
                handle.check()  # a program that was ended fails
                return log.failure(error)
            except ApiError as error:
                return log.failure(Failed(error.message))
            except OciError as error:
                return log.failure(Failed(f"the registry refuses the image: {error.message}"))


class _Log:
    """A build's log: an object of Cloud Storage that grows."""

    def __init__(
        self,
        buckets: Buckets,
        build: Document,
        handle: Handle,
        may: Callable[[str, str, str], bool],
    ) -> None:
        self._buckets = buckets
        self._place = log_of(build)
        self._handle = handle
        account = account_of(build)
        self._is_written = not account or may(account, "storage.objects.create", self._place[0])
        self.say(f'starting build "{build["id"]}"\n')

    def say(self, line: str) -> None:
        """Write a line; raises Cancelled if the build is to end."""
        self._write(line)
        self._handle.check()

    def _write(self, text: str) -> None:
        if self._is_written and self._buckets.exists(self._place[0]):
            self._buckets.append(*self._place, f"{text}\n".encode())

    def failure(self, error: BuildError) -> Document:
        """Write why a build failed; return the fields of its end."""
        self._write("ERROR\nERROR: " + "\n".join(error.lines))
        detail = error.message.partition("\n")[0]
        return {
            "status": "FAILURE",
            "statusDetail": detail,
            "failureInfo": {"type": "USER_BUILD_STEP", "detail": detail},
        }


def account_of(build: Document) -> str:
    """Return the e-mail of the account that a build names; "" for the default one."""
    return str(build.get("serviceAccount", "")).rpartition("/")[2]


class _Run:
    """One build that runs."""

    def __init__(
        self, work: Work, build: Document, folder: Path, log: _Log, handle: Handle
    ) -> None:
        self._work = work
        self._build = build
        self._folder = folder
        self._log = log
        self._handle = handle
        self._built: dict[str, PackedImage | str] = {}
        """The name of an image -> the image, or the ID of one that the Docker engine has."""
        self._digests: dict[str, str] = {}

    def run(self) -> Document:
        """Run the build; raises BuildError, ApiError, OciError, Cancelled."""
        todo = steps.read(self._build)
        self._fetch()
        self._log.say("BUILD")
        try:
            for step in todo:
                self._handle.check()
                if isinstance(step, DockerBuild):
                    image = self._image(step)
                    self._built |= dict.fromkeys(step.tags, image)
                else:
                    self._push(step.image)
            self._log.say("PUSH")
            for name in steps.images(self._build):
                self._push(name)
        finally:
            engine.forget({image for image in self._built.values() if isinstance(image, str)})
        self._log.say("DONE")
        images = [{"name": name, "digest": digest} for name, digest in self._digests.items()]
        digests = ["" for _ in todo]
        return {"status": "SUCCESS", "results": {"images": images, "buildStepImages": digests}}

    def _fetch(self) -> None:
        source = self._build.get("source", {}).get("storageSource")
        if not source:
            return
        self._log.say("FETCHSOURCE")
        bucket, name = source.get("bucket", ""), source.get("object", "")
        generation = source.get("generation", "")
        account = account_of(self._build)
        if account and not self._work._may(account, "storage.objects.get", bucket):
            raise Failed(
                f"{account} does not have storage.objects.get access to the Google Cloud Storage"
                f" object gs://{bucket}/{name}."
            )
        stored = self._work._buckets.object(bucket, name, generation)
        shown = f"#{generation}" if generation else ""
        self._log.say(f"Fetching storage object: gs://{bucket}/{name}{shown}")
        _unpack(stored.file, self._folder, self._handle)

    def _image(self, step: DockerBuild) -> PackedImage | str:
        context = _inside(self._folder, step.folder, step.context)
        dockerfile = (
            _inside(self._folder, step.folder, step.file) if step.file else context / "Dockerfile"
        )
        if not context.is_dir():
            raise UsageError(f"{step.context}: there is no such folder to build from")
        if not dockerfile.is_file():
            named = dockerfile.relative_to(self._folder.resolve())
            raise UsageError(f"{named}: there is no such Dockerfile")
        contexts = {
            name: _inside(self._folder, step.folder, path) for name, path in step.contexts.items()
        }
        for name, path in contexts.items():
            if not path.is_dir():
                raise UsageError(f"--build-context {name}: there is no such folder")
        if step.target:
            reason = f"--target {step.target}"
            if not engine.answers():
                raise UsageError(f"{reason} needs Docker", "start Docker, or leave it out")
        else:
            try:
                return self._packed(step, context, contexts, dockerfile)
            except DockerfileError as refused:
                if not engine.answers():
                    raise _without_docker(refused) from None
                if secrets := [p for p in refused.problems if p.with_docker_too]:
                    raise DockerfileError(*secrets) from None
                first, *more = refused.problems
                reason = f"{first.what}{f' (and {len(more)} more)' if more else ''}"
        self._log.say(f"Docker builds this image, because of {reason}")
        return engine.build(step, context, contexts, dockerfile, self._log.say, self._handle)

    def _packed(
        self, step: DockerBuild, context: Path, contexts: dict[str, Path], dockerfile: Path
    ) -> PackedImage:
        return pack.pack(
            context,
            contexts=contexts,
            dockerfile=dockerfile,
            file=str(dockerfile.relative_to(self._folder.resolve())),
            arguments=step.arguments,
            created=_time(step.labels.get(_CREATED, "")),
            platform=step.platform or host_platform(),
            cache=self._work._cache,
            labels=step.labels,
            progress=self._log.say,
            ending=self._handle.ending,
        )

    def _push(self, name: str) -> None:
        """Push one image of the build, once."""
        if name in self._digests:
            return
        image = self._built.get(name)
        if image is None:
            raise Failed(f"an image does not exist locally with the tag: {name}")
        self._log.say(f"Pushing {name}")
        account = account_of(self._build)
        if isinstance(image, str):
            digest = self._work._pusher.push_from_engine(image, name, account, self._log.say)
        else:
            digest = self._work._pusher.push(image, name, account, self._log.say)
        self._digests[name] = digest


def _without_docker(refused: DockerfileError) -> UsageError:
    """Return the error for a Dockerfile that only Docker builds, where there is none."""
    hint = f"{refused.hint}; or start Docker, which then builds the image"
    if not refused.hint:
        hint = "change this, or start Docker, which then builds the image"
    return UsageError(refused.message, hint, evidence=refused.evidence)


def _time(created: str) -> int:
    """Return the time that an image gives for itself, from its label."""
    try:
        return int(datetime.fromisoformat(created).timestamp())
    except ValueError:
        return FIXED_TIME


def _inside(folder: Path, *parts: str) -> Path:
    """Return a path in a source; raises UsageError if it leads outside."""
    top = folder.resolve()
    path = top.joinpath(*(part.lstrip("/") if part.startswith("/") else part for part in parts))
    path = path.resolve()
    if not path.is_relative_to(top):
        raise UsageError(f"{'/'.join(parts)} is outside the source")
    return path


def _unpack(archive: Path, folder: Path, handle: Handle) -> None:
    """Unpack a source, a tar file compressed with gzip or a zip file; raises Failed."""
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, folder)
            return
        with archive.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            plain = gzip.GzipFile(fileobj=file) if compressed else file
            _untar(_Headers(plain), folder.resolve(), handle)
    except (Cancelled, Failed):
        raise
    except Exception as error:  # tarfile, zipfile and zlib raise many types
        raise Failed(f"the source cannot be unpacked: {error}") from None


class _Headers:
    """A tar file, of which tarfile reads each header at once, and the contents in small pieces."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file
        self.tell, self.close = file.tell, file.close

    def seek(self, to: int) -> int:
        if to > 2 * _LARGEST:  # of a sparse file, the size says nothing about the archive
            raise _too_much()
        return self._file.seek(to)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise Failed("the source has a file with too long a header")
        return self._file.read(size)


def _untar(file: _Headers, folder: Path, handle: Handle) -> None:
    with tarfile.open(fileobj=file, mode="r:") as tar:  # type: ignore[call-overload]  # typeshed asks for methods that "r:" does not call

        def checked() -> Iterator[tarfile.TarInfo]:
            size = 0
            for number, member in enumerate(tar, 1):
                handle.check()
                if member.size < 0:  # tarfile would go back for ever
                    raise Failed("the source has a file of a negative size")
                size += member.size
                _check_size(number, size)
                _check_place(member, folder)
                yield member

        # A second look, which Python has from 3.11.4 on.
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        tar.extractall(folder, checked())  # noqa: S202  (checked)


def _check_place(member: tarfile.TarInfo, folder: Path) -> None:
    """Raise Failed for a member that is outside the source, or leads there."""
    paths = [member.name]
    if member.issym():
        paths.append(os.path.join(os.path.dirname(member.name), member.linkname))
    elif member.islnk():
        paths.append(member.linkname)
    elif not (member.isreg() or member.isdir()):
        raise Failed(f"{member.name} in the source is neither a file nor a folder")
    if not all(Path(os.path.realpath(folder / path)).is_relative_to(folder) for path in paths):
        raise Failed(f"{member.name} in the source leads outside of it")


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        _check_size(len(members), sum(member.file_size for member in members))
        for member in members:
            place = Path(file.extract(member, folder))
            if (member.external_attr >> 16) & 0o111 and place.is_file():
                place.chmod(0o755)


def _check_size(number: int, size: int) -> None:
    if number > _MOST or size > _LARGEST:
        raise _too_much()


def _too_much() -> Failed:
    return Failed(f"the source has more than {_MOST} files or {readable(_LARGEST)}")
