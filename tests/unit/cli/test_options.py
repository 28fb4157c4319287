from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from replicad.cli import replicad
from replicad.cli.options import (
    Address,
    AddressType,
    ClusterNameType,
    MinInSyncType,
    OriginType,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8001", ("127.0.0.1", 8001)),
        ("[::1]:0", ("::1", 0)),
        ("host:65535", ("host", 65535)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert AddressType().convert(text, None, None) == Address(*address)


@pytest.mark.parametrize("text", ["8001", ":8001", "host:", "host:65536", "host:-1", "host:x"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(click.BadParameter, match="HOST:PORT"):
        AddressType().convert(text, None, None)


@pytest.mark.parametrize("text", ["forms", "Forms_2-a", "7", "x" * 64])
def test_names_of_clusters(text: str) -> None:
    assert ClusterNameType().convert(text, None, None) == text


@pytest.mark.parametrize("text", ["", "a.changes", "a/members", "-a", "a b", "a#", "x" * 65, "a\n"])
def test_no_names_of_clusters(text: str) -> None:
    with pytest.raises(click.BadParameter, match="1 to 64"):
        ClusterNameType().convert(text, None, None)


@pytest.mark.parametrize(("text", "value"), [("all", "all"), ("1", 1), ("12", 12)])
def test_min_in_sync(text: str, value: int | str) -> None:
    assert MinInSyncType().convert(text, None, None) == value


@pytest.mark.parametrize("text", ["0", "-1", "most", ""])
def test_no_min_in_sync(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither"):
        MinInSyncType().convert(text, None, None)


@pytest.mark.parametrize(
    "command", [[], ["node"], ["gateway"], ["cluster", "init"], ["cluster", "adopt"], ["demo"]]
)
def test_every_command_has_help(command: list[str]) -> None:
    result = CliRunner().invoke(replicad, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_options_come_from_the_environment_too() -> None:
    environment = {"REPLICAD_CLUSTER": "c", "REPLICAD_ZOOKEEPER": "z", "REPLICAD_LISTEN": "bad"}
    result = CliRunner().invoke(replicad, ["gateway"], env=environment)
    assert result.exit_code == 2
    assert "'bad' is not HOST:PORT" in result.output


@pytest.mark.parametrize(
    "text", ["*", "https://forms.example", "http://localhost:3000", "http://[::1]:8080"]
)
def test_origins(text: str) -> None:
    assert OriginType().convert(text, None, None) == text


@pytest.mark.parametrize(
    "text", ["", "forms.example", "https://forms.example/", "https://A.example", "null", "ftp://x"]
)
def test_no_origins(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not an origin"):
        OriginType().convert(text, None, None)
