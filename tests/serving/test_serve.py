"""The whole service as `serve` starts it: engine, graph, four nodes, Redis and relay; or all boxes in the engine."""

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

from promolift.redis_server import redis_server
from serving.kserve.decision_log import relay
from serving.kserve.listen import bind
from serving.kserve.log_delta import DeltaLog, read_decisions
from tests.serving.conftest import HEAVY

pytestmark = HEAVY

PROGRAM = [sys.executable, "-m", "serving.kserve"]


@pytest.fixture
def folder(run_folder: Path, tmp_path: Path) -> Path:
    """A copy of the run, so that each test has a log and a Redis of its own."""
    return Path(shutil.copytree(run_folder, tmp_path / "run", symlinks=True))


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[dict[str, Any]]:
    """The document serving.json of a served run; afterwards everything has been asked to stop and has stopped."""
    with subprocess.Popen(
        [*PROGRAM, "serve", "--run", str(folder), "--listen", "127.0.0.1:0", *options],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PROMOLIFT_REDIS_TIMEOUT_MS": "5000"},
    ) as process:  # fmt: skip
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


def client_of(served: dict[str, Any]) -> httpx.Client:
    return httpx.Client(base_url=served["url"], headers={"X-API-Key": served["api_key"]}, timeout=10)


def program(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments, "--run", str(folder)], capture_output=True, text=True, check=False)


DECIDE = "/v1/decisions"


@pytest.mark.parametrize("options", [(), ("--fused",)])
def test_fifty_decisions_are_logged_once_replay_and_reconcile(folder: Path, options: tuple[str, ...]):
    with serving(folder, *options) as served, client_of(served) as client:
        # The first one loads what is loaded late; nobody asks so early in the life of a service for less than seconds.
        client.post(DECIDE, json=asked(99, deadline_ms=10_000))
        answers = [client.post(DECIDE, json=asked(number, deadline_ms=5_000)) for number in range(50)]
        again = client.post(DECIDE, json=asked(7))
        wrong, conflict = client.post(DECIDE, json=asked(51, channel="fax")), client.post(DECIDE, json=asked(7, store_id="other"))
        granted = next(answer.json() for answer in answers if answer.json()["token"])
        redeemed = client.post("/v1/redemptions", json={"token": granted["token"], "cents": 50})
        summary = json.loads(program(folder, "decide", "--shopper", "9", "--json", "--count", "3").stdout)
        explained = program(folder, "explain", granted["decision_id"])
        held = program(folder, "reconcile", "--redis-url", served["redis_url"])
        assert {answer.status_code for answer in answers} == {200}
    assert (again.json()["decision_id"], again.json()["repeated"]) == (answers[7].json()["decision_id"], True)
    assert [answer.status_code for answer in (wrong, conflict, redeemed)] == [400, 409, 200]
    assert wrong.json()["errors"][0] == {"field": "channel", "value": "'fax'", "message": "Input should be 'app', 'web' or 'pos'"}
    assert (summary["count"], summary["errors"], "envelope" in summary["last"]) == (3, 0, True)
    assert f"Decision {granted['decision_id']}: shopper" in explained.stdout and "got promo" in explained.stdout
    assert (held.returncode, "0 differences" in held.stdout) == (0, True), held.stdout

    logged = read_decisions(folder / "lake")
    assert len({envelope.decision.decision_id for envelope in logged if envelope.decision}) == len(logged) == 54
    decisions = {envelope.request.request_id: envelope.decision for envelope in logged}
    for answer in (answer.json() for answer in answers):
        own = decisions[answer["request_id"]]
        assert own is not None and (own.decision_id, own.promo_id, own.reserved_cents) == tuple(
            answer[name] for name in ("decision_id", "promo_id", "cents")
        )
    replayed = program(folder, "replay")
    assert (replayed.returncode, replayed.stdout) == (0, "54 of 54 logged decisions came out bit for bit as they were\n")
    rebuilt_equals_log(folder)


def rebuilt_equals_log(folder: Path) -> None:
    """An empty Redis filled from the log holds the same budgets, and answers a retry as the lost one did."""
    shutil.rmtree(folder / "redis")
    with redis_server(folder / "redis") as url:
        done = program(folder, "rebuild", "--redis-url", url)
        assert (done.returncode, "knows 54 decisions again" in done.stdout, "0 differences" in done.stdout) == (0, True, True), done.stdout
        twice = program(folder, "rebuild", "--redis-url", url)
        assert (twice.returncode, "is not empty" in twice.stderr) == (2, True)
        with redis.Redis.from_url(url) as store:
            store.hincrby("{promolift}:budget:main", "committed", 1)
        wrong = program(folder, "reconcile", "--redis-url", url)
        assert (wrong.returncode, "budget 'main': committed is 51 cents in the ledger and 50 in the log" in wrong.stdout) == (1, True)


def test_new_rules_are_read_without_a_failed_request(folder: Path, tmp_path: Path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("defaults: {}")
    with serving(folder, "--rules", str(rules)) as served, client_of(served) as client:
        client.post(DECIDE, json=asked(99, deadline_ms=10_000))
        versions: list[str] = []
        for number in range(120):
            if number in (30, 60):
                rules.write_text("defaults: {stores: ['9']}" if number == 30 else "defaults: {storse: []}")
                os.kill(served["pid"], signal.SIGHUP)
            answer = client.post(DECIDE, json=asked(number, deadline_ms=5_000))
            assert answer.status_code == 200 and "graph_unavailable" not in answer.json()["degraded"]
            versions.append(answer.json()["versions"]["eligibility"])
            time.sleep(0.03)
    assert len(dict.fromkeys(versions)) == 2
    assert program(folder, "replay").returncode == 0


def test_without_redis_the_answer_is_no_promo_and_reaches_the_log_later(folder: Path):
    with serving(folder) as served, client_of(served) as client:
        before = client.post(DECIDE, json=asked(1, deadline_ms=10_000))
        deadline = time.monotonic() + 20
        while not read_decisions(folder / "lake") and time.monotonic() < deadline:
            time.sleep(0.2)
        with redis.Redis.from_url(served["redis_url"]) as store:
            store.shutdown(save=True)
        without = client.post(DECIDE, json=asked(2, deadline_ms=5_000))
        ready = client.get("/readyz")
    assert (before.status_code, without.status_code, ready.status_code) == (200, 200, 503)
    answer = without.json()
    assert (answer["promo_id"], answer["reasons"][0]) == ("no_promo", "budget_unavailable")
    assert {"features_unavailable", "ledger_unavailable"} <= set(answer["degraded"])
    with redis_server(folder / "redis") as url:
        relay(url, DeltaLog(folder / "lake"), folder / "undelivered.jsonl", None)
    assert sorted(envelope.request.request_id for envelope in read_decisions(folder / "lake")) == ["r1", "r2"]


def test_a_graph_that_hangs_costs_the_promo_and_not_the_deadline(folder: Path):
    with serving(folder) as served, client_of(served) as client:
        client.post(DECIDE, json=asked(99, deadline_ms=10_000))
        os.kill(served["pids"]["graph"], signal.SIGSTOP)
        late = client.post(DECIDE, json=asked(1, deadline_ms=60))
        os.kill(served["pids"]["graph"], signal.SIGCONT)
    assert (late.status_code, late.json()["reasons"]) == (200, ["deadline"])
    assert late.elapsed.total_seconds() < 5  # the graph would have hung for ever


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


def test_a_watched_service_copies_what_its_predictor_does_to_a_detector_and_decides_the_same(folder: Path):
    requests = [asked(number, deadline_ms=10_000) for number in range(24)]
    shutil.copytree(folder / "redis", folder.parent / "redis")
    with serving(folder) as served, client_of(served) as client:
        alone = [client.post(DECIDE, json=request).json()["promo_id"] for request in requests]
    shutil.rmtree(folder / "redis")
    shutil.copytree(folder.parent / "redis", folder / "redis")
    with serving(folder, "--detect") as served, client_of(served) as client, httpx.Client(base_url=served["detector"]) as detector:
        assert [client.post(DECIDE, json=request).json()["promo_id"] for request in requests] == alone
        deadline = time.monotonic() + 10
        while not (versions := detector.get("/v1/versions").json()["versions"]) or versions[0]["events"] < len(requests):
            assert time.monotonic() < deadline, versions
            time.sleep(0.1)
        assert [(found["status"], found["events"] >= len(requests)) for found in versions] == [
            ("not fitted", True)
        ]  # the model has no reference


def test_a_service_in_one_process_cannot_be_watched(folder: Path):
    done = program(folder, "serve", "--fused", "--detect")
    assert done.returncode == 2 and "--detect needs the predictor as a process of its own" in done.stderr
