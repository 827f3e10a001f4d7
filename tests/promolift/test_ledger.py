"""The ledger on a real Redis: the budget holds under concurrency, duplicates and any order of calls; check-then-increment does not."""

import json
import random
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

from promolift.errors import ConflictError, InputError, UnavailableError
from promolift.policy.constraints import Standing
from promolift.policy.ledger import DAY_S, Budget, Change, Ledger, Order, Proposal
from promolift.policy.ledger_arms import Arm
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


FAR = 10**14
"""Milliseconds after any test: only `expire(now_ms=...)` reaches it."""


def order(
    request_id: str, shopper: str = "s", fingerprint: str = "f", moment_s: int = 1_000_000, expires_ms: int = FAR, **caps: Any
) -> Any:
    return Order(request_id, f"res-{request_id}", fingerprint, shopper, moment_s, expires_ms, **caps)


def first_that_fits(*arms: Any):
    def choose(standing: Standing) -> Proposal:
        arm = next((a for a in arms if a.promo_id not in standing.refused), None)
        name = arm.promo_id if arm else ""
        return Proposal(name, (name or "no_promo").encode(), b'{"refused": %d}' % len(standing.refused), float(arm.cents) if arm else 0.0)

    return choose


def kinds(client: redis.Redis, ledger: Ledger) -> dict[str, int]:
    """What is in the outbox: decisions, and events by name."""
    rows = [fields for _, fields in client.xrange(ledger.stream)]
    return dict(Counter(json.loads(r[b"record"])["event"] if r[b"kind"] == b"event" else "decision" for r in rows))


def decide(ledger: Ledger, request_id: str, *arms: Any, **fields: Any) -> Any:
    return ledger.decide(order(request_id, **fields), arms, first_that_fits(*arms)).decision.decode()


def test_a_decision_reserves_logs_and_repeats(client: redis.Redis) -> None:
    ledger, arm = Ledger(client), Arm("a", 40)
    ledger.set_budget_if_unset(100)
    assert ledger.set_budget_if_unset(999) == Budget(100, 0, 0)
    for _ in range(3):
        assert decide(ledger, "r1", arm) == "a"
    assert ledger.budget() == Budget(100, 0, 40)
    assert kinds(client, ledger) == {"budget": 1, "decision": 1}
    with pytest.raises(InputError, match="'r1' was used before"):
        decide(ledger, "r1", arm, fingerprint="other")


def test_an_arm_that_no_longer_fits_leaves_the_choice(client: redis.Redis) -> None:
    ledger = Ledger(client)
    ledger.set_budget_if_unset(100)
    big, small = Arm("big", 70), Arm("small", 20)
    assert [decide(ledger, f"r{i}", big, small) for i in range(4)] == ["big", "small", "no_promo", "no_promo"]
    assert ledger.budget() == Budget(100, 0, 90)
    records = [fields[b"record"] for _, fields in client.xrange(ledger.stream) if fields[b"kind"] == b"decision"]
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
    assert ledger.budget() == Budget(100, 25, 0)
    for reservation, cents, words in (("res-r", 24, "committed before with 25"), ("x", 1, "unknown"), ("res-r", -1, "-1 cents")):
        with pytest.raises(InputError, match=words):
            ledger.commit(reservation, cents)


def test_expiry_returns_each_reservation_exactly_once(client: redis.Redis) -> None:
    ledger = Ledger(client)
    ledger.set_budget_if_unset(100)
    for i in range(3):
        decide(ledger, f"r{i}", Arm("a", 10), expires_ms=FAR + 1_000 * (i + 1))
    ledger.commit("res-r0", 10)
    assert ledger.expire(now_ms=FAR + 2_500) == (1, 10)
    assert ledger.expire(now_ms=FAR + 2_500) == (0, 0)
    assert ledger.budget() == Budget(100, 10, 10)
    with pytest.raises(InputError, match="has expired"):
        ledger.commit("res-r1", 5)
    assert ledger.expire() == (0, 0)  # Redis' own clock is not there yet


def test_what_is_due_returns_before_anybody_is_refused_for_want_of_it(client: redis.Redis):
    ledger = Ledger(client)
    ledger.set_budget_if_unset(10)
    assert decide(ledger, "gone", Arm("a", 10), expires_ms=1) == "a"
    with pytest.raises(ConflictError, match="has expired"):
        ledger.commit("res-gone", 1)
    assert decide(ledger, "next", Arm("a", 10)) == "a"
    assert ledger.budget() == Budget(10, 0, 10)
    assert kinds(client, ledger) == {"budget": 1, "decision": 2, "expired": 1}


def test_a_release_returns_the_budget_and_the_cap(client: redis.Redis):
    ledger, arm, why = Ledger(client), Arm("a", 40, cap_per_day=1), Change("test", "not shown")
    ledger.set_budget_if_unset(100)
    assert [decide(ledger, name, arm) for name in ("one", "two")] == ["a", "no_promo"]
    assert [ledger.release("res-one", why) for _ in range(2)] == [40, 40]
    assert (ledger.budget(), decide(ledger, "three", arm)) == (Budget(100, 0, 0), "a")
    with pytest.raises(ConflictError, match="was released"):
        ledger.commit("res-one", 1)
    ledger.commit("res-three", 7)
    with pytest.raises(ConflictError, match="was committed with 7"):
        ledger.release("res-three", why)
    assert kinds(client, ledger) == {"budget": 1, "decision": 3, "released": 1, "committed": 1}


def test_budgets_are_apart_and_a_change_is_audited(client: redis.Redis):
    ledger = Ledger(client)
    for name in ("meat", "deli"):
        ledger.set_budget_if_unset(50, name)
    meat, deli = Arm("meat", 40, budget="meat"), Arm("deli", 30, budget="deli")
    assert [decide(ledger, f"r{i}", meat, deli) for i in range(3)] == ["meat", "deli", "no_promo"]
    with pytest.raises(ConflictError, match="40 are spent or reserved"):
        ledger.set_budget("meat", 39, Change("ann", "too late"))
    assert ledger.set_budget("meat", 80, Change("ann", "a good week")).headroom == 40
    assert decide(ledger, "r3", meat, deli) == "meat"
    [last] = [json.loads(f[b"record"]) for _, f in client.xrange(ledger.stream) if b"good week" in f[b"record"]]
    assert (last["event"], last["budget"], last["cents"], last["actor"]) == ("budget", "meat", 80, "ann")
    assert set(ledger.budgets()) == {"meat", "deli"}
    with pytest.raises(UnavailableError, match="no budget 'fish'"):
        decide(ledger, "r4", Arm("fish", 1, budget="fish"))


def test_caps_over_all_promos_cool_down_and_exclusions(client: redis.Redis):
    ledger, day = Ledger(client), DAY_S
    ledger.set_budget_if_unset(1_000)
    a, b = Arm("a", 1, cool_down_s=3 * day), Arm("b", 1, excludes=("a",), exclusion_s=2 * day)

    def at(hours: int, *arms: Arm, **caps: Any) -> list[Any]:
        """The refusals that the ledger answered, after which the first arm that fits is given."""
        seen: list[Any] = []

        def choose(standing: Standing) -> Proposal:
            seen.append(dict(standing.refused))
            return first_that_fits(*arms)(standing)

        ledger.decide(order(f"r{hours}", moment_s=10**6 + 3600 * hours, **caps), arms, choose)
        return seen[-1:]

    assert at(0, a, b) == [{}]
    assert at(30, a, b) == [{"a": "cool_down", "b": "excluded"}]
    assert at(49, a, b) == [{"a": "cool_down"}]
    assert at(50, b, cap_per_day=1) == [{"b": "shopper_cap_per_day"}]
    assert at(74, b, cap_per_week=2) == [{"b": "shopper_cap_per_week"}]


def test_a_cap_of_nothing_gives_nothing(client: redis.Redis):
    ledger = Ledger(client)
    ledger.set_budget_if_unset(100)
    assert decide(ledger, "r1", Arm("a", 1, cap_per_week=0), Arm("b", 1)) == "b"
    ledger.decide(order("r2", cap_per_day=0), [Arm("a", 1)], first_that_fits(Arm("a", 1)))
    assert client.get(ledger.key("request", "r2")) == b"f no_promo"


def test_an_answer_given_without_the_ledger_takes_the_place_of_the_stored_one(client: redis.Redis):
    ledger = Ledger(client)
    ledger.set_budget_if_unset(100)
    decide(ledger, "r", Arm("a", 10))
    assert ledger.settle("r", "f", b"no_promo", b"{}") == b"a"
    assert ledger.settle("r", "f", b"no_promo", b"{}") is None
    assert decide(ledger, "r", Arm("a", 10)) == "no_promo"
    assert ledger.settle("unseen", "f", b"no_promo", b"{}") is None
    assert decide(ledger, "unseen", Arm("a", 10)) == "no_promo"


@pytest.mark.parametrize("rate", [2.0, 5.0])
def test_lambda_rests_where_a_decision_costs_the_rate(client: redis.Redis, rate: float):
    """Shoppers whose best promo gains 0 to 40 cents for 10: the price that spends `rate` a decision lets through rate / 10 of them."""
    ledger, arm, draws = Ledger(client), Arm("a", 10), random.Random(1)
    ledger.set_budget("main", 10**9, Change("test", "paced"), rate=rate, step=0.01)
    given = 0
    for number in range(6_000):
        gain = draws.uniform(0, 40)

        def choose(standing: Standing, gain: float = gain) -> Proposal:
            wins = gain > standing.prices["main"] * 10
            return Proposal("a" if wins else "", b"", b"", 10.0 if wins else 0.0)

        ledger.decide(order(f"r{number}", f"s{number}"), [arm], choose)
        given += number >= 3_000 and bool(client.exists(ledger.key("reservation", f"res-r{number}")))
    assert given * 10 / 3_000 == pytest.approx(rate, rel=0.1)
    assert ledger.budget().price == pytest.approx(4 * (1 - rate / 10), rel=0.25)


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
    assert ledger.budget() == Budget(1_000, 0, 1_000)
    assert kinds(client, ledger) == {"budget": 1, "decision": 150}
    answers = Counter(client.get(key).split()[1] for key in client.keys("{promolift}:request:*"))
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
        safe += ledger.budget().reserved > 10
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
    """Any order of decide, commit, release, expire and a changed budget keeps Redis equal to the model and within the budget."""

    client: redis.Redis

    @initialize(total=st.integers(0, 60))
    def start(self, total: int) -> None:
        self.client.flushall()
        self.ledger, self.model = Ledger(self.client), Model(total)
        self.ledger.set_budget_if_unset(total)

    @rule(request=st.integers(0, 12), cents=st.integers(1, 30), after=st.integers(1, 50))
    def decide(self, request: int, cents: int, after: int) -> None:
        expires = FAR + after
        expected = self.model.decide(f"r{request}", cents, expires)
        assert decide(self.ledger, f"r{request}", Arm("a", cents), shopper=f"s{request}", expires_ms=expires) == expected

    @rule(request=st.integers(0, 12), cents=st.integers(0, 30))
    def commit(self, request: int, cents: int) -> None:
        held = self.model.held.get(f"res-r{request}")
        if held and cents <= held[0]:
            self.ledger.commit(f"res-r{request}", cents)
            self.model.committed += cents
            del self.model.held[f"res-r{request}"]

    @rule(request=st.integers(0, 12))
    def release(self, request: int) -> None:
        if f"res-r{request}" in self.model.held:
            cents = self.model.held.pop(f"res-r{request}")[0]
            assert self.ledger.release(f"res-r{request}", Change("test", "")) == cents

    @rule(total=st.integers(0, 60))
    def set_budget(self, total: int) -> None:
        bound = self.model.committed + sum(c for c, _ in self.model.held.values())
        if total < bound:
            with pytest.raises(ConflictError):
                self.ledger.set_budget("main", total, Change("test", ""))
        else:
            self.ledger.set_budget("main", total, Change("test", ""))
            self.model.total = total

    @rule(after=st.integers(1, 50))
    def expire(self, after: int) -> None:
        now = FAR + after
        due = {name: row for name, row in self.model.held.items() if row[1] <= now}
        assert self.ledger.expire(now_ms=now) == (len(due), sum(c for c, _ in due.values()))
        self.model.held = {name: row for name, row in self.model.held.items() if name not in due}

    @invariant()
    def equal_and_within_budget(self):
        if not hasattr(self, "model"):
            return
        state = self.ledger.budget()
        assert state == Budget(self.model.total, self.model.committed, sum(c for c, _ in self.model.held.values()))
        assert state.committed + state.reserved <= state.total
        assert kinds(self.client, self.ledger).get("decision", 0) == len(self.model.decided)


def test_any_sequence_equals_the_model(client: redis.Redis):
    class Machine(LedgerMachine):
        pass

    Machine.client = client
    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)),
    )
    assert client.ping()
