"""The decision log in a real Kafka, where PROMOLIFT_KAFKA names one; without a broker, one sentence."""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from confluent_kafka import Consumer

from promolift.errors import UnavailableError
from promolift.policy.ledger import Ledger, Order, Proposal
from promolift.policy.ledger_arms import Arm
from serving.kserve import log_kafka
from serving.kserve.decision_log import DecisionLog
from serving.kserve.log_kafka import KafkaLog
from tests.serving.test_decision_log import record

BROKERS = os.environ.get("PROMOLIFT_KAFKA", "")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as connection:
        connection.flushall()
        yield connection


def read(name: str, wanted: int) -> list[tuple[str, dict[str, Any]]]:
    """Keys and rows of a topic from its beginning."""
    consumer = Consumer({"bootstrap.servers": BROKERS, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"})
    consumer.subscribe([name])
    found: list[tuple[str, dict[str, Any]]] = []
    for _ in range(60):
        message = consumer.poll(0.5)
        if message is not None and not message.error():
            found.append((message.key().decode(), json.loads(message.value())))
        if len(found) >= wanted:
            break
    consumer.close()
    return found


@pytest.mark.slow
@pytest.mark.skipif(not BROKERS, reason="PROMOLIFT_KAFKA names no broker")
def test_every_entry_of_the_stream_is_in_its_topic_before_the_stream_forgets_it(
    client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    prefix = uuid.uuid4().hex
    monkeypatch.setattr(log_kafka, "topic", lambda name: f"{prefix}.{name}")
    ledger = Ledger(client)
    ledger.set_budget_if_unset(1_000)
    for number in range(5):
        order = Order(f"r{number}", f"res{number}", "f", "s", 1_512_129_600, 10**14)
        ledger.decide(order, [Arm("a", 10)], lambda _, n=number: Proposal("a", b"{}", record(n)))  # type: ignore[misc]
    ledger.commit("res3", 7)
    assert DecisionLog(ledger, KafkaLog(BROKERS), tmp_path / "spill").drain() == 7
    assert client.xlen(ledger.stream) == 0
    decisions, events = read(f"{prefix}.decisions", 5), read(f"{prefix}.ledger_events", 2)
    assert [key for key, _ in decisions] == [row["decision_id"] for _, row in decisions] == [f"d{number}" for number in range(5)]
    assert [row["event"] for _, row in events] == ["budget", "committed"]


def test_no_broker_is_one_sentence():
    with pytest.raises(UnavailableError, match=r"Kafka at 127\.0\.0\.1:1 does not answer"):
        KafkaLog("127.0.0.1:1")
