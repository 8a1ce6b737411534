# SPDX-License-Identifier: Apache-2.0
"""Hooks of `make docs`: files of the root become pages; NAME/*.md in the navigation is all pages of a folder."""

import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
_NESTED = re.compile(r"^ {2,3}(?=- )", re.MULTILINE)
_FORMULA = re.compile(r"^( *)\.\. math:: (.+(?:\n +.+)*)", re.MULTILINE)
_FROM_ROOT = re.compile(r"(\]\(|src=\")docs/")
_TO_ROOT = re.compile(rf"(\]\()(?:\.\./)+({'|'.join(map(re.escape, PAGES))})")


def _expanded(item: Any, docs: Path) -> list[Any]:
    if isinstance(item, dict):
        return [{title: _all(part, docs) if isinstance(part, list) else part for title, part in item.items()}]
    if isinstance(item, str) and item.endswith("/*.md"):
        return [path.relative_to(docs).as_posix() for path in sorted(docs.glob(item)) if path.name != "index.md"]
    return [item]


def _all(items: list[Any], docs: Path) -> list[Any]:
    return [found for item in items for found in _expanded(item, docs)]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.nav = _all(config.nav or [], Path(config.docs_dir))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    root = Path(config.docs_dir).parent
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(root / name).read_text(encoding="utf-8")))
    files.append(File.generated(config, "LICENSE.txt", content=(root / "LICENSE").read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Nested lists and links as GitHub reads them: from the root into docs/, and from docs/ to the root."""
    parts = re.split(r"(^```.*?^```)", markdown, flags=re.DOTALL | re.MULTILINE)  # code stays as it is
    markdown = "".join(part if i % 2 else _NESTED.sub("    ", part) for i, part in enumerate(parts))
    if page.file.src_uri in PAGES.values():
        return (
            _FROM_ROOT.sub(r"\1", markdown).replace("](README.md", "](index.md").replace("](LICENSE)", "](LICENSE.txt)")
        )
    depth = page.file.src_uri.count("/")
    return _TO_ROOT.sub(lambda m: f"{m[1]}{'../' * depth}{PAGES[m[2]]}", markdown)


class Docstrings(griffe.Extension):
    """Our docstrings, in which one example is called `Example`, and formulas are those of reStructuredText."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
            text = re.sub(r"::$", ":", text, flags=re.MULTILINE)  # before code that is indented
            text = re.sub(r"\\mathrm\{(\w+)\}", r"\1", text)
            obj.docstring.value = _FORMULA.sub(r"\1```latex\n\1\2\n\1```", text)
