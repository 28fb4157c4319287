from __future__ import annotations

import json
from pathlib import Path

from replicad.stack.description import describe
from replicad.stack.record import Backend, Record, Settings

PORTS = {
    "n1": 20001,
    "n2": 20002,
    "gateway": 20010,
    "gateway2": 20011,
    "amqp": 20020,
    "management": 20021,
    "zookeeper": 20030,
}


def record(backend: Backend, *, lists_gateways: bool = False) -> Record:
    settings = Settings(backend, 2, 2, 2, lists_gateways=lists_gateways, gateway_port=None)
    return Record(Path("/dir"), settings, identity="id", password="pw", ports=PORTS)  # noqa: S106


def test_the_object_that_scripts_rely_on() -> None:
    pids = {"n1": 1, "gateway": 3, "rabbitmq": 4, "zookeeper": 5}
    assert json.loads(json.dumps(describe(record("native"), pids))) == {
        "backend": "native",
        "dir": "/dir",
        "gateway": {"url": "http://127.0.0.1:20010", "pid": 3},
        "nodes": [
            {"name": "n1", "url": "http://127.0.0.1:20001", "pid": 1, "data_dir": "/dir/data/n1"},
            {
                "name": "n2",
                "url": "http://127.0.0.1:20002",
                "pid": None,
                "data_dir": "/dir/data/n2",
            },
        ],
        "rabbitmq": {
            "amqp": "amqp://replicad:pw@127.0.0.1:20020/%2F",
            "management": "http://127.0.0.1:20021/",
            "pid": 4,
        },
        "zookeeper": {"hosts": "127.0.0.1:20030", "pid": 5},
    }


def test_all_gateways_stand_beside_the_first_when_a_number_was_asked_for() -> None:
    description = describe(record("native", lists_gateways=True), {"gateway2": 9})
    assert description["gateways"] == [
        {"url": "http://127.0.0.1:20010", "pid": None},
        {"url": "http://127.0.0.1:20011", "pid": 9},
    ]
    assert description["gateway"] == description["gateways"][0]


def test_an_embedded_stack_has_no_servers() -> None:
    description = describe(record("embedded"), {})
    assert description["rabbitmq"] is None
    assert description["zookeeper"] is None
