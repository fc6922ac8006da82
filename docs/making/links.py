"""Check a built site: every link inside it leads somewhere, and nothing is fetched from anywhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_FETCHED = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("object", "data"),
}
_SAFE = {"canonical", "next", "prev", "alternate"}
_CSS = re.compile(r"(?:url\(\s*|@import\s+)[\"']?(?:https?:)?//([^\"')\s]+)")


@dataclass
class _Page(HTMLParser):
    """Collect a page's anchors, links and what it fetches."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {k: v or "" for k, v in attrs}
        self.ids |= {found[k] for k in ("id", "name") if found.get(k)}
        for name, value in found.items():
            if (tag, name) in _FETCHED and not (tag == "link" and found.get("rel") in _SAFE):
                self.fetched.append(value)
            elif (tag, name) in (("a", "href"), ("link", "href")):
                self.links.append(value)


def broken(site: Path) -> list[str]:
    """Return a sentence for each link or file of a built site that leads nowhere or outside; [] is a sound site.

    Links inside the site: the page and the anchor have to be there. Links to elsewhere: only their form is looked at
    (https, a host), nothing is asked. What a page fetches by itself has to lie in the site.
    """
    pages = {path: _read(path) for path in sorted(site.rglob("*.html"))}
    said = []
    for path, page in pages.items():
        here = path.relative_to(site)
        said += [f"{here}: {what}" for link in page.links if (what := _wrong(link, path, site, pages))]
        for link in page.fetched:
            what = "is fetched from elsewhere" if urlsplit(link).netloc else _wrong(link, path, site, pages)
            if what and not link.startswith("data:"):
                said.append(f"{here}: {link} {what}" if "elsewhere" in what else f"{here}: {what}")
    for sheet in sorted(site.rglob("*.css")):
        said += [f"{sheet.relative_to(site)}: fetches from {host}" for host in _CSS.findall(sheet.read_text("utf-8"))]
    return said


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text("utf-8"))
    return page


def _wrong(link: str, path: Path, site: Path, pages: dict[Path, _Page]) -> str | None:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        good = parts.scheme in ("mailto", "data") or (parts.scheme == "https" and re.search(r"\w\.\w", parts.netloc))
        return None if good else f"{link!r} is not an https address"
    inside = unquote(parts.path)
    if inside.startswith("/"):
        target = site / inside.lstrip("/")
    else:
        target = (path.parent / inside).resolve() if inside else path
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return f"{link!r} leads to no file"
    anchor = unquote(parts.fragment)
    if anchor and target.suffix == ".html" and anchor not in pages[_same(target, pages)].ids | {"__top"}:
        return f"{link!r} leads to no anchor of that page"
    return None


def _same(target: Path, pages: dict[Path, _Page]) -> Path:
    return target if target in pages else next(p for p in pages if p.resolve() == target.resolve())
