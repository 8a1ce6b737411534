# SPDX-License-Identifier: Apache-2.0
"""Downloads against a server on this machine: resumed, checked, refused; a file has its name only when it is right."""

import io
import logging
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from lipsync_bench.datamodules.errors import JobsFailed
from lipsync_bench.datamodules.weights import registry
from lipsync_bench.weights import download as downloading
from lipsync_bench.weights.fetch import fetch
from tests.commands import run_bench
from tests.small_registry import ALPHA, GAMMA, OLD, small_registry

SIGN_IN = b"<!DOCTYPE html><html><title>Sign in to your account</title></html>"


class Answer(NamedTuple):
    """What the server does at one address.

    Args:
        content: The whole file.
        status: 302 leads to the address `content`.
        ranges: Whether it knows Range and If-Range.
        mark: ETag, "" for none.
        cut: Bytes after which it closes the connection, in the requests that come first; the next ones are whole.
        length: Content-Length is told.
    """

    content: bytes = ALPHA
    status: int = 200
    ranges: bool = True
    mark: str = '"v1"'
    cut: tuple[int, ...] = ()
    length: bool = True


class Server(ThreadingHTTPServer):
    """Answers by path, and keeps what was asked: path and Range."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str]] = []

    def serve(self, name: str, answer: Answer) -> str:
        """The address of a new answer."""
        self.answers[f"/{name}"] = answer
        return f"http://127.0.0.1:{self.server_port}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.asked.append((self.path.strip("/"), asked))
        answer = self.server.answers.get(self.path)
        if answer is None or answer.status == 404:
            self.send_error(404)
            return
        if answer.status == 302:
            self.send_response(302)
            self.send_header("Location", answer.content.decode())
            self.end_headers()
            return
        content, start = answer.content, 0
        same = self.headers.get("If-Range", answer.mark) == answer.mark
        if asked and answer.ranges and same:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content) > 0:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if answer.mark:
            self.send_header("ETag", answer.mark)
        if answer.length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if answer.cut:
            self.server.answers[self.path] = answer._replace(cut=answer.cut[1:])
            content = content[: start + answer.cut[0]]
        with suppress(ConnectionError):  # it has seen enough
            self.wfile.write(content[start:])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloading, "WAIT_S", 0.0)
    monkeypatch.setattr(downloading, "_PIECE", 1000)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


Get = Callable[..., Path]


@pytest.fixture
def get(tmp_path: Path) -> Get:
    """Download alpha into tmp_path/weights."""

    def run(*official: str, mirrors: tuple[str, ...] | None = None, id: str = "alpha", **changes: object) -> Path:
        files = small_registry(official, mirrors or (), **changes)
        allowed = mirrors is not None
        return fetch([files[id]], tmp_path / "weights", mirrors=allowed, accept_licence=True)[id]

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def cut_off(server: Server, get: Get, answer: Answer, at: int = 100_000) -> str:
    """An address of which the first `at` bytes have come, in every try of a first call."""
    cuts = (at, *[0] * downloading.TRIES)
    address = server.serve("alpha", answer._replace(cut=cuts))
    with pytest.raises(JobsFailed, match=rf"breaks off; {at} bytes are kept, the same command resumes\. Expected"):
        get(address)
    server.asked.clear()
    server.answers["/alpha"] = answer
    return address


def test_a_download_is_checked_and_has_its_name(server, get, tmp_path, caplog):
    caplog.set_level(logging.INFO, "lipsync_bench")
    path = get(server.serve("alpha", Answer()))
    assert path == tmp_path / "weights" / "alpha.pth"
    assert path.read_bytes() == ALPHA
    assert names(path.parent) == ["alpha.pth"]
    assert "alpha (alpha.pth): licence: for tests only; see example.org" in caplog.text
    assert f"sha256 {small_registry()['alpha'].sha256}" in caplog.text


def test_an_interrupted_download_is_resumed_by_the_next_call(server, get, tmp_path):
    address = cut_off(server, get, Answer())
    assert not (tmp_path / "weights" / "alpha.pth").exists()
    assert len(names(tmp_path / "weights")) == 2
    assert get(address).read_bytes() == ALPHA
    assert server.asked == [("alpha", "bytes=100000-")]
    assert names(tmp_path / "weights") == ["alpha.pth"]


def test_a_connection_that_breaks_is_taken_up_in_the_same_call(server, get):
    assert get(server.serve("alpha", Answer(cut=(70_000, 90_000)))).read_bytes() == ALPHA
    assert server.asked == [("alpha", ""), ("alpha", "bytes=70000-"), ("alpha", "bytes=160000-")]


def test_a_library_that_does_not_notice_the_early_end_loses_nothing(server, get, monkeypatch):
    whole = requests.Response.iter_content

    def as_urllib3_1(response: requests.Response, chunk_size: int) -> Iterator[bytes]:
        with suppress(requests.exceptions.ChunkedEncodingError):
            yield from whole(response, chunk_size)

    monkeypatch.setattr(requests.Response, "iter_content", as_urllib3_1)
    assert get(server.serve("alpha", Answer(cut=(70_000,)))).read_bytes() == ALPHA
    assert server.asked == [("alpha", ""), ("alpha", "bytes=70000-")]


@pytest.mark.parametrize(
    ("after", "ranges"),
    [
        (Answer(ranges=False), ["bytes=100000-"]),
        (Answer(mark='"v2"'), ["bytes=100000-"]),
        (Answer(mark=""), ["bytes=100000-"]),
    ],
    ids=["a server without Range", "another version", "no version any more"],
)
def test_what_cannot_be_resumed_begins_anew(after, ranges, server, get):
    address = cut_off(server, get, Answer(content=OLD))
    server.answers["/alpha"] = after
    assert get(address).read_bytes() == ALPHA
    assert [asked for _, asked in server.asked] == ranges


@pytest.mark.parametrize("mark", ['W/"weak"', ""])
def test_without_a_mark_of_its_version_a_changed_file_is_noticed_by_its_hash(mark, server, get):
    address = cut_off(server, get, Answer(content=OLD, mark=mark))
    server.answers["/alpha"] = Answer(mark=mark)
    assert get(address).read_bytes() == ALPHA
    assert [asked for _, asked in server.asked] == ["bytes=100000-", ""]


def test_with_neither_hash_nor_mark_nothing_is_resumed(server, get):
    address = server.serve("gamma", Answer(OLD, mark="", cut=(100_000, *[0] * downloading.TRIES)))
    with pytest.raises(JobsFailed, match="breaks off"):
        get(address, id="gamma")
    server.answers["/gamma"] = Answer(GAMMA * 100, mark="")
    server.asked.clear()
    assert get(address, id="gamma").read_bytes() == GAMMA * 100
    assert server.asked == [("gamma", "")]


def test_a_part_longer_than_the_file_begins_anew(server, get, tmp_path):
    address = cut_off(server, get, Answer())
    (part,) = (tmp_path / "weights").glob("*.part")
    part.write_bytes(OLD + OLD)
    assert get(address).read_bytes() == ALPHA


def test_a_whole_part_is_not_asked_for_again(server, get, tmp_path):
    address = cut_off(server, get, Answer())
    (part,) = (tmp_path / "weights").glob("*.part")
    part.write_bytes(ALPHA)
    assert get(address).read_bytes() == ALPHA
    assert server.asked == []


def test_redirects_are_followed_and_resumed_behind_them(server, get):
    target = server.serve("store", Answer(cut=(50_000,)))
    address = server.serve("alpha", Answer(target.encode(), 302))
    assert get(address).read_bytes() == ALPHA
    assert [name for name, _ in server.asked] == ["alpha", "store", "alpha", "store"]
    assert server.asked[-1][1] == "bytes=50000-"


def test_a_server_that_tells_no_length_is_fine(server, get):
    assert get(server.serve("alpha", Answer(length=False))).read_bytes() == ALPHA


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(status=404), "answers 404 Not Found"),
        (Answer(OLD), "gives not the official alpha: the version of last year"),
        (Answer(ALPHA[:-1] + b"?"), "gives an unknown file, 300000 bytes"),
        (Answer(ALPHA[:1000]), "gives another file, 1000 bytes instead of 300000; truncated"),
        (Answer(ALPHA[:1000], length=False), "gives another file, 1000 bytes instead of 300000; truncated"),
        (Answer(SIGN_IN), "gives a web page that asks to sign in"),
        (Answer(b"", length=False), "gives empty"),
        (Answer(ALPHA * 10), "gives a file of 3000000 bytes instead of 300000"),
        (Answer(ALPHA * 10, length=False), "gives more than the 300000 bytes of the file"),
    ],
    ids=[
        "404",
        "other version",
        "wrong hash",
        "truncated",
        "truncated, no length",
        "page",
        "empty",
        "large",
        "endless",
    ],
)
def test_what_is_no_alpha_is_named_and_nothing_stays(answer, said, server, get, tmp_path):
    address = server.serve("alpha", answer)
    with pytest.raises(JobsFailed) as raised:
        get(address)
    text = str(raised.value)
    assert f"weights alpha: not fetched: {address} {said}" in text
    assert f"Expected alpha.pth (a network, 300000 bytes, sha256 {small_registry()['alpha'].sha256})" in text
    assert f"Download it by hand ({address}) into {tmp_path / 'weights'}" in text
    assert "\n" not in text
    assert names(tmp_path / "weights") == []


def test_addresses_are_tried_in_order_and_one_that_fails_costs_nothing(server, get, caplog):
    caplog.set_level(logging.INFO, "lipsync_bench")
    bad = server.serve("bad", Answer(SIGN_IN))
    good = server.serve("good", Answer())
    assert get("http://127.0.0.1:9/nobody", bad, good).read_bytes() == ALPHA
    assert "http://127.0.0.1:9/nobody cannot be reached (ConnectionError)" in caplog.text
    assert [name for name, _ in server.asked] == ["bad", "good"]


def test_mirrors_are_asked_only_if_allowed_and_after_the_official_addresses(server, get, tmp_path):
    dead, mirror = server.serve("dead", Answer(status=404)), server.serve("mirror", Answer())
    files = small_registry((dead,), (mirror,))
    with pytest.raises(JobsFailed, match=r"by hand .* or add --mirrors"):
        fetch([files["alpha"]], tmp_path, accept_licence=True)
    assert [name for name, _ in server.asked] == ["dead"]
    assert get(dead, mirrors=(mirror,)).read_bytes() == ALPHA
    assert [name for name, _ in server.asked] == ["dead", "dead", "mirror"]


def test_a_mirror_with_another_file_is_refused(server, get):
    mirror = server.serve("mirror", Answer(OLD))
    with pytest.raises(JobsFailed, match=r"mirror gives not the official alpha: the version of last year"):
        get(mirrors=(mirror,))


def test_without_a_public_hash_no_mirror_is_asked_and_the_official_file_is_called_unchecked(server, get, caplog):
    caplog.set_level(logging.INFO, "lipsync_bench")
    page, mirror = server.serve("page", Answer(SIGN_IN)), server.serve("mirror", Answer(GAMMA))
    with pytest.raises(JobsFailed, match="page gives a web page that asks to sign in") as raised:
        get(page, mirrors=(mirror,), id="gamma")
    assert [name for name, _ in server.asked] == ["page"]
    assert "--mirrors" not in str(raised.value)
    assert get(server.serve("gamma", Answer(GAMMA)), id="gamma").read_bytes() == GAMMA
    assert "its SHA-256 is not public, so it is not checked" in caplog.text


def test_another_file_of_that_name_is_never_replaced(server, get, tmp_path):
    path = tmp_path / "weights" / "alpha.pth"
    path.parent.mkdir()
    path.write_bytes(OLD)
    with pytest.raises(
        JobsFailed, match=r"is there already, and is not the official alpha.*Remove it, or name another"
    ):
        get(server.serve("alpha", Answer()))
    assert path.read_bytes() == OLD


def test_a_full_disk_is_said_before_the_download(server, get, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"has 1000 bytes free\. Expected 300000\. Free some"):
        get(server.serve("alpha", Answer()))


def test_two_processes_do_not_write_into_one_part(server, get, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    address = cut_off(server, get, Answer())
    (part,) = (tmp_path / "weights").glob("*.part")
    with part.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another process is downloading alpha"):
            get(address)
    assert get(address).read_bytes() == ALPHA


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stdin", "said"), [(io.StringIO("y\n"), "Add --accept-licence"), (Terminal("n\n"), "not acc")]
)
def test_without_agreement_nothing_is_asked_for(stdin, said, server, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", stdin)
    files = small_registry((server.serve("alpha", Answer()),))
    with pytest.raises(ValueError, match=said):
        fetch([files["alpha"]], tmp_path / "weights")
    assert server.asked == []
    assert not (tmp_path / "weights").exists()


def test_a_person_can_agree(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    files = small_registry((server.serve("alpha", Answer()),))
    assert fetch([files["alpha"]], tmp_path / "weights")["alpha"].read_bytes() == ALPHA
    assert "Accept these licences? [y/N]" in capsys.readouterr().err


@pytest.fixture
def commands(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder, and the small registry in place of the package's."""
    import yaml

    files = small_registry((server.serve("alpha", Answer()),), groups=["small"])
    content = {id: file.model_dump(exclude={"id"}) for id, file in files.items()}
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(registry, "REGISTRY", tmp_path / "registry.yaml")
    monkeypatch.delenv("LIPSYNC_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "work")
    registry.official_files.cache_clear()
    yield tmp_path / "work"
    registry.official_files.cache_clear()


def test_the_commands_from_nothing_to_a_checked_file(commands, capsys, caplog, server):
    assert run_bench("weights", "where", "alpha") == 1
    assert "Run: bench weights fetch alpha" in caplog.text
    assert run_bench("weights", "fetch", "--for", "small") == 1  # no terminal
    assert run_bench("weights", "fetch", "--for", "small", "--accept-licence") == 0
    assert capsys.readouterr().out == "weights/alpha.pth\n"
    server.asked.clear()
    assert run_bench("weights", "fetch", "alpha") == 0  # it is here
    assert server.asked == []
    capsys.readouterr()
    assert run_bench("weights", "where", "alpha") == 0
    assert capsys.readouterr().out == "weights/alpha.pth\n"
    assert run_bench("weights", "verify") == 0
    assert capsys.readouterr().out == "official  weights/alpha.pth: the official alpha (a network)\n"
    (commands / "weights" / "beta.pt").write_bytes(SIGN_IN)
    assert run_bench("weights", "verify") == 1
    assert "wrong     weights/beta.pt: a web page that asks to sign in" in capsys.readouterr().out


def test_the_table_names_every_file_and_whether_it_is_here(commands, capsys):
    (commands / "more").mkdir()
    (commands / "more" / "x").write_bytes(ALPHA)
    assert run_bench("weights", "list", "--weights", "more") == 0
    rows = capsys.readouterr().out.splitlines()
    assert [("yes" in row, "0.3" in row) for row in rows if "alpha " in row] == [(True, True)]
    assert [" no " in row for row in rows if "gamma " in row] == [True]
    assert run_bench("weights", "list", "--weights", "more", "--csv", "table.csv") == 0
    head, alpha, *rest = (commands / "table.csv").read_text().splitlines()
    assert head.startswith("id,file,size,use,licence,sources,sha256")
    assert alpha.startswith("alpha,alpha.pth,300000,")
    assert alpha.endswith(",more/x,True")
    assert len(rest) == 2


@pytest.mark.parametrize("words", [["fetch"], ["fetch", "omega"], ["fetch", "--for", "x"], ["where", "omega"]])
def test_unknown_ids_are_named(words, commands, caplog):
    assert run_bench("weights", *words) == 1
    assert "Expected" in caplog.text
    assert "Run: bench weights list" in caplog.text


def test_several_files_go_on_after_one_that_fails(commands, caplog, capsys):
    assert run_bench("weights", "fetch", "gamma", "alpha", "--accept-licence") == 1
    assert "1 of 2 files were not fetched: gamma" in caplog.text
    assert (commands / "weights" / "alpha.pth").read_bytes() == ALPHA
