"""Attach a signed provenance to an image in the registry.

The build calls this after it signed what it built: `deploy` reads the provenance from the registry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from scripts.command import values
from scripts.command.call import Call
from scripts.command.options import WritingOptions, option
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.errors import Failed, UsageError
from scripts.image import provenance
from scripts.service.context import Context

_LARGEST = 1 << 20  # bytes, as `deploy` reads them


class Options(WritingOptions, frozen=True, kw_only=True):
    digest: Annotated[
        dict[str, str],
        option(
            "--digest",
            parse=values.image_digests,
            metavar="DIGEST",
            help="the image: sha256:…, or SERVICE=sha256:…,… for several",
        ),
    ]
    bundle: Annotated[
        str, option("--bundle", metavar="FILE", help="the Sigstore bundle (JSON) about it")
    ]


def run(options: Options, call: Call) -> int:
    context = Context(options, call)
    digest = values.digests_of(
        options.digest, context.pipeline.service, [context.pipeline.service]
    )[context.pipeline.service]
    file = Path(options.bundle)
    try:
        with file.open("rb") as opened:
            contents = opened.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(f"--bundle {file}: {error.strerror}") from None
    if len(contents) > _LARGEST:
        raise UsageError(f"--bundle {file}: larger than {_LARGEST} bytes: not a bundle")
    try:
        predicate = provenance.subject(contents, digest)
    except Failed as failed:
        raise UsageError(f"--bundle {file}: {failed.message}") from None
    image = context.images.repository.by_digest(digest)
    with context.progress.step("attach", image.short) as step:
        new = context.dry_run or context.images.attach(image, contents, predicate)
        done = (
            "would be attached" if context.dry_run else "attached" if new else "was attached before"
        )
        step.done(f"the provenance {done}")
    result = Result(
        data={
            "image": str(image),
            "predicate": predicate,
            "attached": new,
            "dry_run": context.dry_run,
        },
        table=Table(columns=["IMAGE", "PROVENANCE"], rows=[[image.short, done]]),
    )
    return call.show(result, options.format)
