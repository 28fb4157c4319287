from __future__ import annotations

import pytest
from click.testing import CliRunner

from api_gateway.main import GatewaySettings
from api_gateway.web.limits import Limits
from replicad.cli import replicad

GATEWAY = ("gateway", "--cluster", "c", "--zookeeper", "z:2181", "--listen", "127.0.0.1:8080")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[GatewaySettings]:
    """The settings with which gateways were started."""
    settings: list[GatewaySettings] = []
    monkeypatch.setattr("api_gateway.main.run_gateway", settings.append)
    monkeypatch.setattr("replicad.cli.daemons.configure_logging", lambda **_: None)
    return settings


def test_a_gateway_has_defaults(started: list[GatewaySettings]) -> None:
    assert CliRunner().invoke(replicad, GATEWAY).exit_code == 0
    assert started == [GatewaySettings("c", "z:2181", "127.0.0.1", 8080)]


def test_limits_and_origins_of_a_gateway(started: list[GatewaySettings]) -> None:
    limits = ("--in-flight-max", "10", "--rate-per-client", "0.5", "--rate-burst", "3")
    origins = ("--cors-origin", "https://a.example", "--cors-origin", "http://b.example:81")
    assert CliRunner().invoke(replicad, [*GATEWAY, *limits, *origins]).exit_code == 0
    (settings,) = started
    assert settings.limits == Limits(10, 0.5, 3)
    assert settings.cors_origins == {"https://a.example", "http://b.example:81"}


def test_limits_and_origins_from_the_environment(started: list[GatewaySettings]) -> None:
    environment = {
        "REPLICAD_IN_FLIGHT_MAX": "7",
        "REPLICAD_RATE_PER_CLIENT": "100",
        "REPLICAD_CORS_ORIGINS": "https://a.example https://b.example",
    }
    assert CliRunner().invoke(replicad, GATEWAY, env=environment).exit_code == 0
    (settings,) = started
    assert settings.limits == Limits(7, 100)
    assert settings.cors_origins == {"https://a.example", "https://b.example"}


@pytest.mark.parametrize(
    "options",
    [
        ("--in-flight-max", "0"),
        ("--rate-per-client", "0"),
        ("--rate-burst", "5"),
        ("--cors-origin", "https://a.example/path"),
    ],
)
def test_limits_that_make_no_sense(
    started: list[GatewaySettings], options: tuple[str, ...]
) -> None:
    assert CliRunner().invoke(replicad, [*GATEWAY, *options]).exit_code == 2
    assert not started
