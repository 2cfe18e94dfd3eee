"""Kafka: one broker in KRaft mode from the same artifacts that its release is made of, fetched by Maven."""

from __future__ import annotations

import base64
import os
import socket
import struct
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from deploy.native.cache import Package
from deploy.native.ports import HOST, answers
from deploy.native.progress import Progress
from deploy.native.server import Server, ServerError
from deploy.native.tools import MAVEN, java, run_tool
from pipeline.atomic import write_whole

VERSION = "4.1.2"
_SLF4J = "1.7.36"  # the version of slf4j-api that this Kafka brings
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dapo.inspection</groupId>
  <artifactId>kafka-broker</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{_SLF4J}</version></dependency>
  </dependencies>
</project>
"""
_JVM = (
    "-Xmx512m",
    # Compile fast instead of well, and collect in one thread: a broker on a machine that does other work starts in half the CPU
    # time, and takes less of what the line needs.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
)
# Hundreds of lines at each start, with the values of settings in them.
_QUIET = "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn"
_NODE = 1
_HEALTH_S = 2.0  # for one answer on loopback


def _build(folder: Path, progress: Progress) -> None:
    maven = MAVEN.path()
    (folder / "pom.xml").write_text(_POM, encoding="utf-8")
    copy = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder / 'libs'}"]
    run_tool(
        [maven, "--batch-mode", "--no-transfer-progress", "--file", str(folder / "pom.xml"), *copy], progress
    )


class KafkaServer(Server):
    """One broker and controller in one process. Topics are made by whoever needs them, never by being named.

    Three listeners: CLIENT is the one to use; INTERNAL is for the broker itself and for administration, always without
    encryption; CONTROLLER is KRaft's. TLS and SASL come through `settings`, for instance
    {"listener.security.protocol.map": "CLIENT:SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "listener.name.client.ssl.keystore.location": ...}.

    Args:
        folder: for its data, settings and log.
        ports: of "client", "internal", "controller"; free ones are picked for the others.
        settings: lines of server.properties, added to ours or in their place.
    """

    NAME = "kafka"
    PORTS = ("client", "internal", "controller")
    START_S: ClassVar[float] = 90.0  # a JVM with two cores that others use too

    def __init__(
        self,
        folder: Path,
        ports: Mapping[str, int] | None = None,
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        super().__init__(folder, ports)
        self._settings = dict(settings or {})

    @classmethod
    def package(cls) -> Package:
        libs = (f"libs/kafka_2.13-{VERSION}.jar", f"libs/slf4j-simple-{_SLF4J}.jar")
        return Package("kafka", VERSION, _build, libs, "43 MB by Maven, 15 s")

    @property
    def bootstrap(self) -> str:
        """host:port of the CLIENT listener."""
        return f"{HOST}:{self.ports['client']}"

    @property
    def internal(self) -> str:
        """host:port of the INTERNAL listener: no encryption, no credentials, for administration in tests."""
        return f"{HOST}:{self.ports['internal']}"

    @property
    def address(self) -> str:
        return self.bootstrap

    def client_environment(self) -> dict[str, str]:
        return {"DAPO_KAFKA__BOOTSTRAP": self.bootstrap}

    @property
    def properties(self) -> Path:
        """server.properties as it was last written."""
        return self.folder / "server.properties"

    def prepare(self, installed: Path) -> None:
        lines = [f"{key}={value}\n" for key, value in self._properties().items()]
        with write_whole(self.properties) as file:
            os.fchmod(file.fileno(), 0o600)  # `settings` may hold passwords
            file.write("".join(lines).encode())
        formatted = self.folder / "formatted"
        if not formatted.exists():
            self._format(installed)
            formatted.touch()  # only now: a format that was killed is done again

    def command(self, installed: Path) -> Sequence[str]:
        return [*_java(installed), "kafka.Kafka", str(self.properties)]

    def healthy(self) -> bool:
        # A broker is listed once it may lead partitions; the CLIENT listener opens last, after that.
        return _listed_brokers(self.ports["internal"]) > 0 and answers(self.ports["client"])

    def _properties(self) -> dict[str, str | int]:
        client, internal, controller = (f"{HOST}:{self.ports[name]}" for name in self.PORTS)
        return {
            "process.roles": "broker,controller",
            "node.id": _NODE,
            "controller.quorum.bootstrap.servers": controller,
            "listeners": f"CLIENT://{client},INTERNAL://{internal},CONTROLLER://{controller}",
            "advertised.listeners": f"CLIENT://{client},INTERNAL://{internal}",
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "INTERNAL",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            # 7 days by default: a reader that stands still for longer would do again all that topics still hold. A year,
            # longer than they are kept.
            "offsets.retention.minutes": 365 * 24 * 60,
            # One node: it is every quorum.
            "default.replication.factor": 1,
            "min.insync.replicas": 1,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            # A broker that was killed is taken back only when its old session is over: 9 s by default, and so long nobody
            # reads or writes. Three missed heartbeats and a bit; shorter would fence a broker on a busy machine.
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 900,
            # 50 by default, to spread them over brokers; here they would only be files to recover after a kill.
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.num.partitions": 4,
            **self._settings,
        }

    def _format(self, installed: Path) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        arguments = ["format", "--standalone", "--ignore-formatted", f"--cluster-id={cluster}"]
        command = [*_java(installed), "kafka.tools.StorageTool", *arguments, "-c", str(self.properties)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServerError(
                f"kafka: {self.folder} can't be formatted:\n  {(done.stdout + done.stderr).strip()}"
            )


def _java(installed: Path) -> list[str]:
    return [java(), *_JVM, _QUIET, "-cp", str(installed / "libs" / "*")]


def _listed_brokers(port: int) -> int:
    """How many brokers the one at `port` lists; 0 where nothing answers.

    Asked by hand, without a client and its threads: it is asked ten times a second until the broker is up. Metadata
    request, version 1, of no topic; the answer begins with its number and the count of brokers.
    """
    request = struct.pack(">hhihi", 3, 1, 1, -1, 0)
    try:
        with socket.create_connection((HOST, port), timeout=_HEALTH_S) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = b""
            while len(answer) < 12:
                part = connection.recv(12 - len(answer))
                if not part:
                    return 0
                answer += part
    except OSError:
        return 0
    count: int = struct.unpack(">iii", answer)[2]
    return count
