# SPDX-License-Identifier: Apache-2.0
"""A results folder as a static site that opens from the disk: `bench report RESULTS --out report/`.

results.py    the folder's content, and labels of its entries
numbers.py    how numbers, headings and weights are printed
names.py      names that are safe in paths
boards.py     leaderboards            clips.py      list of clips, best and worst
drawings.py   SVG by matplotlib       charts.py     which drawings there are
players.py    pages with videos       zoom.py       face and mouth in them
papers.py     the papers' tables      records.py    failures, manifest
site.py       writes the pages and their folder, from templates/ and static/
"""

from lipsync_bench.report.site import write_report

__all__ = ["write_report"]
