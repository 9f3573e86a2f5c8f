"""Show how the files differ from the live service; change nothing.

Compares labels, annotations and the template, by path, but not traffic, which releases decide.
Reads the files on disk. With --commit, reads the commit's files and compares its image as well.
Exit code 0: no difference. 4: differences found.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec

from scripts.command.call import Call
from scripts.command.options import ServiceOptions, option
from scripts.command.results import Result
from scripts.command.tables import Table
from scripts.machine.git import Commit
from scripts.release import manifest
from scripts.release.declared import Difference, differences
from scripts.service.context import Context, at_commit
from scripts.service.regions import read_every_region

DIFFERS = 4


class Options(ServiceOptions, frozen=True, kw_only=True):
    commit: Annotated[
        str | None,
        option("--commit", metavar="REF", help="compare this commit's files and image"),
    ] = None


def run(options: Options, call: Call) -> int:
    with _files(options, call) as (context, commit):
        runs = context.callees.read_beside(
            lambda: read_every_region(context, lambda region: region.service())
        )
        found = [
            (region, _differences(context, region, service, commit))
            for region, service in runs.items()
        ]
    return call.show(_result(context, found), options.format)


@contextmanager
def _files(options: Options, call: Call) -> Iterator[tuple[Context, Commit | None]]:
    """Open a call on the files on disk, or on those of a commit."""
    if options.commit is None:
        yield Context(options, call, only_reads=True), None
    else:
        with at_commit(options, call, options.commit, only_reads=True) as (context, commit):
            yield context, commit


def _differences(
    context: Context, region: str, runs: manifest.Object | None, commit: Commit | None
) -> list[Difference] | None:
    """Compare the files with the live service; None if it does not exist."""
    if runs is None:
        return None
    sha = commit.sha if commit else "0" * 40
    urls = context.callees.urls(region)
    files = manifest.render(context.pipeline, commit=sha, image=None, revision="", urls=urls)
    found = differences(files, runs)
    return found + (_image(context, runs, commit) if commit else [])


def _image(context: Context, runs: manifest.Object, commit: Commit) -> list[Difference]:
    running = manifest.image_of(runs["spec"]["template"])
    found = context.images.find(commit)
    if found and running.digest == found.reference.digest:
        return []
    built = found.reference.short_digest if found else f"commit {commit.short}, not built yet"
    return [Difference(path="image", runs=running.short_digest, files=built)]


def _result(context: Context, found: list[tuple[str, list[Difference] | None]]) -> Result:
    name, where = context.pipeline.service, context.where
    rows, notes = [], []
    for region, differs in found:
        if differs is None:
            notes.append(f"{name} does not exist in {region}: a deploy creates it")
        for one in differs or []:
            rows.append([region, one.path, one.runs or "-", one.files or "-"])
    changes = any(differs or differs is None for _, differs in found)
    if changes:
        notes.append(f"To apply the files: ./ship deliver {where}")
    else:
        notes.append("no change: the live service matches the files")
    regions: list[dict[str, Any]] = [
        {
            "region": region,
            "exists": differs is not None,
            "differences": [msgspec.to_builtins(one) for one in differs or []],
        }
        for region, differs in found
    ]
    return Result(
        data={
            "service": name,
            "environment": context.pipeline.env,
            "changes": changes,
            "regions": regions,
        },
        table=Table(columns=["REGION", "WHAT", "RUNS", "FILES SAY"], rows=rows, notes=notes),
        code=DIFFERS if changes else 0,
    )
