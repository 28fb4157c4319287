"""`replicad stack`, as scripts use it, on every backend that is to be tested."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replicad.cli.demo import log_hash
from replicad.stack.ports import LOOPBACK, free_port, is_free
from replicad.stack.processes import wait_until
from replicad.stack.readiness import cluster_view, unready_reason
from tests.support.stack import BACKENDS, Stack

pytestmark = pytest.mark.timeout(900)
NODES = ("n1", "n2", "n3")
NATIVE = pytest.mark.skipif("native" not in BACKENDS, reason="needs processes of its own")


@pytest.fixture(scope="module", params=BACKENDS)
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A running stack of three; tests leave it complete."""
    stack = Stack(tmp_path_factory.mktemp("stack"), request.param)
    stack.up()
    yield stack
    stack.down()


@pytest.fixture
def native(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path, "native")
    yield stack
    stack.down()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path, "embedded")
    yield stack
    stack.down()


def is_ready(stack: Stack) -> bool:
    now = stack.description
    return unready_reason([now["gateway"]["url"]], [node["name"] for node in now["nodes"]]) is None


def store(stack: Stack, key: str) -> int:
    """Store one form and return its index."""
    request = urllib.request.Request(  # noqa: S310 - a loopback address
        f"{stack.description['gateway']['url']}/API/IngresarFormulario",
        json.dumps({"id": key}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=15) as answer:  # noqa: S310
        return int(answer.headers["X-Replicad-Index"])


def log_hashes(stack: Stack) -> set[str]:
    return {log_hash(Path(node["data_dir"])) for node in stack.description["nodes"]}


def exists(pid: int) -> bool:
    """Whether a process runs; one that nobody reaps, as in some containers, does not."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_up_describes_a_stack_that_can_be_used(stack: Stack) -> None:
    now = stack.description
    assert list(now) == ["backend", "dir", "gateway", "nodes", "rabbitmq", "zookeeper"]
    assert now["backend"] == stack.backend
    assert now["dir"] == str(stack.directory)
    assert [node["name"] for node in now["nodes"]] == list(NODES)
    assert {node["data_dir"] for node in now["nodes"]} == {
        str(stack.directory / "data" / name) for name in NODES
    }
    view = cluster_view(now["gateway"]["url"])
    assert view is not None
    assert view["leader"] in NODES
    assert sorted(view["isr"]) == list(NODES)
    assert is_ready(stack)


def test_pids_are_those_of_the_daemons(stack: Stack) -> None:
    pids = stack.pids()
    assert all(pids.values())
    if stack.backend == "embedded":
        assert len(set(pids.values())) == 1
        return
    assert len(set(pids.values())) == len(pids)
    programs = {
        name: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for name, pid in pids.items()
    }
    assert programs["rabbitmq"][0].endswith(b"beam.smp")
    assert programs["zookeeper"][0].endswith(b"java")
    for name in NODES:
        assert b"node" in programs[name]


def test_status_says_the_same_as_up(stack: Stack) -> None:
    assert stack.status() == stack.description


def test_up_on_a_running_stack_changes_nothing(stack: Stack) -> None:
    before = stack.description
    assert stack.up() == before


def test_a_killed_replica_is_gone_until_it_is_started_again(stack: Stack) -> None:
    before = stack.pids()
    stack.run("stop", "n2", "--signal", "KILL")
    assert stack.pids() == before | {"n2": None}
    store(stack, "while-n2-was-away")

    stack.run("start", "n2")
    pids = stack.pids()
    assert pids["n2"] is not None
    assert {**pids, "n2": 0} == {**before, "n2": 0}
    assert wait_until(lambda: is_ready(stack), 30)
    assert wait_until(lambda: len(log_hashes(stack)) == 1, 30)


def test_start_leaves_a_running_one_alone(stack: Stack) -> None:
    before = stack.pids()
    for name in before:
        if name != "rabbitmq" or stack.backend != "embedded":
            stack.run("start", name)
    assert stack.pids() == before


def test_the_gateway_keeps_its_address(stack: Stack) -> None:
    stack.run("stop", "gateway")
    assert stack.pids()["gateway"] is None
    stack.run("start", "gateway")
    assert wait_until(lambda: is_ready(stack), 30)


def test_up_starts_what_is_missing(stack: Stack) -> None:
    before = stack.pids()
    stack.run("stop", "n3")
    stack.run("stop", "gateway")
    stack.up()
    pids = stack.pids()
    assert all(pids.values())
    assert pids["n1"] == before["n1"]


def test_no_such_replica(stack: Stack) -> None:
    for verb in ("start", "stop"):
        done = stack.run(verb, "n9", check=False)
        assert done.returncode == 1
        assert "n9" in done.stderr


@pytest.mark.parametrize(
    "option", [("--replicas", "5"), ("--min-in-sync", "all"), ("--gateways", "2")]
)
def test_an_option_that_contradicts_the_first_start(stack: Stack, option: tuple[str, str]) -> None:
    done = stack.run("up", "--detach", *option, check=False)
    assert done.returncode == 1
    assert f"was made with {option[0]}" in done.stderr
    assert all(stack.pids().values())


def test_its_file_is_private(stack: Stack) -> None:
    assert (stack.directory / "stack.json").stat().st_mode & 0o777 == 0o600


def test_it_goes_down_twice_and_comes_back_with_its_data(stack: Stack) -> None:
    index = store(stack, "before-down")
    pids = {pid for pid in stack.pids().values() if pid is not None}
    stack.down()
    assert wait_until(lambda: not any(map(exists, pids)), 10)
    assert set(stack.pids().values()) == {None}
    stack.down()
    stack.up()
    assert store(stack, "after-up") > index
    view: dict[str, Any] | None = cluster_view(stack.description["gateway"]["url"])
    assert view is not None
    assert view["epoch"] >= 2


def test_down_without_a_stack(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "none", "embedded")
    stack.down()
    assert stack.run("status", check=False).returncode == 1


def test_a_given_gateway_port_and_several_gateways(embedded: Stack) -> None:
    port = free_port(())
    now = embedded.up("--gateway-port", str(port), "--gateways", "2")
    assert now["gateway"]["url"] == f"http://{LOOPBACK}:{port}"
    assert now["gateways"][0] == now["gateway"]
    assert len(now["gateways"]) == 2
    for gateway in now["gateways"]:
        assert cluster_view(gateway["url"]) is not None


def test_a_taken_gateway_port(tmp_path: Path) -> None:
    stack = Stack(tmp_path, "embedded")
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        done = stack.run(
            "up", "--backend", "embedded", "--detach", "--gateway-port", str(port), check=False
        )
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr


def test_two_stacks_side_by_side(embedded: Stack, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Stack(tmp_path_factory.mktemp("other"), "embedded")
    embedded.up()
    try:
        other.up()
        store(embedded, "only-here")
        store(other, "only-there")
        other.down()
        assert is_ready(embedded)
    finally:
        other.down()


def test_min_in_sync_all(embedded: Stack) -> None:
    embedded.up("--min-in-sync", "all")
    view = cluster_view(embedded.description["gateway"]["url"])
    assert view is not None
    assert view["min_in_sync"] == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_a_signal_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "replicad.cli", "stack", "up", "--backend", "embedded"]
    with subprocess.Popen(  # noqa: S603 - our own arguments
        [*command, "--json", "--dir", str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        now = json.loads(process.stdout.readline())
        process.send_signal(number)
        process.wait(20)
    assert wait_until(lambda: not exists(now["gateway"]["pid"]), 5)
    assert is_free(int(now["gateway"]["url"].rpartition(":")[2]))


@NATIVE
def test_down_after_the_starter_was_killed(native: Stack) -> None:
    command = [sys.executable, "-m", "replicad.cli", "stack", "up", "--backend", "native"]
    record = native.directory / "stack.json"
    with subprocess.Popen([*command, "--dir", str(native.directory)]) as starter:  # noqa: S603
        assert wait_until(lambda: record.exists() and '"rabbitmq": [' in record.read_text(), 30)
        starter.kill()
    pids = {process[0] for process in json.loads(record.read_text())["processes"].values()}
    assert pids
    native.down()
    assert not any(map(exists, pids))


@NATIVE
def test_start_waits_out_a_process_that_is_exiting(native: Stack) -> None:
    native.up("--replicas", "1")
    pid = native.pids()["n1"]
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    native.run("start", "n1")
    assert native.pids()["n1"] not in (None, pid)
    assert wait_until(lambda: is_ready(native), 30)


def test_an_embedded_stack_survives_the_loss_of_its_process(embedded: Stack) -> None:
    pid = embedded.up()["gateway"]["pid"]
    index = store(embedded, "before-the-crash")
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not exists(pid), 5)
    embedded.up()
    assert store(embedded, "after-the-crash") > index
    assert len(log_hashes(embedded)) == 1
