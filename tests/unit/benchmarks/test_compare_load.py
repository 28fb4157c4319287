"""Forms, prepared requests, what wrk tells, and what processes take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode

import pytest

from tests.benchmarks.compare import plan, timeline
from tests.benchmarks.compare.forms import ID_BYTES, form, forms, prepared, record_id, request
from tests.benchmarks.compare.peer import Usage
from tests.benchmarks.compare.rounds import SYSTEMS, in_turns, takes_part
from tests.benchmarks.compare.wrk import Answered, read_answer
from tests.benchmarks.system import BenchmarkError

ANSWER = (
    '{"requests":10,"seconds":2.0,"p50_ms":1.5,"p99_ms":2.5,"max_ms":3.5,'
    '"errors":{"connect":0,"read":0,"write":0,"timeout":0,"status":%d}}'
)


def test_ids_have_one_length_and_are_base64_as_they_stand() -> None:
    identity = record_id("0007", 42)
    assert identity == "000700000042"
    assert len(identity) == ID_BYTES
    assert len(b64decode(identity, validate=True)) == 9
    with pytest.raises(ValueError, match="4 characters"):
        record_id("too long", 1)


def test_forms_are_examples_with_other_ids() -> None:
    assert len(forms()) == 1_000
    first, again = json.loads(form("abcd", 0)), json.loads(form("abcd", 1_000))
    assert first.pop("id") == "abcd00000000"
    assert again.pop("id") == "abcd00001000"
    assert first == again
    assert {"nombres", "genero"} <= first.keys()


def test_a_request_with_its_id_in_the_body() -> None:
    asked = request("POST", "h:1", (b"/forms",), (b'{"id":"', b'"}'), "application/json")
    whole = b"abcd00000001".join(asked)
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /forms HTTP/1.1",
        b"Host: h:1",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
    ]
    assert body == b'{"id":"abcd00000001"}'


def test_a_request_with_its_id_in_path_and_body() -> None:
    asked = request("PUT", "h:1", (b"/forms/", b""), (b'{"id":"', b'"}'), "application/json")
    assert len(asked) == 3
    whole = b"abcd00000001".join(asked)
    assert whole.startswith(b"PUT /forms/abcd00000001 HTTP/1.1\r\n")
    assert whole.endswith(b'\r\n\r\n{"id":"abcd00000001"}')


def test_a_request_without_body() -> None:
    asked = request("GET", "h:1", (b"/forms/", b"?consistency=local"))
    assert b"abcd00000001".join(asked) == (
        b"GET /forms/abcd00000001?consistency=local HTTP/1.1\r\nHost: h:1\r\n\r\n"
    )


def test_prepared_requests_can_be_taken_apart() -> None:
    asked = [(b"a", b"b"), (b"c", b"", b"d")]
    found = [each.split(b"\x1f")[:-1] for each in prepared(asked).split(b"\x1e")[:-1]]
    assert [tuple(each) for each in found] == asked


def test_the_last_line_of_wrk_counts() -> None:
    assert read_answer("Running\n" + ANSWER % 0) == Answered(10, 2.0, 1.5, 2.5, 3.5)


@pytest.mark.parametrize(
    "output", [ANSWER % 1, "unable to connect", (ANSWER % 0).replace("10", "0")]
)
def test_errors_and_silence_fail_the_run(output: str) -> None:
    with pytest.raises(BenchmarkError):
        read_answer(output)


def test_another_one_is_first_in_each_round() -> None:
    assert [in_turns("abc", number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_systems_do_what_they_can() -> None:
    can = {
        name: [part for part in plan.IN_TURNS if takes_part(SYSTEMS[name](), part)]
        for name in (plan.OURS, plan.FLOOR, plan.CEILING)
    }
    assert can == {
        plan.OURS: [plan.WRITES, plan.READS, plan.BULK],
        plan.FLOOR: [plan.WRITES],
        plan.CEILING: [plan.WRITES],
    }


def test_children_count_with_their_process_also_when_they_have_ended() -> None:
    usage = Usage({"us": os.getpid()})
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)  # noqa: S603 - ours
    assert usage.cpu_s()["us"] >= 0.1
    assert usage.memory_mib()["us"] > 5


def test_acknowledgements_are_counted_in_bins() -> None:
    counts = timeline.binned([-2_000, -1_000, -999, 0, 49, 50, 3_999, 4_000])
    assert len(counts) == 100
    assert (counts[0], counts[20], counts[21], counts[-1]) == (2, 2, 1, 1)
    assert sum(counts) == 6
