"""The run page of a workflow: Markdown for a release manager, made from the record alone."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from urllib.parse import quote

from scripts.command import verbs
from scripts.command.github import has_run_page, repository_url
from scripts.command.markdown import block, code, link, page, plain, table
from scripts.command.record import Record
from scripts.command.words import by_share, split
from scripts.config.sources import APP
from scripts.errors import Refused, ShipError
from scripts.machine import git


def of_table(columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """Return the page of a verb that has none of its own: its table and its notes."""
    parts = [table(columns, [[plain(cell) for cell in row] for row in rows])]
    return page([*parts, block(notes) if notes else ""])


def of_change(record: Record, notes: Sequence[str], title: str | None = None) -> str:
    """Return the page of a change: commit, region, traffic before and after, command to roll back.

    Args:
        record: what the verb saw and did.
        notes: what the verb prints under its table.
        title: replaces the verb's own title, for a commit that steps aside.

    Returns:
        Markdown; "" if there is no run page.
    """
    if not has_run_page():
        return ""
    stepped_aside = title is not None
    candidates = (move.candidate for move in record.moves if move.candidate)
    # The candidate of a commit that steps aside is another commit's.
    revision = None if stepped_aside else next(candidates, None)
    above = [f"{record.commit.short} {record.commit.subject}"] if record.commit else []
    parts = [
        f"### {'Dry run: ' if record.dry_run else ''}{plain(title or _title(record, revision))}",
        _facts(record, revision),
        _traffic(record),
        _steps(record),
        _watched(record),
        _checks(record),
        *(plain(note) for note in notes if note not in above),
        "" if stepped_aside else _way_back(record),
    ]
    return page(parts)


def of_error(error: ShipError, record: Record) -> str:
    """Return the page of a failure: the error, its evidence, the live traffic, the next command."""
    kind = "Refused" if isinstance(error, Refused) else "Failed"
    if not record.where:
        return page([f"### {kind}", plain(error.message), _evidence(error), _next(error)])
    what = f" {record.commit.short}" if record.commit else ""
    parts = [
        f"### {kind}: {plain(f'{record.verb}{what} in {record.env}')}",
        plain(error.message),
        _evidence(error),
        _next(error),
        _serving(record),
        _facts(record, None),
        _steps(record),
        _watched(record),
        _checks(record),
    ]
    return page(parts)


def _title(record: Record, revision: str | None) -> str:
    verb = verbs.find(record.verb)
    form = (verb and verb.page) or f"{record.verb}: {{service}} in {{env}}"
    what = record.commit.short if record.commit else revision or record.service
    return form.format(what=what, service=record.service, env=record.env)


def _evidence(error: ShipError) -> str:
    lines = [*error.evidence, *error.service_says]
    return block(lines) if lines else ""


def _next(error: ShipError) -> str:
    hint = [f"**Next:** {code(error.hint)}"] if error.hint else []
    return "\n\n".join([*hint, *(plain(line) for line in error.more)])


def _facts(record: Record, revision: str | None) -> str:
    rows = []
    if record.commit:
        url = _commit_url(record, record.commit.sha)
        rows.append(["Commit", f"{link(record.commit.short, url)} {code(record.commit.subject)}"])
    rows += [
        ["Service", plain(record.service or "")],
        ["Environment", plain(record.env or "")],
        ["Project", plain(record.project)],
        ["Region", plain(", ".join(record.regions))],
    ]
    if revision:
        rows.append(["Revision", plain(revision)])
    for word, image in record.images.items():
        rows.append(["Image" if word == APP else f"Image {plain(word)}", code(image.digest)])
    if record.provenance:
        rows.append(["Provenance", plain(record.provenance)])
    if record.reason:
        rows.append(["Reason", code(record.reason)])
    rows += [
        ["By", code(git.actor())],
        ["Took", f"{time.monotonic() - record.started:.1f} s"],
    ]
    return table(["", ""], [[f"**{name}**", value] for name, value in rows])


def _traffic(record: Record) -> str:
    rows = []
    for move in record.moves:
        for name in by_share(move.after, *move.before):
            links = [
                link("its own URL", move.urls.get(name, "")),
                link("in Google Cloud", console_url(record, move.region)),
            ]
            rows.append(
                [
                    plain(move.region),
                    plain(name),
                    f"{move.before.get(name, 0)} %",
                    f"{move.after.get(name, 0)} %",
                    ", ".join(one for one in links if one.startswith("[")),
                ]
            )
    if not rows:
        return ""
    return table(["Region", "Revision", "Traffic before", "Traffic after", "Look at it"], rows)


def _serving(record: Record) -> str:
    rows = [
        [plain(region), plain(name), f"{percent} %"]
        for region, shares in record.serving.items()
        for name, percent in shares.items()
    ]
    return f"**Live now**\n\n{table(['Region', 'Revision', 'Traffic'], rows)}" if rows else ""


def _steps(record: Record) -> str:
    rows = [
        [
            f"{step.percent} %",
            f"{step.bake:g} s" if step.ended else "stopped during its bake",
            plain(split(step.shares)),
        ]
        for step in record.steps
    ]
    return table(["Rollout step", "Bake", "Traffic"], rows) if rows else ""


def _watched(record: Record) -> str:
    """Return what users were answered, with links to that revision's log and metrics."""
    if (watched := record.watched) is None:
        return ""
    rows = [[plain(cell) for cell in row] for row in watched.rows]
    links = " · ".join(link(text, url) for text, url in watched.links.items())
    shown = table(watched.columns, rows) if rows else ""
    return "\n\n".join(filter(None, [f"**Users' answers:** {plain(watched.said)}", shown, links]))


def _checks(record: Record) -> str:
    rows = [
        [
            plain(region),
            plain(check.name),
            "passed" if check.ok else f"**failed** {plain(check.problem)}",
            f"{check.took * 1000:.0f} ms",
        ]
        for region, checks in record.checks.items()
        for check in checks
    ]
    return table(["Region", "Smoke check", "Result", "Took"], rows) if rows else ""


def _way_back(record: Record) -> str:
    """Return the command to roll back; "" if the verb gave no traffic."""
    verb = verbs.find(record.verb)
    if record.dry_run or verb is None or not verb.gives_traffic:
        return ""
    command = f"./ship rollback {record.service} --env {record.env}"
    repository = repository_url()
    button = ""
    if repository:
        workflow = f"{repository}/actions/workflows/rollback.yml"
        button = f", or {link('Run workflow', workflow)}"
    return f"**To roll back:** {code(command)}{button}"


def console_url(record: Record, region: str) -> str:
    """Return the address of the service's revisions in Google's console.

    It is "" if another address stands in for Google's. Google documents no form of such addresses.
    This one is in many repositories, such as
    https://github.com/datacommonsorg/website/blob/master/scripts/build_and_deploy_custom_dc_autopush.sh.
    """
    if not record.at_google:
        return ""
    return (
        f"https://console.cloud.google.com/run/detail/{region}/{record.service}/revisions"
        f"?project={record.project}"
    )


def logs_url(record: Record, region: str, revision: str, since: str, until: str) -> str:
    """Return the address of a revision's log between two moments (RFC 3339); "" if not Google's.

    Source: Google's own plugin for Grafana makes such addresses,
    https://github.com/GoogleCloudPlatform/cloud-logging-data-source-plugin/blob/main/src/QueryEditor.tsx.
    """
    if not record.at_google:
        return ""
    query = (
        'resource.type="cloud_run_revision"\n'
        f'resource.labels.service_name="{record.service}"\n'
        f'resource.labels.location="{region}"\nresource.labels.revision_name="{revision}"'
    )
    return (
        f"https://console.cloud.google.com/logs/query;query={quote(query, safe='')};"
        f"timeRange={since}%2F{until}?project={record.project}"
    )


def metrics_url(record: Record, region: str, revision: str, since: str, until: str) -> str:
    """Return the address of a revision's requests by status, likewise.

    Source: the link "p50 latency" of https://firebase.google.com/docs/firestore/monitor-usage:
    `/monitoring/metrics-explorer;duration=P7D?pageState=…`. For a time that was chosen, the console
    writes `;endTime=…;startTime=…` there.
    """
    if not record.at_google:
        return ""
    chosen = (
        'metric.type="run.googleapis.com/request_count" resource.type="cloud_run_revision"'
        f' resource.label."service_name"="{record.service}" resource.label."location"="{region}"'
        f' resource.label."revision_name"="{revision}"'
    )
    sums = {
        "perSeriesAligner": "ALIGN_RATE",
        "crossSeriesReducer": "REDUCE_SUM",
        "groupByFields": ['metric.label."response_code_class"'],
    }
    series = {"filter": chosen, "minAlignmentPeriod": "60s", "aggregations": [sums]}
    line = {"plotType": "LINE", "targetAxis": "Y1", "timeSeriesFilter": series}
    state = json.dumps({"xyChart": {"dataSets": [line]}})
    return (
        f"https://console.cloud.google.com/monitoring/metrics-explorer;startTime={since};"
        f"endTime={until}?project={record.project}&pageState={quote(state, safe='')}"
    )


def _commit_url(record: Record, sha: str) -> str:
    repository = repository_url()
    if not repository:
        origin = git.origin(record.root)
        repository = origin if origin.startswith("https://github.com/") else ""
    return f"{repository}/commit/{sha}" if repository else ""
