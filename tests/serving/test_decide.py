"""What `decide` says of the answers it got, and of questions that it cannot ask."""

from pathlib import Path
from typing import Any

import pytest

from promolift.contracts.artifacts import write_json
from promolift.errors import InputError
from serving.kserve.decide import Question, Reply, ask, readable, summarise

ANSWER = {
    "request_id": "r", "decision_id": "d", "promo_id": "a", "reasons": ["best_profit"], "bucket": "policy", "cents": 300,
    "expires_at": "2017-12-08T00:00:00+00:00", "token": "head.body.end", "degraded": ["stale_features"],
}  # fmt: skip


def test_one_decision_is_explained():
    text = readable(Reply(200, ANSWER, 5.0), {"text": "Decision d: shopper 7 got promo a.", "envelope": {}})
    assert text.splitlines() == ["Decision d: shopper 7 got promo a.", "Token for the till: head.body.end", "Answered in 5.0 ms."]
    assert "not in the log yet" in readable(Reply(200, {**ANSWER, "token": None}, 5.0), None)


def test_a_refusal_is_shown():
    problem: dict[str, Any] = {"status": 400, "detail": "Field 'moment' has the value 'x'."}
    assert "HTTP 400" in readable(Reply(400, problem, 1.0), None)


def test_many_answers_are_summed_up():
    withheld = {**ANSWER, "promo_id": "no_promo", "reasons": ["holdout"], "degraded": []}
    replies = [Reply(200, ANSWER, 1.0), Reply(200, ANSWER, 2.0), Reply(200, withheld, 3.0), Reply(500, {"error": "x"}, 4.0)]
    summary = summarise(replies)
    assert (summary["count"], summary["errors"], summary["share_no_promo"]) == (4, 1, 0.3333)
    assert summary["latency_ms"]["p50"] == 2.5
    assert summary["reasons"] == {"best_profit": 2, "holdout": 1}
    assert summary["degraded"] == {"stale_features": 2}


def test_questions_that_cannot_be_asked(tmp_path: Path):
    write_json(tmp_path / "serving.json", {"url": "http://127.0.0.1:1", "api_key": "k"})
    with pytest.raises(InputError, match="--count is 0"):
        ask(Question(tmp_path, count=0))
    with pytest.raises(InputError, match="--skip -1; the first two"):
        ask(Question(tmp_path, skip=-1))
    with pytest.raises(InputError, match="no table of features"):
        ask(Question(tmp_path))
    [unanswered] = ask(Question(tmp_path, shopper="7"))
    assert (unanswered.status, "ConnectError" in unanswered.document["error"]) == (0, True)
