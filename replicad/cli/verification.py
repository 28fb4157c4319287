"""Asks all replicas what they hold, and finds who differs and where.

Logs are compared by chain digest at one common index; where they differ, the first entry is found
by bisection. Records, and the writes that are remembered, are compared by digests of ranges of keys
as of the same index; where they differ, the first record. What is to be concluded is decided in
`replicad/core/comparison.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from replicad.cli.replicas import Replicas
from replicad.core.comparison import (
    RangeDigest,
    RecordDigest,
    Split,
    first_difference,
    first_differing_entry,
    first_differing_record,
    remembered_by_all,
    split,
)
from replicad.errors import ConfigurationError, ReplicaUnavailableError
from replicad.storage.snapshot import REQUESTS

# Reading all of a large disk takes its time.
_LONG_S: Final = 6 * 3600.0
_REQUESTS: Final = REQUESTS.decode()


@dataclass(slots=True)
class Report:
    """What was found.

    Attributes:
        index: The entry at which all replicas were compared.
        replicas: What each of them said, by name.
        problems: What is wrong, in words; empty if nothing is.
    """

    index: int
    replicas: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether all configured replicas are there and hold the same."""
        return not self.problems

    def describe(self) -> dict[str, object]:
        """For programs."""
        return {
            "good": self.good,
            "index": self.index,
            "replicas": self.replicas,
            "problems": self.problems,
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """For people: a line for each replica."""
        for name, told in self.replicas.items():
            yield name, ", ".join(f"{what} {value}" for what, value in told.items())


async def verify(replicas: Replicas, *, deep: bool) -> Report:
    """Compare all replicas.

    Args:
        replicas: Of one cluster.
        deep: Whether each reads all that it has stored again first.

    Raises:
        ReplicaUnavailableError: None answers.
    """
    urls = replicas.urls
    statuses = await _ask_all(replicas, urls, "GET", "status")
    applied = {
        name: int(told["applied_index"])
        for name, told in statuses.items()
        if "applied_index" in told
    }
    if not applied:
        raise ReplicaUnavailableError("no replica answers")
    report = Report(min(applied.values()))
    config = replicas.view.config
    for name in config.replicas if config else ():
        if name not in applied:
            report.problems.append(f"{name} does not answer: it was not compared")
    present = {name: urls[name] for name in applied}
    report.replicas = {name: {"applied": index} for name, index in applied.items()}
    if deep:
        await _scrub_all(replicas, present, report)
    since = await _compare_logs(replicas, present, report)
    await _compare_records(replicas, present, report, since)
    return report


async def repair(replicas: Replicas, node: str) -> list[str]:
    """Let one replica check and repair itself; returns what it found, in words.

    Raises:
        ConfigurationError: There is no such replica running.
        ReplicaUnavailableError: It does not answer.
    """
    url = replicas.urls.get(node)
    if url is None:
        raise ConfigurationError(f"no replica {node!r} is running; there are {[*replicas.urls]}")
    found = await replicas.call("POST", f"{url}/internal/scrub", timeout_s=_LONG_S)
    if found["error"]:
        return [
            found["error"],
            f"{node} begins again now and fetches what is damaged from another replica",
        ]
    return [f"{node}: {found['entries']} entries read, {found['restored']} records put back"]


async def _scrub_all(replicas: Replicas, urls: dict[str, str], report: Report) -> None:
    answers = await _ask_all(replicas, urls, "POST", "scrub", timeout_s=_LONG_S)
    for name, found in answers.items():
        report.replicas[name] |= {"read": found.get("entries"), "restored": found.get("restored")}
        if found["error"]:
            report.problems.append(f"{name}: {found['error']}")
        elif found["restored"]:
            report.problems.append(f"{name}: {found['restored']} records differed from its log")


async def _compare_logs(replicas: Replicas, urls: dict[str, str], report: Report) -> str:
    """Compare the logs; returns from which time on all replicas remember writes."""

    async def digest_of(name: str, index: int) -> str | None:
        url = f"{urls[name]}/internal/chain"
        digest: str | None = (await replicas.call("POST", url, body={"indexes": [index]}))[
            "digests"
        ][0]
        return digest

    answers = await _ask_all(replicas, urls, "POST", "chain", body={"indexes": [report.index]})
    bases = {name: int(told["base"]) for name, told in answers.items() if not told["error"]}
    digests = {
        name: str(told["digests"][0])
        for name, told in answers.items()
        if not told["error"] and told["digests"][0] is not None
    }
    for name, digest in digests.items():
        report.replicas[name]["chain digest"] = digest
    _note_silent(report, urls, digests, "chain digest")
    since = remembered_by_all(
        str(told["forgets_before"]) for told in answers.values() if not told["error"]
    )
    divided = split(digests) if digests else Split((), ())
    reference = next(iter(divided.majority or divided.minority), "")
    for name in divided.minority:
        if name == reference:
            continue

        async def is_equal(index: int, name: str = name) -> bool:
            return await digest_of(name, index) == await digest_of(reference, index)

        low = max(bases[name], bases[reference])
        at = await first_differing_entry(low, report.index, is_equal)
        report.problems.append(_accuse(name, reference, divided, f"log entry {at}"))
    return since


async def _compare_records(
    replicas: Replicas, urls: dict[str, str], report: Report, since: str
) -> None:
    body = {"index": report.index, "remembered_from": since}
    answers = await _ask_all(replicas, urls, "POST", "ranges", body=body, timeout_s=_LONG_S)
    ranges = {
        name: tuple(RangeDigest(*each) for each in told["ranges"])
        for name, told in answers.items()
        if not told["error"]
    }
    for name, parts in ranges.items():
        report.replicas[name]["records"] = sum(
            part.lines for part in parts if part.collection != _REQUESTS
        )
    _note_silent(report, urls, ranges, "records")
    if not ranges:
        return
    divided = split(ranges)
    if not divided.minority:
        return
    reference = (divided.majority or divided.minority)[0]
    for name in divided.minority:
        stretch = first_difference(ranges[reference], ranges[name])
        if name == reference or stretch is None:
            continue
        where = body | {"from": stretch[0], "to": stretch[1]}
        ours, theirs = [
            [RecordDigest(*each) for each in told["records"]]
            for told in await asyncio.gather(
                *(
                    replicas.call("POST", f"{urls[each]}/internal/record-digests", body=where)
                    for each in (reference, name)
                )
            )
        ]
        first = first_differing_record(ours, theirs)
        what = _in_words(*first) if first else f"records from {'/'.join(stretch[0])}"
        report.problems.append(_accuse(name, reference, divided, what))


def _in_words(collection: str, key: str) -> str:
    if collection == _REQUESTS:
        return f"the write of entry {int(key)}, as it is remembered"
    return f"record {collection}/{key}"


def _accuse(name: str, reference: str, divided: Split, where: str) -> str:
    if divided.majority:
        agree = ", ".join(divided.majority)
        return f"{name} is in the minority: it differs from {agree} first at {where}"
    return f"{name} and {reference} differ first at {where}; neither has a majority"


def _note_silent(report: Report, urls: dict[str, str], told: dict[str, Any], what: str) -> None:
    report.problems += [f"{name} did not tell its {what}" for name in urls if name not in told]


async def _ask_all(
    replicas: Replicas,
    urls: dict[str, str],
    method: str,
    path: str,
    *,
    body: dict[str, Any] | None = None,
    timeout_s: float = 10.0,
) -> dict[str, dict[str, Any]]:
    """What each replica answers; {"error": why} for those that do not, and "" for the others."""

    async def ask(url: str) -> dict[str, Any]:
        try:
            answer = await replicas.call(
                method, f"{url}/internal/{path}", body=body, timeout_s=timeout_s
            )
        except ReplicaUnavailableError as error:
            return {"error": str(error)}
        return {"error": "", **answer}

    answers = await asyncio.gather(*(ask(url) for url in urls.values()))
    return dict(zip(urls, answers, strict=True))
