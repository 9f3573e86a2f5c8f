"""A workflow's run page: the summary, the outputs for jobs, and error annotations."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from scripts.command import github, markdown, run_page
from scripts.command.record import Record
from scripts.config import pipelines
from scripts.machine import git
from tests.conftest import ROOT
from tests.scripts.conftest import Project

NASTY = (
    "| x | `y` <script>alert(1)</script> <img src=//evil.example> @octocat"
    " [go](https://evil.example) ![i](https://evil.example/i.png) https://evil.example"
    " www.evil.example **b** _i_ #1 &lt; \\| ~~"
)


class Run:
    """A project's commands as a job of a workflow runs them."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.project = project
        self.folder = folder
        self.output = ""
        self.summary = ""
        self.log = ""
        self.code = 0

    def ship(self, *arguments: str, **env: str) -> Run:
        output, page = self.folder / "output", self.folder / "summary"
        for file in (output, page):
            file.write_text("")
        ended = self.project.ship(
            *arguments,
            **{
                "GITHUB_ACTIONS": "true",
                "GITHUB_OUTPUT": str(output),
                "GITHUB_STEP_SUMMARY": str(page),
                "GITHUB_SERVER_URL": "https://github.example",
                "GITHUB_REPOSITORY": "acme/shop",
                **env,
            },
        )
        self.output, self.summary = output.read_text(), page.read_text()
        self.log, self.code = ended.stdout + ended.stderr, ended.returncode
        return self

    @property
    def shown(self) -> str:
        """Return the summary as a browser gets it."""
        return html(self.summary)

    @property
    def text(self) -> str:
        """Return the text that a reader sees."""
        return unescape(re.sub(r"<[^>]+>", " ", self.shown)).replace("\u2060", "")

    def given(self, name: str) -> str:
        found = re.search(rf"(?m)^{name}<<(\w+)\n(.*)\n\1$", self.output)
        assert found, self.output
        return found[2]


def html(markdown: str) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))


@pytest.fixture
def run(served: Project, tmp_path: Path) -> Run:
    return Run(served, tmp_path)


def commit(project: Project, subject: str, **settings: Any) -> str:
    """Commit a change with this subject; return its full SHA."""
    project.commit(**settings)
    project.git("commit", "--quiet", "--amend", "--message", subject)
    return project.git("rev-parse", "HEAD")


def test_a_deliverys_summary(run: Run) -> None:
    """The image, the traffic before and after, checks, steps, links, and the rollback command."""
    project = run.project
    old = next(iter(project.shares()))
    sha = commit(project, "Say it better")
    run.ship("deliver", "--bake", "0.1s", "--reason", "asked for")
    assert run.code == 0, run.log
    name = project.revision(sha)
    assert f"<h3>Delivered {sha[:7]} to local</h3>" in run.shown
    assert f'<a href="https://github.example/acme/shop/commit/{sha}">{sha[:7]}</a>' in run.shown
    for cell in ("Say it better", "shipway-local", "us-central1", "asked for", "tester"):
        assert cell in run.text
    row = r"<td>us-central1</td>\s*<td>(\S+)</td>\s*<td>(\d+) %</td>\s*<td>(\d+) %</td>"
    rows = re.findall(row, run.shown)
    assert (name, "0", "100") in rows
    assert (old, "100", "0") in rows
    assert re.search(r"<td>health</td>\s*<td>passed</td>\s*<td>\d+ ms</td>", run.shown)
    assert re.findall(r"<td>(\d+) %</td>\s*<td>0\.1 s</td>", run.shown) == ["10", "50", "100"]
    assert run.given("digest") in run.text
    assert f"./ship rollback {project.name} --env local" in run.text
    assert "https://github.example/acme/shop/actions/workflows/rollback.yml" in run.shown
    assert f'href="{run.given("revision_url")}"' in run.shown
    assert re.search(r"Took\s+[\d.]+ s", run.text)


def test_a_commit_that_steps_aside_is_not_shown_with_the_other_ones_revision(run: Run) -> None:
    older, newer = commit(run.project, "Older"), commit(run.project, "Newer")
    run.project.done("deliver")
    run.ship("deliver", "--commit", older)
    assert f"<h3>{older[:7]} steps aside in local: {newer[:7]} is newer</h3>" in run.shown
    facts = run.shown.partition("<th>Region</th>")[0]
    assert older[:7] in facts
    assert run.project.revision(newer) not in facts


def test_the_service_s_url_and_the_revision_s_are_told_apart(run: Run) -> None:
    run.ship("deliver")
    status = run.project.service()["status"]
    assert run.given("url") == status["url"]
    assert run.given("revision_url") in {t.get("url") for t in status["traffic"]} - {status["url"]}


def test_promote_and_rollback_have_a_summary(run: Run) -> None:
    project = run.project
    new = project.revision(project.commit())
    project.done("build")
    project.done("deploy")
    run.ship("promote", "--reason", "looks good")
    assert f"<h3>Promoted {new} in local</h3>" in run.shown
    assert "looks good" in run.text
    assert "passed" in run.text
    assert f"./ship rollback {project.name} --env local" in run.text
    run.ship("rollback", "--reason", "not good")
    assert f"<h3>Rolled {project.name} back in local</h3>" in run.shown
    assert "not good" in run.text
    assert f"./ship resume {project.name}" in run.text
    run.ship("rollback", "--dry-run")
    assert "<h3>Dry run: " in run.shown


def test_a_failures_summary_shows_the_evidence_and_the_live_revisions(run: Run) -> None:
    """I5: on the run's page too, and the evidence is in the log once."""
    project = run.project
    before = next(iter(project.shares()))
    sha = commit(project, "Break it", health="broken")
    run.ship("deliver")
    assert run.code == 1
    assert f"<h3>Failed: deliver {sha[:7]} in local</h3>" in run.shown
    assert "field status is 'broken'" in run.text
    assert re.search(rf"<td>{before}</td>\s*<td>100 %</td>", run.shown)
    assert re.search(r"<td>health</td>\s*<td><strong>failed</strong>", run.shown)
    assert f"./ship status {project.name}" in run.text
    assert run.log.count("field status is 'broken'") == 1
    assert run.log.count('"status": "broken"') == 1
    errors = [line for line in run.log.splitlines() if line.startswith("::error ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"::error title=ship deliver {project.name}::{project.name}-")
    assert "did not pass its smoke checks" in errors[0]


def test_a_refusal_is_reported(run: Run) -> None:
    run.project.done("hold", "--reason", NASTY[:300])
    run.project.commit()
    run.ship("deliver")
    assert "<h3>Refused: deliver" in run.shown
    assert "./ship resume" in run.text
    assert "<script" not in run.shown


def test_outside_of_github_actions_nothing_is_annotated(run: Run) -> None:
    run.project.commit(health="broken")
    run.ship("deliver", GITHUB_ACTIONS="")
    assert run.code == 1
    assert "::error" not in run.log


def test_bad_usage_is_annotated_too(run: Run) -> None:
    run.ship("deliver", "--digest", "")
    assert run.code == 2
    assert "::error title=ship deliver::argument --digest: '' is not a digest" in run.log


def test_text_of_others_is_escaped(run: Run) -> None:
    """A subject makes no table, link, image, mention or HTML; nor does a reason or an answer."""
    commit(run.project, NASTY)
    run.ship("deliver", "--reason", NASTY[:300])
    assert run.code == 0, run.log
    for made in ("<script", "<img", 'href="https://evil', "@octocat"):
        assert made not in run.shown
    assert NASTY in run.text
    rows = re.findall(r"<tr>(.*?)</tr>", run.shown.split("<table>")[1], re.DOTALL)
    assert {row.count("<td>") + row.count("<th>") for row in rows} == {2}


def test_an_answer_closes_no_fence_and_gives_no_command(run: Run) -> None:
    """The body of a failed check: neither the summary nor the runner takes it for its own."""
    text = "::error::x\n````\n<h1>x</h1>\n##[set-output name=digest]x\n::add-mask::x"
    run.project.serve_with(f"def health():\n    return settings['code'], {text!r}")
    run.project.commit()
    run.ship("deliver")
    assert run.code == 1
    assert "<h1>" not in run.shown
    assert "::add-mask::x" in run.text
    assert "##[" not in run.log
    assert not [x for x in run.log.splitlines() if x.lstrip().startswith(("::error::", "::add-"))]


def test_the_log_of_a_workflow_holds_no_command_of_a_subject(run: Run) -> None:
    run.project.serve_with('print("##[error]x", flush=True)')
    commit(run.project, "##[set-output name=digest]sha256:bad")
    for verb in ("deliver", "history", "logs"):
        for form in ("table", "json"):
            run.ship(verb, "--format", form)
            assert "##[" not in run.log
            if form == "json":
                json.JSONDecoder().raw_decode(run.log[run.log.index("{") :])


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("::error::x", ": :error::x"),
        ("a\n \t::error::x", "a\n \t: :error::x"),
        ("a\r::error::x", "a\r: :error::x"),
        ("a ::b", "a ::b"),
        ("a ##[error]x", "a ## [error]x"),
    ],
)
def test_no_text_is_a_command_of_the_runner(text: str, made: str) -> None:
    assert github.inert(text) == made


@pytest.mark.parametrize(
    ("title", "message", "made"),
    [
        ("a", "b", "::error title=a::b"),
        ("a:b,c", "1:2,3", "::error title=a%3Ab%2Cc::1:2,3"),
        ("50 %\n", "50 %\r\n::x", "::error title=50 %25%0A::50 %25%0A::x"),
        ("a\rb", "\x1b[2J\r", "::error title=a\\rb::\\x1b[2J\\r"),
    ],
)
def test_a_workflow_command_is_escaped_as_github_says(title: str, message: str, made: str) -> None:
    assert github.annotation(title, message) == made


def test_a_joined_emoji_stays_one_and_a_control_is_shown() -> None:
    assert html(markdown.plain("👩‍💻 \x1b[2J\u202e")) == "<p>👩‍💻 \\x1b[2J\\u202e</p>\n"
    assert "\\x1b[2J" in html(markdown.block(["\x1b[2J"]))


@pytest.mark.parametrize("lines", [["```"], ["`````", "```"], ["~~~", "    x"], ["a\rb```\n````"]])
def test_no_line_closes_its_block(lines: list[str]) -> None:
    shown = html(markdown.block([*lines, "<b>"]) + "\n\nafter")
    assert shown.count("<pre>") == 1
    assert "&lt;b&gt;" in shown
    assert shown.endswith("<p>after</p>\n")


def test_a_commit_is_linked_where_the_origin_is_on_github(run: Run) -> None:
    """Without a workflow: the origin's address, if that is GitHub's, and never its token (I9)."""
    sha = run.project.git("rev-parse", "HEAD")
    run.project.git("remote", "add", "origin", "https://x:secret@github.com/acme/shop.git")
    run.ship("deliver", GITHUB_REPOSITORY="")
    assert f'href="https://github.com/acme/shop/commit/{sha}"' in run.shown
    assert "secret" not in run.summary
    assert git.origin(run.project.folder) == "https://github.com/acme/shop"


def test_a_revision_at_google_is_linked_in_the_console() -> None:
    """Where another address answers in Google's place, the console does not show it."""
    shown = []
    for env in ("production", "local"):
        record = Record(verb="deliver", root=ROOT)
        record.about(pipelines.load(ROOT / "tests", "app", env))
        shown.append(run_page.console_url(record, "us-central1"))
    assert shown == [
        "https://console.cloud.google.com/run/detail/us-central1/app/revisions?project=acme-prod",
        "",
    ]
