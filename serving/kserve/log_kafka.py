"""Rows of the decision log -> Kafka topics, acknowledged by all in-sync replicas before the ledger's stream forgets them."""

import json
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from promolift.contracts.tables import DECISIONS, LEDGER_EVENTS
from promolift.delta_rows import Row
from promolift.errors import UnavailableError
from serving.kserve.log_rows import Rows

DELIVERY_S = 30


def topic(name: str) -> str:
    """The topic of a table."""
    return f"promolift.{name}"


class KafkaLog:
    """A producer for both topics, keyed as the tables are: what is sent again is dropped by whoever reads, by that key."""

    def __init__(self, brokers: str) -> None:
        self._brokers = brokers
        self._producer = Producer({
            "bootstrap.servers": brokers, "enable.idempotence": True, "acks": "all", "delivery.timeout.ms": DELIVERY_S * 1000,
            "linger.ms": 5, "compression.type": "zstd",
        })  # fmt: skip
        try:
            self._producer.list_topics(timeout=10)
        except KafkaException as problem:
            raise UnavailableError(f"Kafka at {brokers} does not answer ({problem}); start it or set PROMOLIFT_KAFKA.") from problem

    def write(self, rows: Rows, again: bool) -> None:
        """Send the rows and wait until all are acknowledged. Raises OSError when one is not: they are sent again then."""
        failed: list[KafkaError] = []

        def delivered(problem: KafkaError | None, _: Any) -> None:
            if problem is not None:
                failed.append(problem)

        for table, found in ((DECISIONS, rows.decisions), (LEDGER_EVENTS, rows.events)):
            for row in found:
                self._producer.produce(topic(table.name), _json(row), key=str(row[table.key[0]]), on_delivery=delivered)
                self._producer.poll(0)
        left = self._producer.flush(DELIVERY_S)
        if failed or left:
            raise OSError(f"Kafka at {self._brokers} did not take {left + len(failed)} rows ({failed[:1]})")


def _json(row: Row) -> bytes:
    return json.dumps(row, default=str).encode()
