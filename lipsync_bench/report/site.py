# SPDX-License-Identifier: Apache-2.0
"""Writes the pages into a folder that is complete or absent.

The site is written under a temporary name and renamed at the end, so that a killed run leaves no incomplete site. A
marker file identifies a report, which the next report replaces; any other folder is refused.
"""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from lipsync_bench.datamodules.files.disk import remove_leftovers, temporary_path, write_atomic
from lipsync_bench.datamodules.media.video_files import REPORT_MARKER
from lipsync_bench.metrics.registry import RANKED
from lipsync_bench.report.boards import boards
from lipsync_bench.report.charts import charts
from lipsync_bench.report.clips import clip_list
from lipsync_bench.report.contents import Results, read_results
from lipsync_bench.report.numbers import SECONDS
from lipsync_bench.report.papers import comparisons
from lipsync_bench.report.players import clip_pages, has_videos
from lipsync_bench.report.records import failures, named_values, repeat_command, save_videos_command, unprepared
from lipsync_bench.version import __version__

STATIC = ("report.css", "report.js", "plots.js", "views.js", "player.js")
PAGES = (
    ("index.html", "Leaderboard"),
    ("plots.html", "Plots"),
    ("papers.html", "Papers"),
    ("clips.html", "Clips"),
    ("failures.html", "Failures"),
    ("manifest.html", "Manifest"),
    ("guide.html", "How to read this report"),
)

_log = logging.getLogger(__name__)

__all__ = ["PAGES", "write_report"]


def _refuse(results: Path, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file. Expected a folder to write the report into. Choose another with --out.")
    if results.resolve().is_relative_to(out):
        raise ValueError(
            f"--out {out} holds the results themselves. Expected a folder that may be replaced. Choose another with "
            "--out, such as a new one inside the results folder."
        )
    if out.is_dir() and any(out.iterdir()) and not (out / REPORT_MARKER).is_file():
        raise ValueError(
            f"{out} is not empty and was not made by bench report. Expected a new folder, or an older report. Choose "
            "another with --out."
        )


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A temporary folder that replaces `out` on a clean exit and is removed on any other."""
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out.parent, of=out)  # incomplete sites of killed processes
    temporary = temporary_path(out)
    temporary.mkdir()
    try:
        yield temporary
        old = temporary_path(out)
        if out.is_dir():
            out.rename(old)
        temporary.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:  # Ctrl-C as well
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _breakable(text: str) -> Markup:
    """A name that may be wrapped after an underscore, but not inside a word."""
    return Markup(str(escape(text)).replace("_", "_<wbr>"))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lipsync_bench.report"),
        autoescape=True,  # names and reasons come from users' files
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment


def _write_clip_pages(results: Results, out: Path, write: Callable[..., None]) -> None:
    names = sorted(results.clips)
    videos = has_videos(results)
    command = "" if videos else save_videos_command(results.manifest)
    place = {name: i for i, name in enumerate(names)}
    for page in clip_pages(results, out, videos):
        i = place[page.clip]
        around = [names[i - 1] if i else "", names[i + 1] if i + 1 < len(names) else ""]
        before, after = [(name, f"{results.clips[name]}.html") if name else None for name in around]
        write(f"clips/{page.slug}.html", "clip.html", page=page, before=before, after=after, command=command)


def write_report(
    results: Path,
    out: Path,
    tables: Sequence[str] = (),
    title: str | None = None,
    *,
    ratings: Path | None = None,
    votes: Path | None = None,
) -> Path:
    """Write a results folder as a static site, which opens from the disk and needs no network.

    Args:
        results: Results folder of `bench evaluate`.
        out: Folder of the site; an older report there is replaced.
        tables: Ids of papers' tables (or "all"), in addition to those of the results' data set.
        title: Title of the site; the names of data set and folder if None.
        ratings: CSV of people's scores, shown beside the papers' user studies with scores.
        votes: CSV of people's votes, shown beside the papers' user studies with votes.

    Returns:
        Path of its first page.

    Raises:
        FileNotFoundError: No rows, no table of that id, or no such file of ratings or votes.
        ValueError: A file of the results, ratings or votes is damaged or of another version; `out` is not a report.
    """
    out = out.resolve()
    _refuse(results, out)
    found = read_results(results)
    environment = _environment()
    name = title or " ".join(filter(None, (found.dataset, f"({results.resolve().name})")))
    shared = {"site": name, "pages": PAGES, "version": __version__}
    with _replacing(out) as folder:
        (folder / "clips").mkdir()
        (folder / "static").mkdir()
        for static in STATIC:
            content = files("lipsync_bench.report").joinpath("static").joinpath(static).read_bytes()
            write_atomic(folder / "static" / static, content)

        def write(path: str, template: str, **values: object) -> None:
            root = "../" * path.count("/")
            text = environment.get_template(template).render(**shared, root=root, here=path, **values)
            write_atomic(folder / path, text.encode(errors="backslashreplace"))

        write("index.html", "index.html", boards=boards(found), results=found)
        drawn = [charts(found, protocol, f"p{i}") for i, protocol in enumerate(found.protocols)]
        write("plots.html", "plots.html", charts=drawn)
        del drawn
        compared, problem = comparisons(found, tables, ratings, votes)
        write("papers.html", "papers.html", comparisons=compared, problem=problem, dataset=found.dataset)
        write("clips.html", "clips.html", lists=(clip_list(found, protocol) for protocol in found.protocols))
        failed = int((found.rows["status"] != "ok").sum())
        counts = {"failed": failed, "rows": len(found.rows), "lost": len(found.unprepared)}
        write("failures.html", "failures.html", failures=failures(found), unprepared=unprepared(found), **counts)
        write(
            "manifest.html",
            "manifest.html",
            manifest=found.manifest,
            named_values=named_values,
            repeat_command=repeat_command,
        )
        shown = [column for column in RANKED if any(column in found.columns(p) for p in found.protocols)]
        write("guide.html", "guide.html", columns=shown, seconds=SECONDS)
        _write_clip_pages(found, folder, write)
        (folder / REPORT_MARKER).write_text(
            f"made by bench report of lipsync_bench {__version__}; replaced by the next one\n"
        )
    _log.info("wrote %d pages: %s", len(PAGES) + len(found.clips), out / "index.html")
    return out / "index.html"
