# SPDX-License-Identifier: Apache-2.0
"""Weight files are found by their content, in a fixed order of folders, and hashed once."""

import os
from pathlib import Path

import pytest

from lipsync_bench.datamodules.weights import hashes
from lipsync_bench.datamodules.weights.hashes import Hashes
from lipsync_bench.datamodules.weights.registry import WeightFile
from lipsync_bench.datamodules.weights.store import Found, Store
from tests.small_registry import ALPHA, BETA, GAMMA, OLD, small_registry

FILES = small_registry()
SHA256 = FILES["alpha"].sha256


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's caches; a working folder of its own."""
    for name in ("TORCH_HOME", "HF_HOME", "HF_HUB_CACHE", "LIPSYNC_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("lipsync_bench.datamodules.weights.store.sys.modules", {})
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def put(path: Path, content: bytes = ALPHA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def found(*folders: Path, id: str = "alpha", given: dict[str, Path] | None = None) -> Found | None:
    return Store(folders, given, FILES).find(id)


def test_folders_are_asked_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv("LIPSYNC_WEIGHTS", os.pathsep.join(map(str, (tmp_path / "env1", "", tmp_path / "env2"))))
    places = [tmp_path / "home" / ".insightface" / "models" / "x.onnx"]
    places += [tmp_path / "cache" / "whisper" / "x.pt"]
    places += [tmp_path / "cache" / "huggingface" / "hub" / "models--a--b" / "blobs" / SHA256]
    places += [tmp_path / "cache" / "torch" / "hub" / "checkpoints" / "x.pth"]
    places += [Path("weights") / "below" / "x.pth", tmp_path / "env2" / "x", tmp_path / "env1" / "x.bin"]
    places += [tmp_path / "flag2" / "a" / "b" / "x.pth", tmp_path / "flag1" / "x.pth"]
    (tmp_path / "flag1").mkdir()
    (tmp_path / "flag2").mkdir()
    assert found(tmp_path / "flag1", tmp_path / "flag2") is None
    for place in places:
        put(place)
        assert found(tmp_path / "flag1", tmp_path / "flag2") == Found("alpha", place, SHA256, True)
    given = put(tmp_path / "mine.pth")
    assert found(tmp_path / "flag1", given={"alpha": given}) == Found("alpha", given, SHA256, True)


def test_other_variables_move_the_caches(tmp_path, monkeypatch):
    for name, below in (("HF_HOME", "hub/m"), ("HF_HUB_CACHE", "m"), ("TORCH_HOME", "hub/checkpoints")):
        monkeypatch.setenv(name, str(tmp_path / name))
        place = put(tmp_path / name / below / "x")
        assert Store(files=FILES).need("alpha").path == place
        place.unlink()
        monkeypatch.delenv(name)


def test_the_name_does_not_matter_but_the_content_does():
    put(Path("weights/alpha.pth"), OLD)  # of the same size
    path = put(Path("weights/zeta/whatever.dat"))
    assert found() == Found("alpha", path, SHA256, True)
    path.unlink()
    assert found() is None


def test_without_a_public_size_the_name_is_looked_at_first():
    put(Path("weights/other.pt"), BETA)
    assert found(id="beta") is None
    path = put(Path("weights/BETA.pt"), BETA)
    assert found(id="beta") == Found("beta", path, FILES["beta"].sha256, True)


def test_without_a_public_hash_a_file_is_found_by_its_name_and_not_called_official():
    path = put(Path("weights/gamma.pth"), b"<html><title>Sign in</title></html>")
    assert found(id="gamma") is None
    put(path, ALPHA)  # known as another
    assert found(id="gamma") is None
    put(path, GAMMA)
    assert found(id="gamma").official is False


def test_an_explicit_path_of_unknown_hash_counts_and_is_not_official(tmp_path):
    put(Path("weights/alpha.pth"))
    given = put(tmp_path / "mine.pth", b"trained at home")
    assert found(given={"alpha": given}).path == given
    assert found(given={"alpha": given}).official is False
    with pytest.raises(
        FileNotFoundError, match=r"no\.pth: no such file\. Expected alpha\.pth \(a network, 300000 byte"
    ):
        found(given={"alpha": tmp_path / "no.pth"})
    with pytest.raises(FileNotFoundError, match=r"is a folder\. Expected"):
        found(given={"alpha": tmp_path})
    with pytest.raises(ValueError, match="'alfa': no such id"):
        found(given={"alfa": given})


def test_a_named_folder_has_to_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--weights .*no: no such folder\. Expected"):
        Store([tmp_path / "no"], files=FILES)


def test_need_says_where_it_looked_and_what_has_the_name(tmp_path):
    files = small_registry(official=("https://example.org/alpha.pth",))
    put(tmp_path / "flag" / "alpha.pth", OLD)
    put(Path("weights/Alias.pth"), b"<!doctype html><title>Log in</title>")
    with pytest.raises(FileNotFoundError) as raised:
        Store([tmp_path / "flag"], files=files).need("alpha")
    text = str(raised.value)
    assert f"weights alpha: not in {tmp_path / 'flag'}, weights" in text
    assert f"{tmp_path / 'flag' / 'alpha.pth'} is not the official alpha: the version of last year" in text
    assert "Alias.pth is a web page that asks to sign in" in text
    assert f"Expected alpha.pth (a network, 300000 bytes, sha256 {SHA256}), under any name" in text
    assert "Run: bench weights fetch alpha; or put it into" in text
    assert "\n" not in text
    with pytest.raises(FileNotFoundError, match=r"Run: see example\.org"):
        Store(files=FILES).need("alpha")


def test_hashes_are_kept_and_a_changed_file_is_noticed(monkeypatch, tmp_path):
    path, read = put(Path("weights/x.pth")), []
    whole = hashes.sha256
    monkeypatch.setattr(hashes, "sha256", lambda file: read.append(file) or whole(file))
    assert found() is not None
    assert found() is not None
    assert read == [path]
    times = path.stat()
    put(path, OLD)  # the same size; and, restored, the same time
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert found() is None
    assert len(read) == 2
    (saved,) = (tmp_path / "cache").rglob("sha256.json")
    for damage in ("", "[]", '{"a": 1, "b": [[], 3]}', "\0"):
        saved.write_text(damage)
        assert found() is None
        assert saved.read_text() != damage


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path):
    put(tmp_path / "file", b"")
    path = put(tmp_path / "x", b"abc")
    assert Hashes(tmp_path / "file" / "sha256.json").of(path).startswith("ba7816bf")


def test_two_processes_keep_what_the_other_has_written(tmp_path):
    one, two = Hashes(tmp_path / "h.json"), Hashes(tmp_path / "h.json")
    paths = [put(tmp_path / name, name.encode()) for name in "abc"]
    one.of(paths[0])
    two.of(paths[1])
    one.of(paths[2])
    assert sorted(Hashes(tmp_path / "h.json")._read()) == [str(path) for path in paths]


def test_links_in_circles_and_broken_ones_are_survived(tmp_path):
    path = put(tmp_path / "real" / "x.pth")
    Path("weights").mkdir()
    Path("weights/link").symlink_to(path.parent)
    Path("weights/back").symlink_to(Path("weights").absolute())
    Path("weights/broken.pth").symlink_to("nowhere")
    assert found().path == Path("weights/link/x.pth")


def test_verify_says_of_each_file_what_it_is(tmp_path):
    put(Path("weights/a.pth"))
    put(Path("weights/alias.pth"), BETA)
    put(Path("weights/alpha.pth"), OLD)
    put(Path("weights/b.txt"), b"notes")
    put(Path("weights/gamma.pth"), GAMMA)
    put(Path("weights/alpha.pth.00.part"), b"half")
    hub = tmp_path / "cache" / "torch" / "hub" / "checkpoints"
    put(hub / "other.pth", b"of another program")
    put(hub / f"delta-{SHA256[:8]}.pth", b"half")
    delta = WeightFile(id="delta", file=f"delta-{SHA256[:8]}.pth", licence="x", sha256=SHA256[::-1])
    files = {**FILES, "delta": delta.model_copy(update={"sha256": SHA256[:8] + "0" * 56})}
    seen = {file.path.name: file for file in Store(files=files).verify()}
    assert {name: (file.id, file.status) for name, file in seen.items()} == {
        "a.pth": ("alpha", "official"),
        "alias.pth": ("beta", "wrong"),
        "alpha.pth": ("alpha", "wrong"),
        "b.txt": ("", "unknown"),
        "gamma.pth": ("gamma", "unchecked"),
        f"delta-{SHA256[:8]}.pth": ("delta", "wrong"),
    }
    assert seen["alias.pth"].what.startswith("the official beta")
    assert "last year" in seen["alpha.pth"].what


def test_a_file_that_cannot_be_read_is_named_and_the_others_go_on(monkeypatch):
    put(Path("weights/alpha.pth"))
    path, whole = put(Path("weights/b.pth")), hashes.sha256

    def refused(file: Path) -> str:
        if file.name == "alpha.pth":
            raise PermissionError(13, "Permission denied", str(file))
        return whole(file)

    monkeypatch.setattr(hashes, "sha256", refused)
    assert found().path == path
    seen = Store(files=FILES).verify()
    assert [file.status for file in seen] == ["wrong", "official"]
    assert seen[0].what == "a file that cannot be read"
