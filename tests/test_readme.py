# SPDX-License-Identifier: Apache-2.0
"""What the README and some files of docs tell to type exists: make targets, commands, flags and files."""

import re
from pathlib import Path

import pytest

from lipsync_bench import bench

ROOT = Path(__file__).parent.parent
PAGES = (
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("adding", "clusters", "datasets", "evaluation", "train_and_rank")),
    *(ROOT / "docs/methods").glob("*.md"),
    *(ROOT / "docs/metrics").glob("*.md"),
)
TEXT = "\n".join(page.read_text() for page in PAGES)
CODE = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) + re.findall(r"`([^`\n]+)`", TEXT)
LINES = [line.split("  #")[0].strip() for block in CODE for line in block.replace("\\\n", " ").splitlines()]
BEFORE = r"(?:^(?:srun .*)?|/|lipsync_bench\.)bench "
BENCH = [line for line in LINES if re.search(f"{BEFORE}[a-z]", line)]


def test_the_readme_shows_commands():
    assert len(BENCH) >= 4


@pytest.mark.parametrize("line", BENCH)
def test_bench_commands_and_their_flags_exist(line):
    words = re.split(BEFORE, line)[1].split()
    chain, apps, _ = bench.app.parse_commands(words)
    assert chain
    known = {name for argument in apps[-1].assemble_argument_collection() for name in argument.names}
    flags = {word.partition(".")[0].partition("=")[0].replace("_", "-") for word in words if word.startswith("--")}
    assert flags <= known


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z_]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for line in LINES for word in re.findall(r"^make ([a-z_ ]+)", line) for word in word.split()}
    assert named
    assert named <= targets


def test_files_exist():
    named = set(re.findall(r"\b(?:experiments|docs|datamodules|models)/[\w/]+\.(?:yaml|md|py)\b", TEXT))
    assert len(named) >= 5
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_links_lead_to_files():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#\s]+)[)#]", page.read_text())]
    assert len(links) >= 100
    local = [(page, link) for page, link in links if "://" not in link]
    assert [(page.name, link) for page, link in local if not (page.parent / link).is_file()] == []


def test_lines_of_the_documentation_fit_120_columns():
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert len(files) >= 7
    lines = [
        (file.name, number, line) for file in files for number, line in enumerate(file.read_text().splitlines(), 1)
    ]
    prose = [(name, number, re.sub(r"https?://\S+", "", line)) for name, number, line in lines if line[:1] != "|"]
    assert [place for *place, line in prose if len(line) > 120] == []
