"""A whole page: one file with its style, its figures and a little script."""

from __future__ import annotations

import base64
import hashlib
import html
from functools import cache
from importlib import resources


def document(title: str, body: str, style: str = "") -> str:
    """Return a page that works without a network; body is HTML, style more CSS.

    What the page may load is forbidden but for what stands in it, and the only script that may run
    is ours: text that came with somebody's model cannot do anything.
    """
    script = _file("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = (
        f"default-src 'none';img-src data:;style-src 'unsafe-inline';script-src 'sha256-{digest}'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{allowed}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_file('page.css')}{style}</style></head>\n"
        f"<body><main>\n{body}\n</main><script>{script}</script></body></html>\n"
    )


@cache
def _file(name: str) -> str:
    return resources.files("hiddenstate.charts").joinpath(name).read_text(encoding="utf-8")
