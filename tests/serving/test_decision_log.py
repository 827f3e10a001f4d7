"""Stream and spill file -> Delta, each decision exactly once, whatever is killed between the commit and the acknowledgement."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
from deltalake import DeltaTable

from promolift.contracts.decisions import Candidates, Decision, Envelope, Scores, dump, read_request
from promolift.contracts.tables import DECISIONS
from promolift.errors import UnavailableError
from promolift.policy.ledger import Ledger
from serving.kserve.decision_log import DecisionLog, read_decisions, relay, spill_to
from serving.kserve.processes import Processes


def record(number: int) -> bytes:
    request = read_request({"request_id": f"r{number}", "shopper_id": "s", "moment": "2017-12-01T12:00:00Z"})
    decision = Decision(f"d{number}", "a", "explored", "explore", {"no_promo": 0.25, "a": 0.75}, 12.5, 300, "res", "2017-12-08T00:00:00Z")
    envelope = Envelope(request, None, Candidates(("a",), {}, "v"), Scores("m-1", (1.0,), (1.0,), (1.0,)), decision, {}, {"total": 4.5})
    return json.dumps(dump(envelope)).encode()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as connection:
        connection.flushall()
        yield connection


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "lake" / "serving" / "decisions"


Write = Callable[[range], None]


@pytest.fixture
def write(client: redis.Redis) -> Write:
    def add(numbers: range) -> None:
        for number in numbers:
            client.xadd(Ledger(client).stream, {"record": record(number)})

    return add


def drained(client: redis.Redis, table: Path) -> int:
    return DecisionLog(client, Ledger(client).stream, table, table.with_name("spill.jsonl")).drain()


def ids(table: Path) -> list[str]:
    return sorted(DeltaTable(str(table)).to_pyarrow_table(columns=["decision_id"]).column(0).to_pylist())


def test_the_table_is_made_from_the_contract_even_when_nothing_waits(client: redis.Redis, table: Path):
    assert drained(client, table) == 0
    schema = DeltaTable(str(table)).to_pyarrow_table().schema
    assert tuple(schema.names) == DECISIONS.names


def test_a_row_says_what_the_contract_promises(client: redis.Redis, table: Path, write: Write):
    write(range(1))
    assert drained(client, table) == 1
    [row] = DeltaTable(str(table)).to_pyarrow_table().to_pylist()
    assert json.loads(row.pop("envelope")) == json.loads(record(0))
    assert row == {
        "decision_id": "d0", "request_id": "r0", "shopper_id": "s", "moment": datetime(2017, 12, 1, 12, tzinfo=UTC), "promo_id": "a",
        "reason": "explored", "bucket": "explore", "propensity": 0.75, "expected_profit_cents": 12.5, "reserved_cents": 300,
        "model_version": "m-1", "latency_ms": 4.5,
    }  # fmt: skip
    assert [envelope.request.request_id for envelope in read_decisions(table)] == ["r0"]


def test_what_is_written_leaves_the_stream(client: redis.Redis, table: Path, write: Write):
    write(range(5))
    assert drained(client, table) == 5
    assert drained(client, table) == 0
    write(range(5, 8))
    assert drained(client, table) == 3
    assert ids(table) == sorted(f"d{i}" for i in range(8))
    assert client.xlen(Ledger(client).stream) == 0


def test_a_crash_between_commit_and_acknowledgement_writes_nothing_twice(
    client: redis.Redis, table: Path, write: Write, monkeypatch: pytest.MonkeyPatch
):
    write(range(6))
    with monkeypatch.context() as patch:
        patch.setattr(redis.Redis, "xack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            drained(client, table)
    assert len(ids(table)) == 6
    write(range(6, 9))
    assert drained(client, table) == 9
    assert ids(table) == sorted(f"d{i}" for i in range(9))


def test_a_crash_before_the_commit_loses_nothing(client: redis.Redis, table: Path, write: Write, monkeypatch: pytest.MonkeyPatch):
    write(range(4))
    with monkeypatch.context() as patch:
        patch.setattr(DecisionLog, "_append", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            drained(client, table)
    assert ids(table) == []
    assert drained(client, table) == 4
    assert ids(table) == ["d0", "d1", "d2", "d3"]


def test_records_spilled_without_redis_are_merged_once(client: redis.Redis, table: Path):
    spill = table.with_name("spill.jsonl")
    spill.parent.mkdir(parents=True)
    for number in (1, 2, 2):
        spill_to(spill)(record(number))
    assert drained(client, table) == 3
    assert ids(table) == ["d1", "d2"]
    assert not spill.exists()
    spill_to(spill)(record(2))
    drained(client, table)
    assert ids(table) == ["d1", "d2"]


def test_the_relay_drains_once_more_when_it_is_stopped(client: redis.Redis, redis_url: str, table: Path, write: Write):
    turns = iter([False, True])

    def stopped(_: float) -> bool:
        write(range(2))
        return next(turns)

    assert relay(redis_url, table, table.with_name("spill"), stopped) == 4


def test_the_relay_returns_expired_reservations(client: redis.Redis, redis_url: str, table: Path):
    ledger = Ledger(client)
    ledger.set_budget_if_unset(100)
    client.hincrby("{promolift}:budget", "reserved", 40)
    client.hset("{promolift}:reservation:x", mapping={"state": "reserved", "cents": 40})
    client.zadd("{promolift}:reservations", {"x": 1})
    relay(redis_url, table, table.with_name("spill"), None)
    assert ledger.state().reserved == 0


def test_redis_down_at_the_start_is_one_sentence_and_status_4(tmp_path: Path):
    with pytest.raises(UnavailableError, match=r"redis://127\.0\.0\.1:1/0 does not answer"):
        relay("redis://127.0.0.1:1/0", tmp_path / "t", tmp_path / "s", None)
    command = [sys.executable, "-m", "serving.kserve", "relay", "--once", "--redis-url", "redis://127.0.0.1:1/0", "--table", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 4
    assert "does not answer" in ended.stderr.splitlines()[-1]


def test_a_record_that_cannot_be_read_is_kept_aside_and_holds_up_no_other(client: redis.Redis, table: Path, write: Write):
    spilled = table.with_name("spill.jsonl")
    spilled.parent.mkdir(parents=True)
    spill_to(spilled)(record(1))
    spill_to(spilled)(record(2)[:100])  # cut off, as by a full disk
    write(range(3, 4))
    client.xadd(Ledger(client).stream, {"record": b"{}"})
    assert drained(client, table) == 3
    assert ids(table) == ["d1", "d3"]
    assert spilled.with_suffix(".unreadable").read_bytes().splitlines() == [record(2)[:100], b"{}"]


def test_places_that_cannot_be_written_are_named_at_the_start(client: redis.Redis, redis_url: str, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match=r"file.*name another place with --table"):
        relay(redis_url, tmp_path / "file" / "decisions", tmp_path / "spill", stopped=None)
    with pytest.raises(UnavailableError, match=r"file.*name another file with --spill"):
        spill_to(tmp_path / "file" / "spill.jsonl")
    (tmp_path / "logs").write_text("")
    with pytest.raises(UnavailableError, match=r"logs' cannot be used .*serve a run in a folder that can be written"):
        Processes(tmp_path / "logs")
