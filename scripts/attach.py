"""Attach a signed provenance to the images in the registry that it is about.

The build calls this after it signed what it built: `deploy` reads the provenance from the registry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from scripts.command.call import Call
from scripts.command.options import WritingOptions, option
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.config import pipelines
from scripts.config.image_reference import ImageReference
from scripts.config.pipelines import Pipeline
from scripts.errors import Failed, UsageError
from scripts.image import provenance
from scripts.service.context import Context

_LARGEST = 1 << 20  # bytes, as `deploy` reads them


class Options(WritingOptions, frozen=True, kw_only=True):
    bundle: Annotated[
        str, option("--bundle", metavar="FILE", help="the Sigstore bundle (JSON) about them")
    ]


def several(options: Options, call: Call) -> int:
    """Attach the bundle to every image that it names, of whatever service."""
    file = Path(options.bundle)
    try:
        with file.open("rb") as opened:
            contents = opened.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(f"--bundle {file}: {error.strerror}") from None
    if len(contents) > _LARGEST:
        raise UsageError(f"--bundle {file}: larger than {_LARGEST} bytes: not a bundle")
    try:
        images = provenance.subjects(contents)
    except Failed as failed:
        raise UsageError(f"--bundle {file}: {failed.message}") from None
    if not images:
        raise UsageError(f"--bundle {file}: it is about no image")
    known = [
        pipelines.load(call.root, name, options.env)
        for name in options.services or pipelines.having(call.root, options.env)
    ]
    # All of them are known before one is attached.
    attached, rows = [], []
    for image, pipeline in [(image, _of(image, known, file)) for image in images]:
        context = Context(options, call, pipeline)
        with context.progress.step("attach", image.short) as step:
            new = context.dry_run or context.images.attach(image, contents, provenance.PREDICATE)
            done = (
                "would be attached"
                if context.dry_run
                else "attached"
                if new
                else "was attached before"
            )
            step.done(f"the provenance {done}")
        attached.append({"image": str(image), "attached": new})
        rows.append([image.short, done])
    result = Result(
        data={"predicate": provenance.PREDICATE, "images": attached, "dry_run": options.dry_run},
        table=Table(columns=["IMAGE", "PROVENANCE"], rows=rows),
    )
    return call.show(result, options.format)


def _of(image: ImageReference, known: list[Pipeline], file: Path) -> Pipeline:
    """Return the service that an image is of.

    Raises:
        UsageError: it is of none.
    """
    for pipeline in known:
        ours = pipeline.repository
        below = f"{image.path}/".startswith(f"{ours.path}/")
        if image.is_by_digest and image.host == ours.host and below:
            return pipeline
    raise UsageError(
        f"--bundle {file}: it is about {image}, which is not an image of"
        f" {', '.join(pipeline.service for pipeline in known) or 'a service'}"
    )
