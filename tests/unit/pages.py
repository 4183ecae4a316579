"""Whether HTML is whole, and text that must never become part of it."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
VOID = {"meta", "br", "img"}


class Nested(HTMLParser):
    """Fails where a tag is closed that was not open, and keeps the names of all tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def well_formed(page: str) -> list[str]:
    """Check that every tag is closed where it should be, and return the tags."""
    parser = Nested()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser.seen
