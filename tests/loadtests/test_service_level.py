"""The service-level file: what breaks a promise, and what is wrong with a file."""

import os
import time
from pathlib import Path

import pytest

from loadtests.memory import Memory, growth
from loadtests.service_level import FILE, SCENARIOS, read_service_level
from loadtests.shapes import SHAPES, level
from promolift.errors import InputError

KEPT = {"p50_ms": 1, "p95_ms": 2, "p99_ms": 3, "error_share": 0.0, "degraded_share": 0.0, "per_s": 1_000, "node_mib": 1, "growth_mib": 0}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_file_that_we_ship_promises_something_for_every_scenario(scenario: str):
    found = read_service_level(FILE, scenario)
    assert found.breaches(KEPT) == []
    assert found.error_share == 0
    slow = found.breaches({**KEPT, "p99_ms": 10_000, "error_share": 0.001, "per_s": 0.5})
    assert len(slow) == 3 and f"p99_ms is 10000, at most {found.p99_ms:g} was promised" in slow


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("defaults: {p50: 3}", "line 1: scenario 'ramp', key 'p50' is unknown; perhaps you mean 'p50_ms'."),
        ("defaults: {p50_ms: 3}", "key 'p95_ms' is missing."),
        ("scenarios:\n  rmap: {}", "line 2: scenario 'rmap' is unknown; perhaps you mean 'ramp'."),
        ("scenarios:\n  ramp: {p50_ms: -1}", "line 2: scenario 'ramp', key 'p50_ms' has the value -1"),
        ("level: {}", "line 1: key 'level' is unknown; known are defaults, scenarios."),
    ],
)
def test_a_wrong_file_is_a_sentence_with_its_line(tmp_path: Path, text: str, words: str):
    (tmp_path / "level.yaml").write_text(text)
    with pytest.raises(InputError) as problem:
        read_service_level(tmp_path / "level.yaml", "ramp")
    assert words in str(problem.value)


def test_memory_of_a_process_is_followed_and_its_growth_is_from_the_second_quarter_on():
    assert growth([1.0, 9.0, 10.0, 11.0, 50.0, 60.0, 20.0, 22.0]) == 10.5
    assert growth([1.0, 2.0, 3.0]) == 0.0
    with Memory({"me": os.getpid(), "gone": 2**22 + 1}) as memory:
        time.sleep(1.5)
    found = memory.found()
    assert found["node_mib"] == found["memory_mib"]["me"]["most"] > 5 and "gone" not in found["memory_mib"]


def test_shapes_never_ask_for_more_callers_than_there_are():
    for shape in (*SHAPES.values(), level):
        shares = [shape(n / 100) for n in range(100)]
        assert min(shares) > 0 and max(shares) == 1.0
