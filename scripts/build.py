"""Build a commit's images and push them, tagged with the full commit SHA.

A service has one image, and one more for each folder that its manifest names (shipway/source.WORD).
An image that is in the registry is not built again.
"""

from __future__ import annotations

from scripts.command.call import Call
from scripts.command.options import Builder, Commit, WritingOptions
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.service.build import build, listed
from scripts.service.context import at_commit


class Options(WritingOptions, frozen=True, kw_only=True):
    commit: Commit = "HEAD"
    builder: Builder = None


def run(options: Options, call: Call) -> int:
    with at_commit(options, call, options.commit) as (context, commit):
        built = build(context, commit, options.builder)
        attested = [] if context.dry_run else context.images.attestations(built.image)
        names = {word: kept.name for word, kept in context.images.each().items()}
        digests = listed(context, built.images)
    service, new = context.pipeline.service, [] if context.dry_run else built.new
    result = Result(
        data={
            "service": service,
            "commit": commit.sha,
            "image": str(built.image),
            "repository": str(built.image.repository),
            "digest": built.image.digest,
            "built": bool(built.new),
            "attestations": attested,
            "images": [
                {"name": names[word], "image": str(image), "built": word in built.new}
                for word, image in built.images.items()
            ],
            "dry_run": context.dry_run,
        },
        table=Table(
            columns=["COMMIT", "IMAGE", "BUILT"],
            rows=[
                [
                    commit.short,
                    f"{names[word]}@{image.short_digest}",
                    "now" if word in built.new else "before",
                ]
                for word, image in built.images.items()
            ],
            notes=[
                *map(str, built.images.values()),
                *([f"attestations: {', '.join(attested)}"] if attested else []),
                *(["dry run: nothing was pushed"] if context.dry_run else []),
            ],
        ),
        outputs={
            "digests": digests,
            "services": service,
            "built": ",".join(names[word] for word in new),
            # Lines as sha256sum writes them, for the step that signs what this run built.
            "subjects": "\n".join(
                f"{image.digest.removeprefix('sha256:')}  {image.repository}"
                for image in (built.images[word] for word in new)
            ),
        },
    )
    return call.show(result, options.format)
