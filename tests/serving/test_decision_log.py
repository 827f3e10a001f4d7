"""Stream and spill file -> Delta, each decision exactly once, whatever is killed between the commit and the acknowledgement."""

import fcntl
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from deltalake import DeltaTable

from promolift.contracts.decisions import Candidates, Decision, Envelope, Scores, dump_bytes, read_bytes, read_request
from promolift.contracts.tables import DECISIONS, LEDGER_EVENTS, Table
from promolift.errors import UnavailableError
from promolift.policy.ledger import Budget, Ledger, Order, Proposal
from promolift.policy.ledger_arms import Arm
from promolift.redis_server import redis_server
from serving.kserve import decision_log
from serving.kserve.constraints import fingerprint
from serving.kserve.decision_log import DecisionLog, relay
from serving.kserve.log_delta import DeltaLog, read_decisions
from serving.kserve.log_rows import Rows
from serving.kserve.processes import Processes
from serving.kserve.redis_client import connect
from serving.kserve.spool import settle, spill_to


def record(number: int) -> bytes:
    request = read_request({"request_id": f"r{number}", "shopper_id": "s", "moment": "2017-12-01T12:00:00Z"})
    decision = Decision(f"d{number}", "a", "explored", "explore", {"no_promo": 0.25, "a": 0.75}, 12.5, 300, f"res{number}", "main")
    envelope = Envelope(request, None, Candidates(("a",), {}, "v"), Scores("m-1", (1.0,), (1.0,), (1.0,)), decision, {}, {"total": 4.5})
    return dump_bytes(envelope)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as connection:
        connection.flushall()
        yield connection


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


Write = Callable[[range], None]


@pytest.fixture
def write(client: redis.Redis) -> Write:
    def add(numbers: range) -> None:
        for number in numbers:
            client.xadd(Ledger(client).stream, {"kind": "decision", "record": record(number), "budgets": "main 100 0 0"})

    return add


def drained(client: redis.Redis, lake: Path) -> int:
    return DecisionLog(Ledger(client), DeltaLog(lake), lake.with_name("spill.jsonl")).drain()


def rows(lake: Path, table: Table = DECISIONS) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DeltaTable(str(lake / table.path)).to_pyarrow_table().to_pylist()
    return found


def ids(lake: Path) -> list[str]:
    return sorted(row["decision_id"] for row in rows(lake))


def test_the_table_is_made_from_the_contract_even_when_nothing_waits(client: redis.Redis, lake: Path):
    assert drained(client, lake) == 0
    for table in (DECISIONS, LEDGER_EVENTS):
        schema = DeltaTable(str(lake / table.path)).to_pyarrow_table().schema
        assert tuple(schema.names) == table.names


def test_a_row_says_what_the_contract_promises(client: redis.Redis, lake: Path, write: Write):
    write(range(1))
    assert drained(client, lake) == 1
    [row] = rows(lake)
    assert (row.pop("entry_id") > "0", row.pop("budgets")) == (True, "main 100 0 0")
    assert json.loads(row.pop("envelope")) == json.loads(record(0))
    assert row == {
        "decision_id": "d0", "request_id": "r0", "shopper_id": "s", "moment": datetime(2017, 12, 1, 12, tzinfo=UTC), "promo_id": "a",
        "reason": "explored", "bucket": "explore", "propensity": 0.75, "expected_profit_cents": 12.5, "reserved_cents": 300,
        "model_version": "m-1", "latency_ms": 4.5,
    }  # fmt: skip
    assert [envelope.request.request_id for envelope in read_decisions(lake)] == ["r0"]


def test_what_is_written_leaves_the_stream(client: redis.Redis, lake: Path, write: Write):
    write(range(5))
    assert drained(client, lake) == 5
    assert drained(client, lake) == 0
    write(range(5, 8))
    assert drained(client, lake) == 3
    assert ids(lake) == sorted(f"d{i}" for i in range(8))
    assert client.xlen(Ledger(client).stream) == 0


def test_a_crash_between_commit_and_acknowledgement_writes_nothing_twice(
    client: redis.Redis, lake: Path, write: Write, monkeypatch: pytest.MonkeyPatch
):
    write(range(6))
    with monkeypatch.context() as patch:
        patch.setattr(redis.Redis, "xack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            drained(client, lake)
    assert len(ids(lake)) == 6
    write(range(6, 9))
    assert drained(client, lake) == 9
    assert ids(lake) == sorted(f"d{i}" for i in range(9))


def test_a_crash_before_the_commit_loses_nothing(client: redis.Redis, lake: Path, write: Write, monkeypatch: pytest.MonkeyPatch):
    write(range(4))
    with monkeypatch.context() as patch:
        patch.setattr(DeltaLog, "_append", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            drained(client, lake)
    assert ids(lake) == []
    assert drained(client, lake) == 4
    assert ids(lake) == ["d0", "d1", "d2", "d3"]


def test_a_redis_that_lost_everything_is_read_from_the_beginning_of_its_new_stream(
    client: redis.Redis, lake: Path, write: Write, caplog: pytest.LogCaptureFixture
):
    relay = DecisionLog(Ledger(client), DeltaLog(lake), lake.with_name("spill.jsonl"))
    write(range(2))
    assert relay.drain() == 2
    client.flushall()
    write(range(2, 4))
    assert relay.drain() == 0 and "has lost its stream" in caplog.text
    assert (relay.drain(), ids(lake)) == (2, ["d0", "d1", "d2", "d3"])


class Busy:
    """A sink while which writes, shoppers go on deciding."""

    def __init__(self, write: Write) -> None:
        self.rows, self._write = 0, write

    def write(self, rows: Rows, again: bool) -> None:
        self._write(range(self.rows, self.rows + 5))
        self.rows += len(rows.decisions)


def test_a_drain_ends_under_steady_traffic(client: redis.Redis, lake: Path, write: Write, monkeypatch: pytest.MonkeyPatch):
    """Else the relay would neither say that it is alive nor give expired reservations back."""
    relay = DecisionLog(Ledger(client), Busy(write), lake.with_name("spill.jsonl"))
    write(range(3))
    assert (relay.drain(), relay.drain()) == (3, 5)
    monkeypatch.setattr(decision_log, "BATCH", 2)
    write(range(20))
    assert relay.drain(most=4) == 8


def test_what_was_answered_without_the_ledger_is_settled_with_it(client: redis.Redis, lake: Path):
    """A promo was reserved, but the shopper was told no_promo: nothing stays reserved, and a retry hears no_promo again."""
    ledger, spill = Ledger(client), lake.with_name("spill.jsonl")
    ledger.set_budget_if_unset(1_000)
    envelope = read_bytes(Envelope, record(1))
    told = Decision("told", "no_promo", "deadline", "policy", {"no_promo": 1.0})
    key = fingerprint(envelope.request)
    order = Order("r1", "res1", key, "s", 1_512_129_600, 10**14)
    ledger.decide(order, [Arm("a", 300)], lambda _: Proposal("a", dump_bytes(envelope.decision), record(1)))
    for _ in range(2):
        spill_to(spill)(dump_bytes(replace(envelope, decision=told)))
    drained(client, lake)
    assert (ledger.budget(), spill.exists()) == (Budget(1_000, 0, 0), False)
    again = ledger.decide(order, [Arm("a", 300)], lambda _: Proposal("a", b"another", b"another"))
    assert (again.decision, again.repeated) == (dump_bytes(told), True)
    assert ids(lake) == ["d1", "told"]
    assert [row["event"] for row in rows(lake, LEDGER_EVENTS)] == ["budget", "released"]
    spill_to(spill)(dump_bytes(replace(envelope, decision=told)))
    drained(client, lake)
    assert ids(lake) == ["d1", "told"]


def test_a_line_spilled_while_the_relay_takes_the_file_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, taken = tmp_path / "spill.jsonl", tmp_path / "spill.taken"
    write, lock = spill_to(path), fcntl.flock

    def taken_away(file: Any, kind: int) -> None:
        if not taken.exists():
            path.rename(taken)
        lock(file, kind)

    monkeypatch.setattr(fcntl, "flock", taken_away)
    write(b"one")
    assert (taken.read_bytes(), path.read_bytes()) == (b"", b"one\n")


def test_the_relay_drains_once_more_when_it_is_stopped(client: redis.Redis, redis_url: str, lake: Path, write: Write):
    turns = iter([False, True])

    def stopped(_: float) -> bool:
        write(range(2))
        return next(turns)

    assert relay(redis_url, DeltaLog(lake), lake.with_name("spill"), stopped) == 4


def test_the_relay_returns_expired_reservations(client: redis.Redis, redis_url: str, lake: Path):
    ledger = Ledger(client)
    ledger.set_budget_if_unset(100)
    ledger.decide(Order("r", "res", "f", "s", 0, 1), [Arm("a", 40)], lambda _: Proposal("a", b"", record(1)))
    relay(redis_url, DeltaLog(lake), lake.with_name("spill"), None)
    assert ledger.budget().reserved == 0


def test_redis_down_at_the_start_is_one_sentence_and_status_4(tmp_path: Path):
    with pytest.raises(UnavailableError, match=r"redis://127\.0\.0\.1:1/0 does not answer"):
        relay("redis://127.0.0.1:1/0", DeltaLog(tmp_path / "t"), tmp_path / "s", None)
    command = [sys.executable, "-m", "serving.kserve", "relay", "--once", "--redis-url", "redis://127.0.0.1:1/0", "--lake", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 4
    assert "does not answer" in ended.stderr.splitlines()[-1]


def test_a_pods_own_spool_is_settled_without_a_relay(client: redis.Redis, redis_url: str, tmp_path: Path):
    path, alive, turns = tmp_path / "spool/undelivered.jsonl", tmp_path / "alive", iter([False, True])
    spill_to(path)(record(1))
    settle(redis_url, path, lambda _: next(turns), alive)
    waiting = [row[b"record"] for _, row in client.xrange(Ledger(client).stream)]
    assert [read_bytes(Envelope, row).request.request_id for row in waiting] == ["r1"]
    assert alive.exists() and not path.exists() and not path.with_suffix(".taken").exists()


def test_a_wrong_password_is_said_and_never_printed(tmp_path: Path):
    with redis_server(tmp_path / "redis") as url:
        with redis.Redis.from_url(url) as owner:
            owner.config_set("requirepass", "right")
        port = url.rsplit(":", 1)[1]
        with pytest.raises(UnavailableError, match=r"redis://:\*\*\*@127\.0\.0\.1:\d+/0 refuses the password") as said:
            connect(f"redis://:wr0ng@127.0.0.1:{port}")
        assert "wr0ng" not in str(said.value)
        connect(f"redis://:right@127.0.0.1:{port}").close()


def test_a_record_that_cannot_be_read_is_kept_aside_and_holds_up_no_other(client: redis.Redis, lake: Path, write: Write):
    spilled = lake.with_name("spill.jsonl")
    spill_to(spilled)(record(1))
    spill_to(spilled)(record(2)[:100])  # cut off, as by a full disk
    write(range(3, 4))
    client.xadd(Ledger(client).stream, {"kind": "decision", "record": b"{}"})
    assert drained(client, lake) == 3
    assert ids(lake) == ["d1", "d3"]
    assert spilled.with_suffix(".unreadable").read_bytes().splitlines() == [record(2)[:100], b"{}"]


def test_places_that_cannot_be_written_are_named_at_the_start(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match=r"file.*name another place with --lake"):
        DeltaLog(tmp_path / "file" / "lake")
    with pytest.raises(UnavailableError, match=r"file.*name another file with --spill"):
        spill_to(tmp_path / "file" / "spill.jsonl")
    (tmp_path / "logs").write_text("")
    with pytest.raises(UnavailableError, match=r"logs' cannot be used .*serve a run in a folder that can be written"):
        Processes(tmp_path / "logs")


def test_a_log_that_nothing_was_written_to_is_empty(tmp_path: Path):
    DeltaLog(tmp_path)
    assert read_decisions(tmp_path) == [] == read_decisions(tmp_path, "d1")
