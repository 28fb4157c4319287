"""What the documentation names is there: pages, headings, files, definitions, tests, commands."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import click
import pytest

from replicad.cli import replicad
from tests.simulation.planted import MISTAKES

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
SOURCES = ("replicad", "api_gateway", "tests")

_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?:replicad|api_gateway|tests|docs|compose)/[\w./-]*")
_METHOD = re.compile(r"([A-Z]\w+|_[A-Z]\w+)\.(\w+)")
_TEST = re.compile(r"test_\w+")
_NAME = re.compile(r"_?[a-z]+(?:_[a-z0-9]+)+|[A-Z][a-z]+(?:[A-Z][a-z]+)*")
_EXAMPLE = re.compile(r"^ {4,}(?:\$ )?(?:\.venv/bin/)?(replicad .*)", re.MULTILINE)
_MAKE = re.compile(r"(?:`|^ {4})make ([a-z-]+)", re.MULTILINE)
_CITATION = re.compile(r'(docs/[\w./-]+\.md)(?:, "([^"]+)")?')


@cache
def prose(page: Path) -> str:
    return _FENCED.sub("", page.read_text())


@cache
def code() -> str:
    return "\n".join(p.read_text() for name in SOURCES for p in sorted((ROOT / name).rglob("*.py")))


@cache
def words() -> frozenset[str]:
    return frozenset(re.findall(r"\w+", code()))


@cache
def file_names() -> frozenset[str]:
    return frozenset(p.name for name in SOURCES for p in (ROOT / name).rglob("*.py"))


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)


def anchor(heading: str) -> str:
    """As GitHub makes them."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def is_defined(name: str) -> bool:
    return re.search(rf"(?:def|class) {name}\b|^ *{name}\b ?[:=]", code(), re.MULTILINE) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if "://" in link:
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if fragment:
            assert fragment in map(anchor, headings(target)), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_named_exists(page: Path) -> None:
    for span in _CODE.findall(prose(page)):
        if _PATH.fullmatch(span):
            assert (ROOT / span).exists(), span
        elif span.endswith(".py"):
            assert span.rpartition("/")[2] in file_names(), span
        elif _TEST.fullmatch(span):
            assert is_defined(span), span
        elif method := _METHOD.fullmatch(span):
            assert is_defined(method[1]), span
            assert is_defined(method[2]), span
        elif _NAME.fullmatch(span):
            # A metric's name is composed: a prefix, and what the library appends.
            shortened = span.removeprefix("replicad_")
            names = {span, shortened, span.removesuffix("_total"), shortened.removesuffix("_total")}
            assert names & words(), span


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    examples = _EXAMPLE.findall(page.read_text())
    for named in (*_CODE.findall(prose(page)), *examples):
        if not named.startswith("replicad "):
            continue
        command: click.Command = replicad
        for word in named.split()[1:]:
            if not (isinstance(command, click.Group) and word.islower() and word.isalpha()):
                break
            assert word in command.commands, named
            command = command.commands[word]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(_MAKE.findall(page.read_text())) <= set(targets)


def test_what_the_code_cites_is_written() -> None:
    citations = _CITATION.findall(code())
    assert citations
    for path, section in citations:
        assert (ROOT / path).exists(), path
        assert not section or section in headings(ROOT / path), f"{path}, {section!r}"


def test_every_rule_that_the_code_cites_is_written() -> None:
    written = set(re.findall(r"^\*\*(\d+)\. ", prose(ROOT / "docs/protocol.md"), re.MULTILINE))
    cited = set(re.findall(r"\b[Rr]ules? (\d+)", code()))
    assert len(written) == 13
    assert cited <= written


def test_every_planted_mistake_is_listed() -> None:
    """Each is a row `name`: what it is | rule | seeds it took."""
    page = (ROOT / "docs/testing.md").read_text()
    assert sorted(re.findall(r"^\| `(\w+)`: ", page, re.MULTILINE)) == sorted(MISTAKES)
