"""Every reason and every refusal has its words, and a decision is told with what it was made from."""

from dataclasses import replace
from typing import get_args

import pytest

from promolift.contracts.decisions import Candidates, Decision, Envelope, Reason, Scores, Shopper, read_request
from promolift.policy.ledger import REFUSALS
from serving.kserve.explain import REFUSED, WHY, explain

REQUEST = read_request(
    {"request_id": "r", "shopper_id": "7", "moment": "2017-12-01T00:00:00Z", "basket": [{"category": "meat", "amount_cents": 1240}]}
)
DECISION = Decision(
    "d", "a", "explored", "explore", {"no_promo": 0.25, "a": 0.75}, 3.5, 300, "res", "main", "2017-12-08T00:00:00Z", {"b": "cool_down"},
    {"main": 0.5},
)  # fmt: skip
ENVELOPE = Envelope(
    REQUEST, Shopper({}, found=True, age_s=7_200.0), Candidates(("a", "b", "c"), {"e": "promo e is not eligible: switched off"}, "v"),
    Scores("m", (3.5, 2.0, 1.0), (1.25, 0.5, -1.0), (2.0, 1.0, 1.0)), DECISION, {"predictor": "m-1"}, degraded=("stale_features",),
)  # fmt: skip


def test_every_reason_and_refusal_has_its_words():
    assert set(WHY) == set(get_args(Reason))
    assert set(REFUSED) == set(REFUSALS.values())


@pytest.mark.parametrize(
    "words",
    [
        "Decision d: shopper 7 got promo a",
        "drawn at random",
        "basket of 12.40 in 1 lines",
        "2.0 hours old",
        "Not as it should be: stale features.",
        "promo e is not eligible: switched off",
        "promo a: uplift 3.5, at least 1.2, cost 2.0 cents: feasible",
        "promo b: uplift 2.0, at least 0.5, cost 1.0 cents: given too short a time ago",
        "promo c: uplift 1.0, at least -1.0, cost 1.0 cents: may harm",
        "Drawn with no_promo 0.250, a 0.750; bucket explore.",
        "budget 'main' was priced at 0.500",
        "Reserved 3.00 until 2017-12-08T00:00:00Z.",
        "Version of predictor: m-1.",
    ],
)
def test_a_decision_is_told_with_what_it_was_made_from(words: str):
    assert words in explain(ENVELOPE)


def test_what_is_not_known_is_said():
    nobody = replace(ENVELOPE, shopper=Shopper({}, found=False), scores=Scores("m", error="The model could not score.", evidence="none"))
    assert "defaults stand for them" in explain(nobody) and "The model could not score." in explain(nobody)
    assert explain(replace(ENVELOPE, decision=None)) == "Request r of shopper 7 has no decision."
