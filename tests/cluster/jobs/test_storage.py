"""The places of promolift.storage in a real S3."""

from pathlib import Path

import pytest

from promolift import storage
from promolift.errors import InputError, UnavailableError

pytestmark = pytest.mark.cluster


def below(place: str) -> dict[str, str]:
    """Text by name of every file."""
    with storage.kept(place.rsplit("/", 1)[0], place.rsplit("/", 1)[1]) as folder:
        root = Path(folder) / place.rsplit("/", 1)[1]
        return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_texts_and_folders(bucket: str, tmp_path: Path):
    place = f"{bucket}/texts"
    assert not storage.exists(place)
    with pytest.raises(FileNotFoundError):
        storage.read_text(f"{place}/a/one.json")
    storage.write_text(f"{place}/a/one.json", "1")
    storage.write_text(f"{place}/a/two.txt", "zwei Äpfel")
    assert storage.read_text(f"{place.replace('s3a', 's3')}/a/two.txt") == "zwei Äpfel"
    assert storage.files(f"{place}/a", ".json") == [f"{place}/a/one.json"]
    assert storage.exists(place)
    storage.copy(f"{place}/a", tmp_path / "here")
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["one.json", "two.txt"]
    storage.delete(f"{place}/a/one.json")
    storage.delete(f"{place}/a/one.json")  # what is gone already is no mistake
    assert below(place) == {"a/two.txt": "zwei Äpfel"}


def test_kept_files_return_with_what_changed_and_leave_what_others_wrote(bucket: str):
    root = f"{bucket}/kept"
    for name in ("models/old/a", "models/same/b", "models/gone/c", "else/d"):
        storage.write_text(f"{root}/{name}", "before")
    with storage.kept(root, "models", "missing") as folder:
        assert not (Path(folder) / "else").exists()
        (Path(folder) / "models/old/a").write_text("after")
        (Path(folder) / "models/gone/c").unlink()
        (Path(folder) / "models/new").mkdir()
        (Path(folder) / "models/new/e").write_text("new")
        storage.write_text(f"{root}/models/other/f", "of another task")
    wanted = {"old/a": "after", "same/b": "before", "new/e": "new", "other/f": "of another task"}
    assert below(f"{root}/models") == wanted
    with pytest.raises(InputError, match=f"see {root}/models/page"), storage.kept(root, "models") as folder:
        (Path(folder) / "models/page").write_text("why")
        raise InputError(f"see {folder}/models/page")
    assert below(f"{root}/models") == {**wanted, "page": "why"}


def test_a_replaced_folder_has_nothing_of_the_old_one(bucket: str, tmp_path: Path):
    storage.write_text(f"{bucket}/landing/old/x.parquet", "old")
    (tmp_path / "new").mkdir()
    (tmp_path / "new/x.parquet").write_text("new")
    (tmp_path / "source.json").write_text("{}")
    storage.replace(tmp_path, f"{bucket}/landing")
    assert below(f"{bucket}/landing") == {"new/x.parquet": "new", "source.json": "{}"}


def test_what_s3_refuses_is_one_sentence(monkeypatch: pytest.MonkeyPatch, bucket: str):
    with pytest.raises(UnavailableError, match=r"S3 at http.* refuses 's3://no-such-bucket/a/b'.*check the address"):
        storage.write_text("s3://no-such-bucket/a/b", "text")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UnavailableError, match=r"S3 at http.* refuses"):
        storage.read_text(f"{bucket}/texts/a/two.txt")
