"""Topics on the broker: what is there, and making what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from kafka import KafkaAdminClient
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType

from dapo.errors import LogRefused, ServiceUnavailable
from dapo.pack import Pack
from dapo.vocabulary import UNKNOWN_SLUG
from pipeline.kafka.connect import connection
from pipeline.settings import KafkaSettings
from pipeline.stream.retention import Found, Plan, like
from pipeline.stream.topics import Topics


class TopicAdmin:
    """Looks at topics and makes them.

    Raises:
        ServiceUnavailable: no broker answers.
        LogRefused: the credentials are not taken.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        with _explained(settings):
            self._admin = KafkaAdminClient(**connection(settings, "dapo-topics"))
        self._settings = settings

    def find(self, names: Iterable[str]) -> dict[str, Found]:
        """Those of these topics that the broker has."""
        with _explained(self._settings):
            there = set(self._admin.list_topics())
            wanted = [name for name in names if name in there]
            if not wanted:
                return {}
            described = {one["name"]: one for one in self._admin.describe_topics(wanted)}
            resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in wanted]
            configs = self._admin.describe_configs(resources, config_filter="all")["topic"]
        return {
            name: Found(
                partitions=len(described[name]["partitions"]),
                replication=min(len(one["replica_nodes"]) for one in described[name]["partitions"]),
                config={key: str(entry["value"]) for key, entry in configs[name].items()},
            )
            for name in wanted
        }

    def offsets_kept(self) -> int | None:
        """For how many minutes brokers remember how far a group without members has read: the least of all of them.

        None where this user may not see it: that takes DescribeConfigs on the cluster.
        """
        name = "offsets.retention.minutes"
        with _explained(self._settings):
            brokers = [one for one in self._admin.describe_cluster()["brokers"] if not one.get("is_fenced")]
            asked = [
                ConfigResource(ConfigResourceType.BROKER, str(one["broker_id"]), {name: None})
                for one in brokers
            ]
            configs = self._admin.describe_configs(asked, config_filter="all").get("broker", {})
        values = [int(config[name]["value"]) for config in configs.values() if name in config]
        return min(values, default=None)

    def create(self, plans: Sequence[Plan]) -> None:
        """Make topics, and return when they can be written to.

        Raises:
            LogRefused: the broker will not; it says why.
        """
        if not plans:
            return
        wanted = {
            one.name: {
                "num_partitions": one.partitions,
                "replication_factor": one.replication,
                "configs": dict(one.config),
            }
            for one in plans
        }
        with _explained(self._settings):
            self._admin.create_topics(wanted, wait_for_metadata=True)

    def create_types(self, topics: Topics, pack: Pack) -> list[str]:
        """Make the topics of a pack's types that are missing, each like that of unknown defects; their names.

        Raises:
            LogRefused: the topics of the line are missing altogether, or the broker will not.
        """
        model = topics.defects(UNKNOWN_SLUG)
        found = self.find(topics.all(pack))
        missing = [name for name in topics.all(pack) if name not in found]
        strange = [name for name in missing if not name.startswith(topics.defects(""))]
        if strange or model not in found:
            raise LogRefused(
                f"the broker lacks {(strange or [model])[0]}. Make the line's topics with 'dapo topics create'."
            )
        self.create([like(found[model], name) for name in missing])
        return missing

    def close(self) -> None:
        """Close the connection."""
        self._admin.close()


@contextmanager
def _explained(settings: KafkaSettings) -> Iterator[None]:
    try:
        yield
    except (kafka_errors.KafkaConnectionError, kafka_errors.KafkaTimeoutError) as error:
        raise ServiceUnavailable(
            f"kafka.bootstrap: no broker answers at {settings.bootstrap}: {error}. Is it running ('dapo doctor'), and is"
            f" {settings.security_protocol} (kafka.security_protocol) what it speaks on this port?"
        ) from error
    except kafka_errors.TopicAlreadyExistsError:
        return  # somebody else was faster
    except kafka_errors.KafkaError as error:
        raise LogRefused(
            f"the broker at {settings.bootstrap} refuses: {type(error).__name__}: {error}"
        ) from error
