"""Deploy a commit's image as a revision without traffic, under a tag with its own URL.

A service's very first revision has no predecessor: Cloud Run gives it traffic at once.
"""

from __future__ import annotations

from scripts.command.call import Call
from scripts.command.options import Commit, Digest, WritingOptions
from scripts.release import changes
from scripts.service import provenance
from scripts.service.context import at_commit
from scripts.service.deploy import deploy, report
from scripts.service.regions import in_every_region


class Options(WritingOptions, frozen=True, kw_only=True):
    commit: Commit = "HEAD"
    digest: Digest = None


def run(options: Options, call: Call) -> int:
    with at_commit(options, call, options.commit) as (context, commit):
        context.confirm(f"Deploy {commit.short} to {context.where}, without traffic.")
        image = context.callees.read_beside(lambda: context.images.check(commit, options.digest))
        context.record.image = image
        signed = provenance.check(context, commit, image)
        done = deploy(context, commit, image)
        if not context.dry_run and not done.errors:
            name = next(iter(done.done.values())).revision
            in_every_region(
                context,
                lambda region: region.change(
                    lambda state: changes.claim(state, name, context.actor()), revisions=[name]
                ),
            ).check()
    return call.show(report(context, commit, done, signed), options.format)
