"""The whole served graph: four KServe nodes, Redis, the relay and the graph as `serve` starts them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis
from deltalake import DeltaTable

from promolift.contracts.decisions import read_envelope
from promolift.redis_server import redis_server
from promolift.settings import Settings
from serving.kserve.boxes import RULES, policy_of
from serving.kserve.constraints import replay
from serving.kserve.decision_log import read_decisions, relay
from serving.kserve.eligibility import load_rules
from serving.kserve.listen import bind
from serving.kserve.model_folder import load_manifest

pytestmark = [
    pytest.mark.slow,  # eight processes
    # TensorFlow 2.21 and Feast 0.67 use what numpy, protobuf, pydantic and pkg_resources call outdated
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

PROGRAM = [sys.executable, "-m", "serving.kserve"]


@pytest.fixture
def folder(run_folder: Path, tmp_path: Path) -> Path:
    """A copy of the run, so that each test has a log and a Redis of its own."""
    return Path(shutil.copytree(run_folder, tmp_path / "run", symlinks=True))


@contextmanager
def serving(folder: Path) -> Iterator[dict[str, Any]]:
    """The document serving.json of a served run; afterwards everything has been asked to stop and has stopped."""
    with subprocess.Popen(
        [*PROGRAM, "serve", "--run", str(folder), "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("ready:"):
                break
        assert "ready:" in lines[-1], "".join(lines)
        children = psutil.Process(process.pid).children(recursive=True)
        try:
            yield json.loads((folder / "serving.json").read_text())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    assert process.returncode == 0
    assert not (folder / "serving.json").exists()
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def asked(number: int, **fields: Any) -> dict[str, Any]:
    return {"request_id": f"r{number}", "shopper_id": str(number % 12), "moment": "2017-12-01T10:00:00Z", **fields}


def test_fifty_decisions_are_logged_once_and_replay(folder: Path, model_folder: Path):
    with serving(folder) as served, httpx.Client() as client:
        answers = [client.post(served["url"], json=asked(number)) for number in range(50)]
        again = client.post(served["url"], json=asked(7))
        wrong = client.post(served["url"], json=asked(51, channel="fax"))
        conflict = client.post(served["url"], json=asked(7, store_id="other"))
        nothing = client.post(served["url"], content=b"{")
        command = [*PROGRAM, "decide", "--run", str(folder), "--shopper", "9", "--json", "--count", "3"]
        summary = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    envelopes = [read_envelope(answer.json()) for answer in answers]
    assert {answer.status_code for answer in answers} == {200}
    assert again.json()["decision"] == answers[7].json()["decision"]
    assert [answer.status_code for answer in (wrong, conflict, nothing)] == [400, 409, 400]
    assert wrong.json()["errors"][0] == {"field": "channel", "value": "'fax'", "message": "Input should be 'app', 'web' or 'pos'"}
    assert (summary["count"], summary["errors"]) == (3, 0)

    logged = {envelope.request.request_id: envelope for envelope in read_decisions(folder / "lake/serving/decisions")}
    table = DeltaTable(str(folder / "lake/serving/decisions")).to_pyarrow_table()
    assert table.num_rows == len(set(table.column("decision_id").to_pylist())) == 53
    policy, rules = policy_of(Settings()), load_rules(RULES, load_manifest(model_folder).promos)
    for envelope in envelopes:
        own = logged[envelope.request.request_id]
        assert own.decision == envelope.decision
        assert own.decision is not None
        same = replay(own, policy, rules)
        assert (same.promo_id, same.propensities) == (own.decision.promo_id, own.decision.propensities)
    assert {envelope.shopper.found for envelope in envelopes if envelope.shopper} == {True, False}


def test_without_redis_the_answer_is_no_promo_and_reaches_the_log_later(folder: Path):
    table = folder / "lake/serving/decisions"
    with serving(folder) as served, httpx.Client() as client:
        before = client.post(served["url"], json=asked(1))
        deadline = time.monotonic() + 20
        while not DeltaTable(str(table)).to_pyarrow_table().num_rows and time.monotonic() < deadline:
            time.sleep(0.2)
        with redis.Redis.from_url(served["redis_url"]) as store:
            store.shutdown(save=True)
        without = client.post(served["url"], json=asked(2), timeout=10)
    assert (before.status_code, without.status_code) == (200, 200)
    decision = without.json()["decision"]
    assert (decision["promo_id"], decision["reason"]) == ("no_promo", "budget_unavailable")
    assert without.json()["shopper"]["found"] is False
    with redis_server(folder / "redis") as url:
        relay(url, table, folder / "undelivered.jsonl", None)
    assert sorted(envelope.request.request_id for envelope in read_decisions(table)) == ["r1", "r2"]


def ended(*arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **environment})
    return done.returncode, done.stderr.strip().splitlines()[-1]


def test_what_cannot_be_served_is_one_sentence_and_a_status(folder: Path, tmp_path: Path):
    status, sentence = ended("serve", "--run", str(tmp_path / "nowhere"))
    assert (status, "There is no run folder" in sentence) == (2, True)
    status, sentence = ended("serve", "--run", str(folder), "--model", str(tmp_path))
    assert (status, "There is no model in" in sentence) == (2, True)
    with bind("127.0.0.1:0") as taken:
        port = taken.getsockname()[1]
        status, sentence = ended("serve", "--run", str(folder), "--listen", f"127.0.0.1:{port}")
        assert (status, f"127.0.0.1:{port}" in sentence) == (4, True)
    status, sentence = ended("serve", "--run", str(folder), "--listen", "127.0.0.1:0", PROMOLIFT_REDIS_URL="redis://127.0.0.1:1/0")
    assert (status, "redis://127.0.0.1:1/0 does not answer" in sentence) == (4, True)
    status, sentence = ended("decide", "--run", str(folder))
    assert (status, "Nobody serves" in sentence) == (4, True)
    status, sentence = ended("node", "checkout", "--model", str(folder / "serving_model"))
    assert (status, "no box 'checkout'" in sentence) == (2, True)
    status, sentence = ended("decide", "--run", str(folder), PROMOLIFT_HOLDOUT_SHARE="2")
    assert (status, "PROMOLIFT_HOLDOUT_SHARE has the value '2'" in sentence) == (2, True)
