"""What `decide` says of the answers it got, and of questions that it cannot ask."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from promolift.contracts.artifacts import write_json
from promolift.contracts.decisions import Candidates, Decision, Envelope, Scores, Shopper, dump, read_request
from promolift.errors import InputError
from serving.kserve.decide import Question, Reply, ask, readable, summarise

REQUEST = read_request({"request_id": "r", "shopper_id": "7", "moment": "2017-12-01T00:00:00Z"})
ENVELOPE = Envelope(
    REQUEST, Shopper({}, found=False), Candidates(("a",), {"b": "promo b is switched off"}, "v"), Scores("m", (3.5,), (1.25,), (2.0,)),
    Decision("d", "a", "best_profit", "policy", {"no_promo": 0.05, "a": 0.95}, 3.5, 300), {"predictor": "m-1"},
)  # fmt: skip


def reply(envelope: Envelope, ms: float = 5.0) -> Reply:
    return Reply(200, dump(envelope), ms)


def test_one_decision_is_explained():
    text = readable(reply(ENVELOPE))
    for words in ("shopper 7", "a (best_profit, policy)", "3.5", "300 cents", "not found", "0.950", "promo b is switched off", "m-1"):
        assert words in text


def test_a_model_failure_and_a_refusal_are_shown():
    failed = replace(ENVELOPE, scores=Scores("m", error="The model could not score."))
    assert "The model could not score." in readable(reply(failed))
    problem: dict[str, Any] = {"status": 400, "detail": "Field 'moment' has the value 'x'."}
    assert "HTTP 400" in readable(Reply(400, problem, 1.0))


def test_many_answers_are_summed_up():
    withheld = replace(ENVELOPE, decision=Decision("e", "no_promo", "holdout", "holdout", {"no_promo": 1.0}))
    replies = [reply(ENVELOPE, 1.0), reply(ENVELOPE, 2.0), reply(withheld, 3.0), Reply(500, {"error": "x"}, 4.0)]
    summary = summarise(replies)
    assert (summary["count"], summary["errors"], summary["share_no_promo"]) == (4, 1, 0.3333)
    assert summary["latency_ms"]["p50"] == 2.5
    assert summary["reasons"] == {"best_profit": 2, "holdout": 1}
    assert summary["last"] == {"error": "x"}


def test_questions_that_cannot_be_asked(tmp_path: Path):
    write_json(tmp_path / "serving.json", {"url": "http://127.0.0.1:1"})
    with pytest.raises(InputError, match="--count is 0"):
        ask(Question(tmp_path, count=0))
    with pytest.raises(InputError, match="--skip -1; the first two"):
        ask(Question(tmp_path, skip=-1))
    with pytest.raises(InputError, match="no table of features"):
        ask(Question(tmp_path))
    [unanswered] = ask(Question(tmp_path, shopper="7"))
    assert (unanswered.status, "ConnectError" in unanswered.document["error"]) == (0, True)
