# SPDX-License-Identifier: Apache-2.0
"""The Python examples of README.md and docs/evaluation.md, run unchanged except for SyncNet's weights, which cannot be
shipped. The second one completes the first one's results folder."""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[3]


def example(page: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return code


def test_the_examples_run_and_give_tables(corpus, tmp_path, monkeypatch, capsys):
    code = example("docs/evaluation.md")
    weights = 'weights=WeightOptions(("weights",)),'
    assert weights in code
    sources = sorted((corpus / "videos" / "main").glob("*/*.mp4"))[:3]
    for folder, chosen in (("real_videos", sources[:2]), ("my_videos", sources[1:]), ("their_videos", sources[:2])):
        (tmp_path / folder).mkdir()
        for number, source in enumerate(chosen):
            shutil.copy(source, tmp_path / folder / f"{number}.mp4")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example("README.md"), "README.md", "exec"), names)  # our own documentation
    printed = capsys.readouterr().out
    assert "lmd_centred" in printed
    assert "clips/0" in printed
    exec(compile(code.replace(weights, ""), "evaluation.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "psnr_rank" in printed
    assert "p_holm" in printed
    assert len(names["worst"]) == 2
    assert set(names["worst"]["clip"]) == {"clips/0", "clips/1"}
