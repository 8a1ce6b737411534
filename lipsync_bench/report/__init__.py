# SPDX-License-Identifier: Apache-2.0
"""A results folder as a static site that opens from the disk: `bench report RESULTS --out report/`.

results.py    what the folder holds, and the names of its lines
numbers.py    numbers, headings and scorers as they are printed
names.py      names that are safe in paths
boards.py     leaderboards            clips.py      list of clips, best and worst
drawings.py   SVG by matplotlib       charts.py     which drawings there are
players.py    pages with videos       papers.py     ours beside the papers'
records.py    failures, manifest      site.py       the pages, and the folder they are in
"""

from lipsync_bench.report.site import write_report

__all__ = ["write_report"]
