"""The conversion of answers while several reads run at once."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

# `slowly` runs while msgspec builds the table of One for the first thread; the second one then
# converts to One, too.
AT_ONCE = """
import threading
import msgspec, requests
from scripts.cloud import answers

building = threading.Event()
converted = threading.Event()

def slowly(kind):
    building.set()
    converted.wait(0.1)
    return kind

class Inner(msgspec.Struct):
    number: "slowly(int)"

class One(msgspec.Struct):
    inner: Inner

answer = requests.Response()
answer._content = b'{"inner": {"number": 1}}'

def second():
    building.wait()
    answers.document(answer, "Cloud Run", One)
    converted.set()

thread = threading.Thread(target=second)
thread.start()
answers.document(answer, "Cloud Run", One)
thread.join()
"""


def test_two_threads_convert_the_first_answers_of_a_type() -> None:
    """msgspec 0.22 crashes if two threads build its table of a type (SIGSEGV, no output)."""
    ended = subprocess.run([sys.executable, "-c", AT_ONCE], cwd=ROOT, check=False)
    assert ended.returncode == 0
