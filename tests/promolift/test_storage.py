"""Places of this machine; the same in S3 is in tests/cluster/jobs."""

from pathlib import Path

import pytest

from promolift import storage
from promolift.errors import UnavailableError


def test_one_spelling_of_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert storage.spelled("lake/x") == f"{tmp_path}/lake/x" == storage.spelled(Path("lake/x"))
    assert storage.spelled("s3://bucket/run/") == "s3a://bucket/run" == storage.spelled("s3a://bucket/run")
    assert [storage.is_remote(place) for place in ("s3://b/x", "s3a://b/x", "/s3/b", Path("s3"))] == [True, True, False, False]


def test_files_and_folders(tmp_path: Path):
    place = f"{tmp_path}/a/b/one.json"
    storage.write_text(place, "zwei Äpfel")
    assert storage.read_text(Path(place)) == "zwei Äpfel"
    assert storage.info(place).size == len("zwei Äpfel".encode())
    assert storage.files(tmp_path / "a/b", ".json") == [place]
    assert storage.files(tmp_path / "nowhere") == []
    storage.copy(tmp_path / "a", tmp_path / "c/d")
    storage.copy(place, tmp_path / "e/one")
    assert (tmp_path / "c/d/b/one.json").read_text() == (tmp_path / "e/one").read_text() == "zwei Äpfel"
    storage.delete(tmp_path / "a")
    storage.delete(tmp_path / "a")
    assert not storage.exists(place)
    with pytest.raises(FileNotFoundError):
        storage.read_text(place)


def test_a_folder_of_this_machine_is_kept_where_it_is(tmp_path: Path):
    with storage.kept(tmp_path, "models") as folder:
        assert folder == str(tmp_path)
    storage.write_text(tmp_path / "new/x", "new")
    storage.write_text(tmp_path / "old/x", "old")
    storage.write_text(tmp_path / "old/y", "old")
    storage.replace(tmp_path / "new", tmp_path / "old")
    assert {path.name: path.read_text() for path in (tmp_path / "old").iterdir()} == {"x": "new"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]


def test_an_s3_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(UnavailableError, match=r"S3 at http://127\.0\.0\.1:1 refuses 's3://bucket/x'.*check the address"):
        storage.read_text("s3://bucket/x")
    assert storage.delta_options() == {"allow_http": "true"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://s3.example")
    assert storage.delta_options() == {}
