"""The JSON object by which scripts know a stack. Stable: see docs/stack.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypedDict

from replicad.stack.ports import LOOPBACK
from replicad.stack.rabbitmq import amqp_url, management_url
from replicad.stack.record import Backend, Record


class Gateway(TypedDict):
    """One gateway; `pid` is null while it is stopped, here and below."""

    url: str
    pid: int | None


class Node(TypedDict):
    """One replica."""

    name: str
    url: str
    pid: int | None
    data_dir: str


class RabbitMQ(TypedDict):
    """The broker, with credentials in `amqp`."""

    amqp: str
    management: str
    pid: int | None


class ZooKeeper(TypedDict):
    """The coordinator; `hosts` is a connection string."""

    hosts: str
    pid: int | None


class Description(TypedDict):
    """A whole stack. `gateways` is there when a number of gateways was asked for."""

    backend: Backend
    dir: str
    gateway: Gateway
    gateways: NotRequired[list[Gateway]]
    nodes: list[Node]
    rabbitmq: RabbitMQ | None
    zookeeper: ZooKeeper | None


def describe(record: Record, pids: Mapping[str, int]) -> Description:
    """Describe the stack; `pids` names what runs now."""
    gateways: list[Gateway] = [
        {"url": http_url(record, name), "pid": pids.get(name)}
        for name in record.settings.gateway_names
    ]
    nodes: list[Node] = [
        {
            "name": name,
            "url": http_url(record, name),
            "pid": pids.get(name),
            "data_dir": str(record.data_dir(name)),
        }
        for name in record.settings.node_names
    ]
    description: Description = {
        "backend": record.settings.backend,
        "dir": str(record.directory),
        "gateway": gateways[0],
        "nodes": nodes,
        "rabbitmq": None,
        "zookeeper": None,
    }
    if record.settings.lists_gateways:
        description["gateways"] = gateways
    if record.settings.backend != "embedded":
        description["rabbitmq"] = {
            "amqp": amqp_url(record.password, record.ports["amqp"]),
            "management": management_url(record.ports["management"]),
            "pid": pids.get("rabbitmq"),
        }
        description["zookeeper"] = {
            "hosts": zookeeper_hosts(record),
            "pid": pids.get("zookeeper"),
        }
    return description


def http_url(record: Record, name: str) -> str:
    """The address of a replica or gateway."""
    return f"http://{LOOPBACK}:{record.ports[name]}"


def zookeeper_hosts(record: Record) -> str:
    """The coordinator's connection string."""
    return f"{LOOPBACK}:{record.ports['zookeeper']}"
