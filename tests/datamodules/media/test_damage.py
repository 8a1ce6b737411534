# SPDX-License-Identifier: Apache-2.0
"""What a decoder cannot read is a failure or is counted, never forgiven in silence."""

import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.audio import load_audio
from lipsync_bench.datamodules.media.damage import Damage, check_end
from lipsync_bench.datamodules.media.video import read_frames

FRAMES = 40


def _write(path: Path, gop: int = 250, **options: str) -> Path:
    """1.6 s of frames that are not trivial to compress, and of noise."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        video: Any = container.add_stream("libx264", rate=25, options={"crf": "20", "g": str(gop), "bf": "0"})
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        audio: Any = container.add_stream("aac", rate=16000, layout="mono")
        for k in range(FRAMES):
            image = np.kron(random.integers(0, 255, (12, 16, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(video.encode(frame))
            piece = av.AudioFrame.from_ndarray(
                random.uniform(-0.3, 0.3, (1, 640)).astype(np.float32), format="fltp", layout="mono"
            )
            piece.sample_rate, piece.pts, piece.time_base = 16000, 640 * k, Fraction(1, 16000)
            container.mux(audio.encode(piece))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def _frame_bytes(path: Path, number: int) -> tuple[int, int]:
    """Where the packet of a video frame lies in the file, and its size."""
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    return path.read_bytes().index(packets[number]), len(packets[number])


def _overwrite(path: Path, start: int, count: int, seed: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    noise = bytes(count) if seed is None else np.random.default_rng(seed).bytes(count)
    content[start : start + count] = noise
    path.write_bytes(content)


@pytest.mark.parametrize("lost", [0.1, 0.25])
def test_a_short_clip_without_its_end_is_a_failure(tmp_path: Path, lost: float) -> None:
    path = _write(tmp_path / "a.mp4", movflags="faststart")
    size = path.stat().st_size
    _overwrite(path, size - int(lost * size), int(lost * size))
    for use in (lambda p: list(read_frames(p)), load_audio):
        with pytest.raises(MediaError, match=r"a\.mp4: (video|audio) ends after \d\.\d\d s, the file is cut off"):
            use(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_concealed_frame_is_counted_and_logged(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    path = _write(tmp_path / f"a{suffix}")
    start, size = _frame_bytes(path, 20)
    _overwrite(path, start + size // 2, size // 4, seed=1)
    damage = Damage()
    with caplog.at_level(logging.WARNING):
        assert len(list(read_frames(path, damage=damage))) == FRAMES
        assert damage.frames >= 1
        assert not caplog.records  # whoever counts tells of it
        list(read_frames(path))
        next(read_frames(path)).any()
    (record,) = caplog.records
    assert f"{path}: {damage.frames} damaged frames" in record.getMessage()


def test_an_intact_file_has_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, damage = _write(tmp_path / "a.mp4"), Damage()
    list(read_frames(path, damage=damage))
    load_audio(path, damage)
    list(read_frames(path))
    assert damage.frames == 0
    assert not caplog.records


def test_an_error_in_the_middle_is_a_failure(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.mkv", gop=1)
    start, size = _frame_bytes(path, 20)
    _overwrite(path, start, size)
    with pytest.raises(MediaError, match=r"a\.mkv: video ends after 0\.\d\d s, the file is cut off or damaged"):
        list(read_frames(path))


def test_junk_after_the_last_frame_is_counted(tmp_path: Path) -> None:
    """The last of 40 frames cannot be decoded: forgiven, but not in silence."""
    path, damage = _write(tmp_path / "a.mp4", gop=1), Damage()
    start, size = _frame_bytes(path, FRAMES - 1)
    _overwrite(path, start, size)
    assert len(list(read_frames(path, damage=damage))) == FRAMES - 1
    assert damage.frames == 1


@pytest.mark.parametrize(
    ("missing_s", "stated_s", "fails"),
    [
        (0.04, 1.6, False),
        (0.08, 1.6, True),
        (0.4, 1.6, True),
        (0.4, 4.0, True),
        (0.4, 30.0, False),
        (0.6, 30.0, True),
        (0.6, 3600.0, True),
    ],
)
def test_the_tolerated_missing_part_depends_on_the_length(missing_s: float, stated_s: float, fails: bool) -> None:
    def check(errors: list[Exception], damage: Damage) -> None:
        check_end(Path("a.mp4"), "video", stated_s - missing_s, stated_s, 0.04, errors, damage)

    damage = Damage()
    if fails:
        with pytest.raises(MediaError, match="cut off or damaged"):
            check([], damage)
        return
    check([], damage)
    assert damage.frames == 0
    check([ValueError()], damage)
    assert damage.frames == round(missing_s / 0.04)


def test_without_a_stated_length_every_error_is_fatal() -> None:
    check_end(Path("a.ts"), "audio", 1.0, None, 0.04, [], Damage())
    with pytest.raises(MediaError, match=r"a\.ts: audio cannot be decoded after 1\.00 s \(ValueError\)"):
        check_end(Path("a.ts"), "audio", 1.0, None, 0.04, [ValueError()], Damage())
