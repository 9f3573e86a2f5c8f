"""A revision under test answers what it likes: its check fails in time, and users get stable."""

from __future__ import annotations

import gzip
import json
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import repeat

import pytest

from scripts.config.formats import Check, Expect
from scripts.service import checks
from scripts.service.checks import Outcome
from tests.scripts.conftest import Project

Answer = Callable[[], Iterator[bytes]]
WANTED = Expect(json={"status": "ok"}, within="60s")
OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS = OK + b"Transfer-Encoding: chunked\r\n\r\n"
MEGABYTE = b"x" * 1024 * 1024


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """A server that sends these bytes to each request and closes the connection; its URL."""

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            with connection.makefile("rb") as request:
                length = 0
                while line := request.readline().strip():
                    name, _, value = line.partition(b":")
                    length = int(value) if name == b"Content-Length" else length
                request.read(length)
            for part in answer():
                connection.sendall(part)
                if ended.is_set():
                    break

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    ended.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def whole(body: bytes | str, *headers: str) -> Answer:
    """One answer with this body."""
    data = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    lines = [f"Content-Length: {len(data)}", *headers]
    head = OK + "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n"
    return lambda: iter([head, data])


def parts(*first: bytes, then: bytes, pause: float = 0) -> Answer:
    """An answer that begins with `first` and never ends."""

    def made() -> Iterator[bytes]:
        yield from first
        for part in repeat(then):
            time.sleep(pause)
            yield part

    return made


def check(answer: Answer, expect: Expect = WANTED) -> Outcome:
    with server(answer) as url:
        [outcome] = checks.run(url, [Check(path="/", expect=expect)], "")
    return outcome


DEEP = "[" * 100_000 + "]" * 100_000
LATE = "no complete answer within 1s"
ATTACKS: dict[str, tuple[Answer, str]] = {
    "deep JSON": (whole(DEEP), "nested too deeply"),
    "a deep field": (whole('{"status": ' + "[" * 400 + "]" * 400 + "}"), "field status is [[["),
    "a trickling body": (
        parts(OK + b"Content-Length: 99999\r\n\r\n", then=b" ", pause=0.02),
        LATE,
    ),
    "a trickling chunk": (parts(ENDLESS + b"ffff\r\n", then=b" ", pause=0.02), LATE),
    "a trickling header": (parts(OK + b"X-Long: ", then=b"x", pause=0.02), LATE),
    "no end of interim answers": (parts(then=b"HTTP/1.1 100 Continue\r\n\r\n"), LATE),
    "no end of trailers": (parts(ENDLESS + b"0\r\n", then=b"a: b\r\n" * 1000), LATE),
    "an endless body": (parts(OK + b"\r\n", then=MEGABYTE), "larger than 1048576 bytes"),
    "an endless chunked body": (
        parts(ENDLESS, then=b"100000\r\n" + MEGABYTE + b"\r\n"),
        "larger than 1048576 bytes",
    ),
    "a gzip bomb": (
        whole(200 * gzip.compress(MEGABYTE), "Content-Encoding: gzip"),
        "larger than 1048576 bytes",
    ),
    "what only says that it is gzip": (whole("{}", "Content-Encoding: gzip"), "cannot be read"),
    "an endless header": (parts(OK + b"X-Long: ", then=MEGABYTE), "not HTTP: got more than 65536"),
    "many headers": (parts(OK, then=b"a: b\r\n"), "not HTTP: got more than 100 headers"),
    "an endless status line": (parts(then=MEGABYTE), "not HTTP: got more than 65536"),
    "another protocol": (lambda: iter([b"SSH-2.0-x\r\n\r\n"]), "not HTTP: SSH-2.0-x"),
    "two lengths": (whole("{}", "Content-Length: 7"), "cannot be read: InvalidHeader"),
    "a body that breaks off": (
        lambda: iter([OK + b"Content-Length: 9\r\n\r\n{}"]),
        "cannot be read: ProtocolError",
    ),
    "an invalid chunk": (lambda: iter([ENDLESS + b"zz\r\n{}\r\n"]), "IncompleteRead"),
    "NaN": (whole('{"status": NaN}'), "not JSON: NaN"),
    "a key twice": (whole('{"status": "ok", "status": "broken"}'), "'status' comes twice"),
    "a long number": (whole('{"status": ' + "9" * 9999 + "}"), "not JSON: Exceeds the limit"),
    "a lone surrogate": (whole('{"status": "\\ud800"}'), r"field status is '\ud800'"),
    "an encoded surrogate": (whole('{"status": "\ud800"}'), r"field status is '\ud800'"),
    "no text at all": (whole(b"\xff\xfe\x00"), "not JSON"),
    "a long field": (whole(json.dumps({"status": "x" * 500_000})), "field status is 'xxx"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_answer_fails_its_check_in_time_and_in_few_words(attack: str) -> None:
    answer, problem = ATTACKS[attack]
    expect = Expect(json={"status": "ok"}, within="1s") if problem == LATE else WANTED
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = check(answer, expect)
    assert not outcome.ok
    assert problem in outcome.problem
    assert len(outcome.problem) < 400
    assert len("".join(outcome.evidence)) < 1000
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 128 * (1024 * 1024 if sys.platform == "darwin" else 1024), "of memory"


@pytest.mark.parametrize("charset", ["nonsense", "base64", "idna", "punycode", "undefined"])
def test_a_charset_that_is_not_one(charset: str) -> None:
    answer = whole("x" * 500_000, f"Content-Type: text/html; charset={charset}")
    outcome = check(answer, Expect(text="hello"))
    assert outcome.problem == f"the body's charset '{charset}' is unknown"
    assert outcome.evidence, "which needs no charset"
    assert check(answer, Expect()).ok, "what is not compared does not count"


@pytest.mark.parametrize(
    "location", ["http://[", "//\x00", "\xff\xfe", "x" * 60_000, "http://a:99999999/", "data:,x"]
)
def test_a_redirect_is_an_answer_that_nothing_follows_or_parses(location: str) -> None:
    def answer() -> Iterator[bytes]:
        yield b"HTTP/1.1 302 Found\r\nLocation: " + location.encode("latin-1") + b"\r\n\r\n"
        yield from repeat(MEGABYTE)

    assert check(answer, Expect(status=302)).ok
    assert check(answer).problem == "status 302, expected 200"


def test_a_large_page_passes_where_the_body_is_not_compared() -> None:
    assert check(parts(OK + b"\r\n", then=MEGABYTE), Expect()).ok


def test_text_is_found_in_the_charset_that_the_answer_names_or_in_utf_8() -> None:
    for charset, header in (
        ("utf-8", ""),
        ("latin-1", "; charset=latin-1"),
        ("utf-16", '; charset="UTF-16"'),
    ):
        answer = whole("Größe".encode(charset), f"Content-Type: text/html{header}")
        assert check(answer, Expect(text="Größe")).ok, charset


def test_the_evidence_of_a_late_answer_is_what_had_come() -> None:
    late = Expect(within="3s")
    outcome = check(parts(b"HTTP/1.1 500 Oops\r\n\r\nno database", then=b" ", pause=0.02), late)
    assert outcome.evidence[0].endswith("-> 500 Oops")
    assert outcome.evidence[1].startswith("no database")


def test_a_candidate_with_half_of_the_traffic_that_turns_hostile_loses_it(served: Project) -> None:
    """I5."""
    before = served.shares()
    served.serve_with(
        "good = [1] * 2  # before any traffic, and with 10 %\n"
        "def health():\n"
        "    return 200, body() if good and good.pop() else '[' * 100_000 + ']' * 100_000"
    )
    commit = served.commit()
    ended = served.ship("deliver")
    assert ended.returncode == 1, ended.stderr
    assert f"{served.revision(commit)} 50 %" in ended.stderr
    assert "health: the body is not JSON: it is nested too deeply" in ended.stderr
    assert f"traffic was moved back: {next(iter(before))} 100 %" in ended.stderr
    assert served.shares() == before
