"""A private ZooKeeper server from Debian's package, on a loopback port of its own."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from replicad.errors import StackError
from replicad.stack.ports import LOOPBACK

JARS = Path("/usr/share/java")
_NEEDED = (
    "zookeeper",
    "zookeeper-jute",
    "slf4j-api",
    "slf4j-log4j12",
    "log4j-1.2",
    "netty-all",
    "snappy-java",
    "metrics-core",
    "commons-cli",
)

_CONFIG = """\
dataDir={data}
clientPortAddress={address}
clientPort={port}
tickTime=250
minSessionTimeout=500
maxClientCnxns=0
autopurge.snapRetainCount=3
autopurge.purgeInterval=1
admin.enableServer=false
4lw.commands.whitelist=ruok,mntr,stat
"""
_LOGGING = """\
log4j.rootLogger=INFO, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d{ISO8601} %-5p %c{1} %m%n
"""


def is_installed() -> bool:
    """Whether Debian's packages for it are there."""
    return shutil.which("java") is not None and all(
        (JARS / f"{jar}.jar").exists() for jar in _NEEDED
    )


def prepare(directory: Path, port: int) -> list[str]:
    """Write the configuration below `directory` and return the command that starts the server.

    Raises:
        StackError: Java is not installed.
    """
    java = shutil.which("java")
    if java is None:
        raise StackError("ZooKeeper needs Java: apt-get install zookeeper")
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    config = directory / "zoo.cfg"
    config.write_text(_CONFIG.format(data=data, address=LOOPBACK, port=port))
    logging = directory / "log4j.properties"
    logging.write_text(_LOGGING)
    return [
        java,
        "-Xmx128m",
        f"-Dlog4j.configuration={logging.as_uri()}",
        "-Djava.net.preferIPv4Stack=true",
        "-cp",
        ":".join(str(JARS / f"{jar}.jar") for jar in _NEEDED),
        "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        str(config),
    ]


def answers(port: int) -> bool:
    """Whether the server says that it is in order."""
    try:
        with socket.create_connection((LOOPBACK, port), 1.0) as connection:
            connection.sendall(b"ruok")
            return connection.recv(4) == b"imok"
    except OSError:
        return False
