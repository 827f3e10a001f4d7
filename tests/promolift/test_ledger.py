"""The ledger on a real Redis: the budget holds under concurrency, duplicates and any order of calls; check-then-increment does not."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier, get_ident
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from promolift.errors import InputError, UnavailableError
from promolift.policy.ledger import DAY_S, Arm, Ledger, Order, Proposal, State
from promolift.redis_server import redis_server


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with redis_server(tmp_path_factory.mktemp("redis")) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with redis.Redis.from_url(url) as connection:
        connection.flushall()
        yield connection


def order(request_id: str, shopper: str = "s", fingerprint: str = "f", moment_s: int = 1_000_000, expires_ms: int = 2_000) -> Any:
    return Order(request_id, f"res-{request_id}", fingerprint, shopper, moment_s, expires_ms)


def first_that_fits(*arms: Any):
    def choose(refused: Any) -> Any:
        arm = next((a.promo_id for a in arms if a.promo_id not in refused), "no_promo")
        return Proposal(arm, arm.encode(), b'{"refused": %d}' % len(refused))

    return choose


def decide(ledger: Ledger, request_id: str, *arms: Any, **fields: Any) -> Any:
    return ledger.decide(order(request_id, **fields), arms, first_that_fits(*arms)).decision.decode()


def test_a_decision_reserves_logs_and_repeats(client: redis.Redis) -> None:
    ledger, arm = Ledger(client), Arm("a", 40)
    ledger.set_budget_if_unset(100)
    assert ledger.set_budget_if_unset(999) == State(100, 0, 0)
    for _ in range(3):
        assert decide(ledger, "r1", arm) == "a"
    assert ledger.state() == State(100, 0, 40)
    assert client.xlen(ledger.stream) == 1
    with pytest.raises(InputError, match="'r1' was used before"):
        decide(ledger, "r1", arm, fingerprint="other")


def test_an_arm_that_no_longer_fits_leaves_the_choice(client: redis.Redis) -> None:
    ledger = Ledger(client)
    ledger.set_budget_if_unset(100)
    big, small = Arm("big", 70), Arm("small", 20)
    assert [decide(ledger, f"r{i}", big, small) for i in range(4)] == ["big", "small", "no_promo", "no_promo"]
    assert ledger.state() == State(100, 0, 90)
    records = [fields[b"record"] for _, fields in client.xrange(ledger.stream)]
    assert records == [b'{"refused": 0}', b'{"refused": 1}', b'{"refused": 2}', b'{"refused": 2}']


def test_caps_count_each_promo_and_shopper_by_moment(client: redis.Redis) -> None:
    ledger, arm = Ledger(client), Arm("a", 1, cap_per_day=1, cap_per_week=2)
    ledger.set_budget_if_unset(100)
    hours = [0, 1, 25, 49, 26 + 7 * 24]
    given = [decide(ledger, f"r{h}", arm, moment_s=1_000_000 + 3600 * h) for h in hours]
    assert given == ["a", "no_promo", "a", "no_promo", "a"]
    assert decide(ledger, "other shopper", arm, shopper="t") == "a"


def test_moments_out_of_order_cannot_break_a_cap(client: redis.Redis) -> None:
    ledger, arm = Ledger(client), Arm("a", 1, cap_per_day=1)
    ledger.set_budget_if_unset(100)
    assert decide(ledger, "later", arm, moment_s=1_000_000) == "a"
    assert decide(ledger, "earlier", arm, moment_s=1_000_000 - DAY_S + 1) == "no_promo"


def test_commit_spends_once_and_returns_the_rest(client: redis.Redis) -> None:
    ledger = Ledger(client)
    ledger.set_budget_if_unset(100)
    decide(ledger, "r", Arm("a", 40))
    with pytest.raises(InputError, match="holds 40 cents"):
        ledger.commit("res-r", 41)
    for _ in range(2):
        ledger.commit("res-r", 25)
    assert ledger.state() == State(100, 25, 0)
    for reservation, cents, words in (("res-r", 24, "committed before with 25"), ("x", 1, "unknown"), ("res-r", -1, "-1 cents")):
        with pytest.raises(InputError, match=words):
            ledger.commit(reservation, cents)


def test_expiry_returns_each_reservation_exactly_once(client: redis.Redis) -> None:
    ledger = Ledger(client)
    ledger.set_budget_if_unset(100)
    for i in range(3):
        decide(ledger, f"r{i}", Arm("a", 10), expires_ms=1_000 * (i + 1))
    ledger.commit("res-r0", 10)
    assert ledger.expire(now_ms=2_500) == (1, 10)
    assert ledger.expire(now_ms=2_500) == (0, 0)
    assert ledger.state() == State(100, 10, 10)
    with pytest.raises(InputError, match="has expired"):
        ledger.commit("res-r1", 5)
    assert ledger.expire() == (1, 10)  # Redis' own clock is far past 3 s


def test_without_a_budget_nothing_is_decided(client: redis.Redis):
    with pytest.raises(UnavailableError, match="no budget"):
        decide(Ledger(client), "r", Arm("a", 1))


def race(url: str, work: Any) -> None:
    """`work(client)` in eight threads at the same moment."""
    gate = Barrier(8)

    def run(_: Any) -> None:
        with redis.Redis.from_url(url) as own:
            own.ping()
            gate.wait()
            work(own)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))


def test_concurrent_callers_never_overspend(client: redis.Redis, url: str) -> None:
    ledger = Ledger(client)
    ledger.set_budget_if_unset(1_000)

    def work(own: redis.Redis) -> None:
        for i in range(150):  # every request is sent by all eight threads
            decide(Ledger(own), f"r{i}", Arm("a", 10), shopper=f"s{i}", expires_ms=10**15)

    race(url, work)
    assert ledger.state() == State(1_000, 0, 1_000)
    assert client.xlen(ledger.stream) == 150
    answers = Counter(client.hget(key, "decision") for key in client.keys("{promolift}:request:*"))
    assert answers == {b"a": 100, b"no_promo": 50}


def test_check_then_increment_overspends_where_the_ledger_does_not(client: redis.Redis, url: str) -> None:
    """What many shops do (read, compare, write) against the ledger: 40 races for a budget that holds one promo."""
    naive = safe = 0
    for race_number in range(40):
        key, name, ledger = f"naive{race_number}", f"n{race_number}", Ledger(client, f"n{race_number}")
        ledger.set_budget_if_unset(10)

        def work(own: redis.Redis, key: str = key, name: str = name) -> None:
            if int(own.get(key) or 0) + 10 <= 10:
                own.incrby(key, 10)
            decide(Ledger(own, name), str(get_ident()), Arm("a", 10), shopper=str(get_ident()))

        race(url, work)
        naive += int(client.get(key)) > 10
        safe += ledger.state().reserved > 10
    assert safe == 0
    assert naive > 0


@dataclass
class Model:
    """The ledger in memory: what a reader can check by eye."""

    total: int
    committed: int = 0
    held: dict[str, tuple[int, int]] = field(default_factory=dict)  # id -> cents, expires
    decided: dict[str, str] = field(default_factory=dict)

    def decide(self, request_id: str, cents: int, expires: int) -> Any:
        if request_id not in self.decided:
            fits = self.committed + sum(c for c, _ in self.held.values()) + cents <= self.total
            self.decided[request_id] = "a" if fits else "no_promo"
            if fits:
                self.held[f"res-{request_id}"] = (cents, expires)
        return self.decided[request_id]


class LedgerMachine(RuleBasedStateMachine):
    """Any order of decide, commit and expire keeps Redis equal to the model and within the budget."""

    client: redis.Redis

    @initialize(total=st.integers(0, 60))
    def start(self, total: int) -> None:
        self.client.flushall()
        self.ledger, self.model = Ledger(self.client), Model(total)
        self.ledger.set_budget_if_unset(total)

    @rule(request=st.integers(0, 12), cents=st.integers(1, 30), expires=st.integers(1, 50))
    def decide(self, request: int, cents: int, expires: int) -> None:
        expected = self.model.decide(f"r{request}", cents, expires)
        assert decide(self.ledger, f"r{request}", Arm("a", cents), shopper=f"s{request}", expires_ms=expires) == expected

    @rule(request=st.integers(0, 12), cents=st.integers(0, 30))
    def commit(self, request: int, cents: int) -> None:
        held = self.model.held.get(f"res-r{request}")
        if held and cents <= held[0]:
            self.ledger.commit(f"res-r{request}", cents)
            self.model.committed += cents
            del self.model.held[f"res-r{request}"]

    @rule(now=st.integers(1, 50))
    def expire(self, now: int) -> None:
        due = {name: row for name, row in self.model.held.items() if row[1] <= now}
        assert self.ledger.expire(now_ms=now) == (len(due), sum(c for c, _ in due.values()))
        self.model.held = {name: row for name, row in self.model.held.items() if name not in due}

    @invariant()
    def equal_and_within_budget(self):
        if not hasattr(self, "model"):
            return
        state = self.ledger.state()
        assert state == State(self.model.total, self.model.committed, sum(c for c, _ in self.model.held.values()))
        assert state.committed + state.reserved <= state.total
        assert self.client.xlen(self.ledger.stream) == len(self.model.decided)


def test_any_sequence_equals_the_model(client: redis.Redis):
    class Machine(LedgerMachine):
        pass

    Machine.client = client
    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)),
    )
    assert client.ping()
