# SPDX-License-Identifier: Apache-2.0
"""The same streams in another container give the same clip: neither frames nor audio are shifted."""

import dataclasses
from pathlib import Path

import av
import pytest
from safetensors.numpy import load_file

from lipsync_bench.datamodules.clips.clip import read_header
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import prepare

CONTAINERS = {
    "mkv": ("matroska", {}),
    "ts": ("mpegts", {}),
    "flv": ("flv", {}),
    "mov": ("mov", {}),
    "fragmented": ("mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "no_edit_list": ("mp4", {"use_editlist": "0"}),
}
OF_THE_SOURCE = ("id", "speaker", "source", "source_sha256", "source_fps")  # FLV rounds the rate

__all__: list[str] = []


def remux(source: Path, out: Path, form: str, options: dict[str, str]) -> None:
    """Copy the first video and audio stream, packet by packet."""
    with av.open(str(source)) as given, av.open(str(out), "w", format=form, options=options) as made:
        streams = [given.streams.video[0], given.streams.audio[0]]
        copies = {stream: made.add_stream_from_template(stream) for stream in streams}
        for packet in given.demux(streams):
            if packet.dts is not None:  # the empty one at the end
                copy = copies[packet.stream]
                packet.stream = copy
                made.mux(packet)


def assert_same_clips(source: Path, folder: Path) -> None:
    """Remux a video into every container, prepare them all, and compare."""
    (folder / "in").mkdir()
    original = folder / "in" / f"original{source.suffix}"
    original.write_bytes(source.read_bytes())
    for name, (form, options) in CONTAINERS.items():
        remux(source, folder / "in" / f"{name}.mp4", form, options)  # the content tells, not the suffix
    report = prepare(folder / "in", folder / "out", PrepareOptions(workers=1), progress=False)
    assert report.done == len(CONTAINERS) + 1, (folder / "out" / "failures.csv").read_text()
    clips = {path.stem: path for path in sorted((folder / "out").glob("*/*.safetensors"))}
    expected = clips.pop("original")
    assert len(clips) == len(CONTAINERS)
    tensors, header = load_file(expected), dataclasses.asdict(read_header(expected))
    different = {}
    for name, path in clips.items():
        found, own = load_file(path), dataclasses.asdict(read_header(path))
        wrong = [key for key in tensors if found[key].shape != tensors[key].shape or (found[key] != tensors[key]).any()]
        wrong += [key for key in header if key not in OF_THE_SOURCE and own[key] != header[key]]
        if wrong:
            different[name] = wrong
    assert not different


def test_a_clip_of_the_corpus(corpus: Path, tmp_path: Path) -> None:
    assert_same_clips(sorted((corpus / "videos" / "main").glob("*/*.mp4"))[0], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["talk1", "talk4", "talk5"])  # a late start and 22.13 fps; 30 fps; B-frames at 25 fps
def test_real_clips(real_clips: Path, tmp_path: Path, name: str) -> None:
    assert_same_clips(real_clips / f"{name}.mp4", tmp_path)
