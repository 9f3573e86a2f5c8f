"""Build a commit's image and push it, tagged with the full commit SHA.

A commit whose image is in the registry is not built again.
"""

from __future__ import annotations

from scripts.command.call import Call
from scripts.command.options import Builder, Commit, WritingOptions
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.service.build import build
from scripts.service.context import at_commit


class Options(WritingOptions, frozen=True, kw_only=True):
    commit: Commit = "HEAD"
    builder: Builder = None


def run(options: Options, call: Call) -> int:
    with at_commit(options, call, options.commit) as (context, commit):
        built = build(context, commit, options.builder)
        attested = [] if context.dry_run else context.images.attestations(built.image)
    service, digest = context.pipeline.service, built.image.digest
    result = Result(
        data={
            "service": service,
            "commit": commit.sha,
            "image": str(built.image),
            "repository": str(built.image.repository),
            "digest": digest,
            "built": built.new,
            "attestations": attested,
            "dry_run": context.dry_run,
        },
        table=Table(
            columns=["COMMIT", "IMAGE", "BUILT"],
            rows=[[commit.short, built.image.short, "now" if built.new else "before"]],
            notes=[
                str(built.image),
                *([f"attestations: {', '.join(attested)}"] if attested else []),
                *(["dry run: nothing was pushed"] if context.dry_run else []),
            ],
        ),
        outputs={
            "digests": f"{service}={digest}",
            "services": service,
            "built": service if built.new and not context.dry_run else "",
            # A line as sha256sum writes it, for the step that signs what this run built.
            "subjects": f"{digest.removeprefix('sha256:')}  {built.image.repository}"
            if built.new and not context.dry_run
            else "",
        },
    )
    return call.show(result, options.format)
