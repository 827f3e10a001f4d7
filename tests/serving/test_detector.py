"""The detector as a process before a real Redis: windows that survive everything, answers that mean what they say."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis

from promolift.contracts.artifacts import ModelManifest, read_manifest
from promolift.contracts.decisions import Candidates, Envelope, Scores, Shopper, dump_bytes
from promolift.drift.columns import Columns, row_of
from promolift.drift.fitting import fit
from promolift.drift.reference import write_reference
from serving.detector.events import REQUEST, RESPONSE
from tests.promolift.drift_world import FIRST, asked, day_of_envelopes
from tests.serving.conftest import HEAVY, listening

pytestmark = HEAVY
ROOT = Path(__file__).parents[2]
ALIBI = ROOT / "build/alibi/bin/python"
DAYS, ROWS = 21, 100
LATER = FIRST + DAYS


def served(answer: Envelope, manifest: ModelManifest) -> Envelope:
    """The world's envelope as the linear model answers it: `visits` are its baskets of 7 days."""
    known = answer.shopper.features if answer.shopper else {}
    features = {
        **dict.fromkeys(manifest.numeric, 2.5),
        "baskets_7d": float(known["visits"]),
        **dict.fromkeys(manifest.attributes, str(known["area"])),
    }
    promos = tuple(promo.promo_id for promo in manifest.promos)
    scores = Scores(manifest.version, (float(known["visits"]), 20.0, -10.0), (0.0, 1.0, -1.0), (7.0,) * 3)
    return replace(answer, shopper=Shopper(features, True, 1.0), candidates=Candidates(promos, {}, "rules"), scores=scores)


def columns_of(manifest: ModelManifest) -> Columns:
    attributes = {name: manifest.vocabularies[name] for name in manifest.attributes}
    return Columns(manifest.numeric, attributes, tuple(p.promo_id for p in manifest.promos), {"p": float(np.log(200))}, ("1", "2"))


def day(number: int, manifest: ModelManifest, rows: int = ROWS) -> list[Envelope]:
    return [served(answer, manifest) for answer in day_of_envelopes(number, np.random.default_rng(number), count=rows)]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> tuple[Path, ModelManifest]:
    """The linear model with a reference of three weeks."""
    folder, manifest = tmp_path_factory.mktemp("fitted"), read_manifest(model_folder)
    for name in ("model.tflite", "manifest.json"):
        (folder / name).write_bytes((model_folder / name).read_bytes())
    columns = columns_of(manifest)
    rows = b"".join(row_of(columns, answer, d) for d in range(FIRST, LATER) for answer in day(d, manifest))
    write_reference(fit(columns, np.frombuffer(rows, columns.dtype), manifest.version, 1, ("area",)), folder)
    return folder, manifest


@pytest.fixture(autouse=True)
def _empty(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()


@contextmanager
def detector(
    folder: Path, redis_url: str, *more: str, python: str = sys.executable
) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:  # fmt: skip
    command = [python, "-m", "serving.detector", "--model", str(folder), "--redis-url", redis_url, "--listen", "127.0.0.1:0", *more]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline()]
    while said[-1] and "listens on" not in said[-1]:
        said.append(process.stdout.readline())
    line = said[-1]
    assert line, said
    with httpx.Client(base_url=line.split()[-1], timeout=10) as client:
        until(lambda: client.get("/healthz").status_code == 200)
        try:
            yield client, process
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()


def until(true: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def post(client: httpx.Client, answer: Envelope, kind: str = RESPONSE, **headers: str) -> httpx.Response:
    sent = {
        "ce-id": answer.request.request_id, "ce-type": kind, "ce-source": "test", "ce-specversion": "1.0",
        "ce-inferenceservicename": "promo-predictor", "content-type": "application/json", **headers,
    }  # fmt: skip
    return client.post("/", content=dump_bytes(answer if kind == RESPONSE else asked(answer)), headers=sent)


def counted(client: httpx.Client, result: str) -> float:
    wanted = f'promolift_detector_events_total{{result="{result}"}} '
    return next((float(line.removeprefix(wanted)) for line in client.get("/metrics").text.splitlines() if line.startswith(wanted)), 0.0)


def window(client: httpx.Client, version: str) -> int:
    return int(client.get(f"/v1/versions/{version}").json()["window"]["rows"])


def date(number: int) -> str:
    return str(np.datetime64(number, "D"))


def test_duplicates_disorder_and_the_question_beside_the_answer_make_one_row(fitted: tuple[Path, ModelManifest], redis_url: str):
    folder, manifest = fitted
    with detector(folder, redis_url, "--moments") as (client, _):
        assert client.get(f"/v1/versions/{manifest.version}").json()["status"] == "not looked yet"
        answers = day(LATER, manifest)
        first, rest = answers[0], [(answer, kind) for answer in answers[1:] for kind in (REQUEST, RESPONSE, RESPONSE)]
        random.Random(1).shuffle(rest)
        for answer, kind in [(first, RESPONSE), (first, REQUEST), *rest]:
            assert post(client, answer, kind).status_code == 202
        until(lambda: counted(client, "added") == ROWS)
        assert window(client, manifest.version) == ROWS and counted(client, "duplicate") >= ROWS - 1
        assert client.get(f"/v1/versions/{manifest.version}").json()["status"] == "not looked yet"


def test_a_killed_detector_and_a_second_one_neither_lose_nor_split_a_window(fitted: tuple[Path, ModelManifest], redis_url: str):
    folder, manifest = fitted
    answers = day(LATER, manifest)
    with detector(folder, redis_url, "--moments") as (client, process):
        for answer in answers[:40]:
            post(client, answer)
        until(lambda: counted(client, "added") == 40)
        os.kill(process.pid, signal.SIGKILL)
    with detector(folder, redis_url, "--moments") as (one, _), detector(folder, redis_url, "--moments") as (two, _):
        for place, answer in enumerate(answers):  # the first forty come again
            post((one, two)[place % 2], answer)
        until(lambda: window(one, manifest.version) == ROWS)
        assert window(two, manifest.version) == ROWS
        made = [client.post(f"/v1/versions/{manifest.version}/looks?through={date(LATER)}").json()["looks"] for client in (one, two)]
        assert [len(looks) for looks in made] == [1, 0]  # a day is looked at once
        assert one.get(f"/v1/versions/{manifest.version}").json() == two.get(f"/v1/versions/{manifest.version}").json()


def test_drift_is_found_said_with_its_cost_and_posted_once(fitted: tuple[Path, ModelManifest], redis_url: str):
    folder, manifest = fitted
    alarms: list[dict[str, Any]] = []

    async def taker(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        alarms.append({"headers": {name.decode(): value.decode() for name, value in scope["headers"]}, "body": json.loads(body)})
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with listening(taker) as url, detector(folder, redis_url, "--moments", "--reply", url) as (client, _):
        quiet, broken = day(LATER, manifest), day(LATER + 1, manifest)
        for answer in quiet:
            post(client, answer)
        for answer in broken:  # a feature arrives ten times as large
            assert answer.shopper is not None
            features = {**answer.shopper.features, "baskets_7d": 40.0}
            post(client, replace(answer, shopper=replace(answer.shopper, features=features)))
        until(lambda: window(client, manifest.version) == 2 * ROWS)
        looks = client.post(f"/v1/versions/{manifest.version}/looks?through={date(LATER + 1)}").json()["looks"]
        assert [look["status"] for look in looks] == ["no drift", "drift"]
        found = client.get(f"/v1/versions/{manifest.version}").json()
        first = found["findings"][0]
        assert found["status"] == "drift" and first["column"] == "baskets_7d" and first["p_value"] <= found["limit"]
        # Everybody would get meat_20 for 40 visits; by the visits of training deli_10 is worth 20 and meat_20 the visits.
        assert first["impact"]["changed"] == 1.0 and 15 < first["impact"]["cents"] < 20
        assert 35 < first["distance"] < 39  # from 3 visits on average to 40
        until(lambda: len(alarms) == 1)
        assert alarms[0]["headers"]["ce-type"] == "io.promolift.drift.alarm" and alarms[0]["body"]["day"] == date(LATER + 1)
        assert f'promolift_drift{{version="{manifest.version}"}} 1.0' in client.get("/metrics").text
        page = client.get(f"/versions/{manifest.version}")
        assert page.status_code == 200 and "baskets_7d" in page.text and "cents at stake" in page.text
        assert len(client.get(f"/v1/versions/{manifest.version}/looks").json()["looks"]) == 2


def test_a_change_of_one_segment_is_named_and_costs_what_it_costs_of_all(fitted: tuple[Path, ModelManifest], redis_url: str):
    folder, manifest = fitted
    with detector(folder, redis_url, "--moments", "--numbers", "ks") as (client, _):
        for answer in day(LATER, manifest, 3 * ROWS):
            assert answer.shopper is not None
            changed = {"baskets_7d": 40.0} if answer.shopper.features["area"] == "b" else {}
            post(client, replace(answer, shopper=replace(answer.shopper, features={**answer.shopper.features, **changed})))
        until(lambda: window(client, manifest.version) == 3 * ROWS)
        client.post(f"/v1/versions/{manifest.version}/looks?through={date(LATER)}")
        findings = client.get(f"/v1/versions/{manifest.version}").json()["findings"]
        found = {finding["segment"]: finding for finding in findings if finding["column"] == "baskets_7d"}
        assert set(found) == {"", "area b"}
        assert 0.3 < found["area b"]["impact"]["changed"] < 0.7  # all of the half that they are
        assert "baskets_7d in area b" in client.get(f"/versions/{manifest.version}").text


@pytest.mark.skipif(not ALIBI.exists(), reason="`make alibi` has not been run")
def test_the_detector_runs_in_alibi_detects_environment_with_its_tests(fitted: tuple[Path, ModelManifest], redis_url: str):
    folder, manifest = fitted
    choice = ("--numbers", "alibi:ks", "--texts", "alibi:chi2", "--joint", "alibi:classifier")
    with detector(folder, redis_url, "--moments", *choice, python=str(ALIBI)) as (client, _):
        for answer in (*day(LATER, manifest), *day(LATER + 1, manifest)):
            broken = {"baskets_7d": 40.0} if answer.request.moment.startswith(date(LATER + 1)) else {}
            assert answer.shopper is not None
            post(client, replace(answer, shopper=replace(answer.shopper, features={**answer.shopper.features, **broken})))
        until(lambda: window(client, manifest.version) == 2 * ROWS)
        made = client.post(f"/v1/versions/{manifest.version}/looks?through={date(LATER + 1)}", timeout=180).json()["looks"]
        assert [look["status"] for look in made] == ["no drift", "drift"]
        assert made[1]["findings"][0]["column"] == "baskets_7d" and "joint:features" in {f["column"] for f in made[1]["findings"]}


def test_a_test_that_is_not_installed_is_one_sentence(fitted: tuple[Path, ModelManifest], redis_url: str):
    command = [sys.executable, "-m", "serving.detector", "--model", str(fitted[0]), "--redis-url", redis_url, "--joint", "alibi:mmd"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "is in the image `drift`, and `make alibi` installs it in build/alibi" in done.stderr


def test_a_question_that_nobody_answers_is_a_row_without_scores(fitted: tuple[Path, ModelManifest], redis_url: str):
    folder, manifest = fitted
    answers = day(LATER, manifest)
    with detector(folder, redis_url, "--moments") as (client, _):
        post(client, answers[0], REQUEST)
        until(lambda: counted(client, "unknown_version") == 1)  # no answer has named a version yet
        post(client, answers[0])
        until(lambda: counted(client, "added") == 1)
        post(client, answers[1], REQUEST)
        until(lambda: counted(client, "asked") == 1)
        with redis.Redis.from_url(redis_url) as store:
            store.zadd("drift:waiting", {answers[1].request.request_id: time.time() - 61})
        until(lambda: window(client, manifest.version) == 2 and counted(client, "unanswered") == 1)
        with redis.Redis.from_url(redis_url) as store:
            rows = np.frombuffer(b"".join(store.lrange(f"drift:{manifest.version}:rows:{LATER}", 0, -1)), columns_of(manifest).dtype)
        assert np.isnan(rows["numbers"][:, -3:]).all(axis=1).tolist() == [False, True]


def test_a_version_without_reference_is_not_fitted_and_an_unknown_one_not_found(
    fitted: tuple[Path, ModelManifest], redis_url: str, model_folder: Path
):
    manifest = fitted[1]
    with detector(model_folder, redis_url, "--moments") as (client, _):
        answer = day(LATER, manifest)[0]
        assert client.get(f"/v1/versions/{manifest.version}").json() == {"version": manifest.version, "status": "not fitted"}
        assert post(client, answer).status_code == 202
        until(lambda: counted(client, "not_fitted") == 1)
        assert client.get("/v1/versions").json() == {"versions": [{"version": manifest.version, "status": "not fitted", "events": 1}]}
        assert client.get(f"/v1/versions/{manifest.version}").json()["status"] == "not fitted"
        assert client.get("/v1/versions/other").status_code == 404


def test_bad_input_is_refused_counted_and_leaves_the_window(fitted: tuple[Path, ModelManifest], redis_url: str):
    folder, manifest = fitted
    answer = day(LATER, manifest)[0]
    far = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    with detector(folder, redis_url) as (client, _):
        assert post(client, answer, **{"ce-time": far}).status_code == 400
        assert client.post("/", content=b"x" * 50_000_000).status_code == 413
        assert client.post("/", content=b"{}").status_code == 400
        assert post(client, answer, **{"ce-id": ""}).json()["detail"].startswith("The CloudEvent has no attribute 'id'")
        assert client.post(f"/v1/versions/{manifest.version}/looks?through=soon").status_code == 400
        until(lambda: counted(client, "clock") == 1 and counted(client, "too_large") == 1 and counted(client, "no_event") == 2)
        assert window(client, manifest.version) == 0
        missing = replace(answer, shopper=replace(answer.shopper, features={}) if answer.shopper else None)
        assert post(client, missing).status_code == 202
        until(lambda: window(client, manifest.version) == 1)


def test_a_damaged_reference_is_one_sentence(fitted: tuple[Path, ModelManifest], redis_url: str, tmp_path: Path):
    for file in fitted[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "reference.npz").write_bytes(b"no archive")
    command = [sys.executable, "-m", "serving.detector", "--model", str(tmp_path), "--redis-url", redis_url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.strip().endswith("is not the file that reference.json names; fit the detector again.")
