# SPDX-License-Identifier: Apache-2.0
"""A page of the report, read as a browser reads it."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "wbr", "img", "input", "use", "path", "line"}


class Page(HTMLParser):
    """Elements of a page, as a browser would see them; fails where end tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID or tag in ("path", "line", "use"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
