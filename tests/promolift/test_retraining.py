"""Causes of a retraining: confirmed, decisive, once, and within cool-down and budget."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promolift.drift.retraining import EVERYTHING, Cause, InService, Measured, Retrainings, begun_in, due, read_policy
from promolift.errors import ConflictError, InputError

POLICY = read_policy()
NOW = datetime(2026, 3, 1, tzinfo=UTC)
TRAINED = date(2026, 2, 1)


def look(day: int, *columns: str, kind: str = "feature", changed: float = 0.2, status: str = "") -> dict[str, Any]:
    findings = [{"column": name, "kind": kind, "most": "higher", "impact": {"changed": changed, "cents": 3.0}} for name in columns]
    return {"day": f"2026-02-{day:02d}", "status": status or ("drift" if columns else "no drift"), "findings": findings}


def asked(*looks: dict[str, Any], past: Any = (), labels_to: date = TRAINED, now: datetime = NOW) -> tuple[Cause | None, str]:
    return due(InService("net-1", looks, TRAINED, labels_to), past, POLICY, now)


def begun(cause: str, at: datetime, status: str = "begun", root: str = "r") -> dict[str, Any]:
    return {"cause": cause, "kind": "alarm", "model": "net-1", "reason": "it drifted", "at": at, "status": status, "root": root}


def test_an_alarm_that_two_looks_share_and_that_changes_decisions_is_a_cause_named_by_its_first_day():
    assert asked(look(1), look(2, "a"))[0] is None
    assert asked(look(1), look(2, "a"), look(3, "b"))[0] is None
    assert asked(look(1), look(2, "a", changed=0.001), look(3, "a", changed=0.001))[0] is None
    cause, reason = asked(look(1), look(2, "a"), look(3, status="too few rows"), look(4, "a", "b"))
    assert cause == Cause("alarm:net-1:2026-02-02", "alarm", "net-1", reason) and reason == "'a' has drifted since 2026-02-02: higher"
    assert asked(look(2, "choice", kind="choice", changed=0.0), look(3, "choice", kind="choice", changed=0.0))[0] is not None
    assert asked(look(2, "a"), look(3, "a"), look(4))[0] is None  # it is over


def test_labels_that_the_model_has_not_seen_and_age_are_causes_of_their_own():
    later = TRAINED + timedelta(days=POLICY.unseen_days)
    assert asked(labels_to=later)[0] == Cause("labels:net-1:1", "labels", "net-1", "60 days of closed labels are newer than the model")
    old = datetime(2026, 2, 1, tzinfo=UTC) + timedelta(days=POLICY.schedule_days)
    assert asked(now=old)[0] == Cause("schedule:net-1:1", "schedule", "net-1", "training ends 90 days ago")
    assert asked() == (None, "nothing to train for: no confirmed alarm that matters, profit as predicted, no labels enough, not yet time")


@pytest.mark.parametrize(("effect", "predicted", "cause"), [(None, 0.0, False), (9.0, 20.0, True), (10.1, 20.0, False), (-1.0, 0.0, True)])
def test_a_policy_that_surely_brought_less_than_half_of_what_was_predicted_is_a_cause_once(
    effect: float | None, predicted: float, cause: bool
):
    earned = {} if effect is None else {EVERYTHING: Measured(effect - 1.96, 1.0, predicted)}

    def due_now(past: Any = ()) -> tuple[Cause | None, str]:
        return due(InService("net-1", (), TRAINED, TRAINED, earned), past, POLICY, NOW)

    found, reason = due_now()
    assert (found is not None) is cause
    if found:
        assert found == Cause("outcomes:net-1", "outcomes", "net-1", reason) and "cents at most where" in reason
        assert due_now([begun(found.id, NOW - timedelta(days=20), "refused")])[0] is None


def test_a_promo_that_costs_more_than_twice_what_was_predicted_is_a_cause():
    paid = {EVERYTHING: Measured(5.0, 0.1, 4.0), "deli_10": Measured(12.0, 1.0, 4.0)}
    cause, reason = due(InService("net-1", (), TRAINED, TRAINED, {}, paid), (), POLICY, NOW)
    assert cause is not None and reason == "a decision with deli_10 cost 9.8 cents at least where 4.0 were predicted"


def test_a_cool_down_and_a_budget_are_kept_and_said():
    alarm = (look(2, "a"), look(3, "a"))
    assert "cool-down is 7 days" in asked(*alarm, past=[begun("other", NOW - timedelta(days=3))])[1]
    two = [begun(f"other{days}", NOW - timedelta(days=days)) for days in (20, 10)]
    assert "2 trainings in 30 days are the budget" in asked(*alarm, past=two)[1]
    assert asked(*alarm, past=[begun("other", NOW - timedelta(days=10))])[0] is not None


@given(st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=27), st.booleans())
def test_no_loop_trains_twice_for_one_cause(columns: list[str], refused: bool):
    """Asked every evening of a month, whatever alarms come: causes are different, a cool-down apart and within the budget."""
    past: list[dict[str, Any]] = []
    for day in range(1, len(columns) + 1):
        looks = [look(d, *([columns[d - 1]] if columns[d - 1] else [])) for d in range(1, day + 1)]
        now = datetime(2026, 2, day, 23, tzinfo=UTC)
        cause, _ = asked(*looks, past=past, now=now)
        if cause:
            past.append(begun(cause.id, now))
            past += [begun(cause.id, now, "refused")] if refused else []
    begins = [row for row in past if row["status"] == "begun"]
    assert len({row["cause"] for row in begins}) == len(begins) <= POLICY.most_a_month
    assert all(b["at"] - a["at"] >= timedelta(days=POLICY.cool_down_days) for a, b in pairwise(begins))


def test_the_table_takes_one_cause_once_and_links_what_came_of_it(tmp_path: Path):
    table, cause = Retrainings(tmp_path), Cause("alarm:net-1:2026-02-02", "alarm", "net-1", "it drifted")
    table.begin(cause, "root", NOW)
    with pytest.raises(ConflictError, match="was begun for alarm:net-1:2026-02-02 already"):
        table.begin(cause, "another", NOW)
    assert begun_in("root", table.rows()) == cause and begun_in("another", table.rows()) is None
    table.end(cause, "root", NOW + timedelta(hours=1), candidate="net-2", dossier="hash")
    rows = table.rows()
    assert [(row["status"], row["candidate"], row["dossier"]) for row in rows] == [("begun", "", ""), ("registered", "net-2", "hash")]
    assert begun_in("root", rows) is None


def test_a_mistake_in_the_policy_names_its_line(tmp_path: Path):
    path = tmp_path / "retraining.yaml"
    path.write_text("confirm: 0\nchanged: 0.01\ncool_down_days: 7\nmost_a_month: 2\nschedule_days: 90\nunseen_days: 60\n")
    with pytest.raises(InputError, match=r"retraining.yaml, line 1: key 'confirm' has the value 0"):
        read_policy(path)
