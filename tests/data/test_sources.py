"""Finding data sets: order of the places, checksums, downloads from a server on this machine."""

import hashlib
import io
import os
import re
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fastnn.data import download, sources
from fastnn.data.sources import DownloadError, File, Source, Tree, available, find
from fastnn.data.transcribed import load_an4
from fastnn.errors import DataError, FastnnError

GOOD = b"what the set holds\n" * 5000
SETS = (sources.MNIST, sources.FSDD, sources.TINY_SHAKESPEARE, sources.PTB, sources.CONLL2003)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def server():
    """Answers with `server.answers[path]`: status, body, announced length."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.path)
            status, body, length = server.answers.get(self.path, (404, b"no", 2))
            self.send_response(status)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers, server.asked = {}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.serve = lambda path, body, status=200: server.answers.update(
        {path: (status, body, len(body))}
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """No data of this machine, and no proxy on the way to the server."""
    monkeypatch.delenv("FASTNN_DATA", raising=False)
    monkeypatch.setenv("FASTNN_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path


def one_file(*urls, content=GOOD):
    return Source("tiny", (File("a.txt", len(content), sha256(content), urls),), "none")


def put(folder, content=GOOD):
    folder.mkdir(parents=True)
    (folder / "a.txt").write_bytes(content)


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_downloads_once(server, places):
    server.serve("/a.txt", GOOD)
    source = one_file(server.url + "/a.txt")
    assert not available(source)
    home = find(source)
    assert home == places / "cache" / "tiny"
    assert (home / "a.txt").read_bytes() == GOOD
    assert available(source)
    assert find(source) == home
    assert server.asked == ["/a.txt"]
    assert everything(places / "cache") == ["tiny", "tiny/a.txt"]  # no temporary file is left


def test_folder_of_the_user_comes_first(server, places, monkeypatch):
    monkeypatch.setenv("FASTNN_DATA", str(places / "mine"))
    put(places / "mine" / "tiny")
    put(places / "cache" / "tiny")
    assert find(one_file(server.url + "/a.txt")) == places / "mine" / "tiny"
    assert server.asked == []


def test_cache_comes_before_the_download(server, places, monkeypatch):
    monkeypatch.setenv("FASTNN_DATA", str(places / "mine"))  # it does not have the set
    (places / "mine").mkdir()
    put(places / "cache" / "tiny")
    assert find(one_file(server.url + "/a.txt")) == places / "cache" / "tiny"
    assert server.asked == []


def test_folder_of_the_user_that_is_not_there_is_an_error(places, monkeypatch):
    """Be the set in the cache or not: who names a folder means it."""
    put(places / "cache" / "tiny")
    (places / "file").write_text("")
    for name, said in (("mistyped", "there is no such folder"), ("file", "it is no folder")):
        monkeypatch.setenv("FASTNN_DATA", str(places / name))
        for asked in (find, available):
            with pytest.raises(DataError, match=rf"FASTNN_DATA='.*{name}': {said}; name one that"):
                asked(one_file("https://example.org/a.txt"))
        with pytest.raises(DataError, match=f"FASTNN_DATA='.*{name}': {said}"):
            load_an4()


def test_set_of_the_user_that_lacks_a_file_is_an_error(places, monkeypatch):
    monkeypatch.setenv("FASTNN_DATA", str(places))
    put(places / "tiny")
    put(places / "cache" / "tiny")
    parts = tuple(File(n, 1, "", ()) for n in ("a.txt", "b.txt", "c.txt"))
    with pytest.raises(DataError, match=r"expected b\.txt, c\.txt in .*tiny, which is used"):
        find(Source("tiny", parts, "none"))


def test_wrong_file_of_the_user_is_an_error(places, monkeypatch):
    monkeypatch.setenv("FASTNN_DATA", str(places))
    put(places / "tiny", GOOD[:-1] + b"!")
    with pytest.raises(DataError, match=f"expected sha256 {sha256(GOOD)}, got [0-9a-f]{{64}}"):
        find(one_file("https://example.org/a.txt"))


def test_damaged_file_in_the_cache_is_replaced(server, places):
    server.serve("/a.txt", GOOD)
    put(places / "cache" / "tiny", GOOD[:100])
    home = find(one_file(server.url + "/a.txt"))
    assert (home / "a.txt").read_bytes() == GOOD


def test_given_folder_is_not_checked(places):
    put(places / "other", b"something else")
    source = one_file("https://example.org/a.txt")
    assert find(source, folder=places / "other") == places / "other"
    with pytest.raises(DataError, match=r"tiny: expected a\.txt in "):
        find(source, folder=places)


def test_second_address(server):
    server.serve("/mirror/a.txt", GOOD)
    home = find(one_file(server.url + "/a.txt", server.url + "/mirror/a.txt"))
    assert (home / "a.txt").read_bytes() == GOOD
    assert server.asked == ["/a.txt", "/mirror/a.txt"]


def test_404_names_address_and_way_out(server, places):
    url = server.url + "/a.txt"
    with pytest.raises(DownloadError) as caught:
        find(one_file(url))
    message = str(caught.value)
    assert f"{url}: HTTP Error 404" in message
    assert "FASTNN_DATA" in message
    assert "tiny/a.txt" in message
    assert isinstance(caught.value, FastnnError)
    assert isinstance(caught.value, OSError)
    assert everything(places / "cache") == ["tiny"]


def test_checksum_mismatch(server, places):
    other = GOOD[:-1] + b"!"
    server.serve("/a.txt", other)
    with pytest.raises(DownloadError) as caught:
        find(one_file(server.url + "/a.txt"))
    message = str(caught.value)
    assert f"{server.url}/a.txt: expected sha256 {sha256(GOOD)}, got {sha256(other)}" in message
    assert everything(places / "cache") == ["tiny"]


@pytest.mark.parametrize("announced", ["all", "part", "nothing"])
def test_truncated_file(server, places, announced):
    lengths = {"all": len(GOOD), "part": 70_000, "nothing": None}
    server.answers["/a.txt"] = (200, GOOD[:70_000], lengths[announced])
    with pytest.raises(DownloadError, match=r"expected 95,000 bytes, got 70,000"):
        find(one_file(server.url + "/a.txt"))
    assert everything(places / "cache") == ["tiny"]


def test_too_long_file(server):
    server.serve("/a.txt", GOOD + b"more")
    with pytest.raises(DownloadError, match=r"expected 95,000 bytes, got more"):
        find(one_file(server.url + "/a.txt"))


def test_nobody_answers(server):
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match=re.escape(f"{url}/a.txt: ")):
        find(one_file(url + "/a.txt"))


def test_no_answer_in_time(monkeypatch, server):
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    server.answers["/a.txt"] = (200, b"", len(GOOD))
    go_on = threading.Event()
    server.RequestHandlerClass.do_GET = lambda self: go_on.wait(5)
    try:
        with pytest.raises(DownloadError, match="timed out"):
            find(one_file(server.url + "/a.txt"))
    finally:
        go_on.set()


def test_download_not_wanted(server):
    server.serve("/a.txt", GOOD)
    with pytest.raises(DownloadError, match="download=False"):
        find(one_file(server.url + "/a.txt"), download=False)
    assert server.asked == []


def test_only_web_addresses(places):
    put(places / "x")
    with pytest.raises(DownloadError, match="begins with https://"):
        find(one_file((places / "x" / "a.txt").as_uri()))


FILES = {"b.wav": b"bb", "a.wav": b"a" * 1000, "c.wav": b"c"}


def archive(files=FILES, folder="set-1.0/recordings/"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in {"set-1.0/README.md": b"read", "set-1.0/x.wav": b"x"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, content in files.items():
            info = tarfile.TarInfo(folder + name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo(folder + "link.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    return stream.getvalue()


def tree(*urls):
    listing = "".join(f"{sha256(FILES[name])}  {name}\n" for name in sorted(FILES))
    return Source("tiny", (Tree("recordings", ".wav", 3, sha256(listing.encode()), urls),), "none")


def test_archive_is_unpacked(server, places):
    server.serve("/a.tar.gz", archive())
    source = tree(server.url + "/a.tar.gz")
    for _ in range(2):
        home = find(source)
    assert {p.name: p.read_bytes() for p in (home / "recordings").iterdir()} == FILES
    assert everything(places / "cache") == [
        "tiny", "tiny/recordings", *(f"tiny/recordings/{n}.wav" for n in "abc"),
    ]  # fmt: skip
    assert server.asked == ["/a.tar.gz"]


def test_archive_cannot_write_elsewhere(server, places):
    server.serve("/a.tar.gz", archive(folder="../../recordings/../recordings/"))
    find(tree(server.url + "/a.tar.gz"))
    assert everything(places) == [
        "cache", "cache/tiny", "cache/tiny/recordings",
        *(f"cache/tiny/recordings/{n}.wav" for n in "abc"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (archive({"a.wav": b"a"}), r"expected 3 \.wav files, got 1"),
        (archive(FILES | {"b.wav": b"no"}), r"expected sha256 .*, got "),
        (archive()[:200], "not a readable tar archive"),
        (b"no archive", "not a readable tar archive"),
    ],
)
def test_archive_with_faults(server, places, body, message):
    server.serve("/a.tar.gz", body)
    with pytest.raises(DownloadError, match=message):
        find(tree(server.url + "/a.tar.gz"))
    assert everything(places / "cache") == ["tiny"]


def test_place_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("FASTNN_DATA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert sources.data_cache() == tmp_path / "fastnn" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert sources.data_cache() == tmp_path / "local" / "fastnn" / "data"
    monkeypatch.delenv("LOCALAPPDATA")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if os.name == "posix":
        assert sources.data_cache() == tmp_path / "home" / ".cache" / "fastnn" / "data"


@pytest.mark.parametrize("source", SETS, ids=lambda s: s.name)
def test_sets_are_complete(source):
    assert source.licence
    for part in source.parts:
        assert re.fullmatch("[0-9a-f]{64}", part.sha256)
        assert part.urls
        if isinstance(part, File):
            assert all(url.endswith("/" + part.name) for url in part.urls)
            assert part.size > 0
