# SPDX-License-Identifier: Apache-2.0
"""The Python example of docs/evaluation.md, run unchanged except for SyncNet's weights, which cannot be shipped."""

import re
import shutil
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs" / "evaluation.md"


def test_the_example_runs_and_gives_tables(corpus, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    weights = 'weights=WeightOptions(("weights",)),'
    assert weights in code
    sources = sorted((corpus / "videos" / "main").glob("*/*.mp4"))[:3]
    for folder, chosen in (("real_videos", sources[:2]), ("my_videos", sources[1:]), ("their_videos", sources[:2])):
        (tmp_path / folder).mkdir()
        for number, source in enumerate(chosen):
            shutil.copy(source, tmp_path / folder / f"{number}.mp4")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code.replace(weights, ""), str(DOCS), "exec"), names)  # our own documentation
    printed = capsys.readouterr().out
    assert "psnr_rank" in printed
    assert "p_holm" in printed
    assert len(names["worst"]) == 2
    assert set(names["worst"]["clip"]) == {"clips/0", "clips/1"}
