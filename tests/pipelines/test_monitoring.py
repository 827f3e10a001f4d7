"""`pipelines.run monitoring` where nothing is due: it says why, starts nothing, and the next evening asks again."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from promolift.contracts.tables import EXAMPLES
from promolift.promotion.trail import Entry
from promolift.promotion.trail_table import TrailTable

ROOT = Path(__file__).parents[2]


def run(served: Path, out: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    out.parent.mkdir(exist_ok=True)
    path = out.parent / "trial.csv"
    path.write_text("recency\n1\n")
    command = [sys.executable, "-m", "pipelines.run", "monitoring", "--served", str(served), "--source", "hillstrom", "--path", str(path)]
    return subprocess.run([*command, "--out", str(out), *more], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.whole
def test_nothing_is_started_where_nothing_is_due_and_what_cannot_be_asked_is_said(tmp_path: Path):
    now, lake = datetime.now(UTC), tmp_path / "served" / "lake"
    TrailTable(lake).append(Entry(0, "1", "net-0", "register", "champion", "champion", "a", now, "the first", "hash", "1"))
    closed = pa.array([now - timedelta(days=2)], pa.timestamp("us", "UTC"))
    write_deltalake(str(lake / EXAMPLES.path), pa.table({"window_end": closed}))
    for _ in range(2):  # the answer of yesterday is not reused
        done = run(tmp_path / "served", tmp_path / "out" / "again")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "retraining of net-0: no, nothing to train for" in done.stdout and "watch-drift" in done.stdout
    assert not (tmp_path / "out" / "again" / "lake").exists()
    silent = run(tmp_path / "served", tmp_path / "out" / "again", "--detector", "http://127.0.0.1:9")
    assert silent.returncode == 4 and silent.stderr.strip().splitlines()[-1].startswith(
        "The detector does not answer at http://127.0.0.1:9/"
    )
    inside = run(tmp_path / "served", tmp_path / "out" / "docker", "--on", "docker")
    assert inside.returncode == 2 and "use monitoring --on local" in inside.stderr
