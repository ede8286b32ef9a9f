"""Look through a built site for what would fail a reader: a link, a picture, an address abroad.

Run as a program, on a folder, it tries the links that lead elsewhere.
"""

import re
import sys
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

SHORTEST_ALT = 20
UNREACHED = "could not be reached"
# What a page fetches by itself, as opposed to what a reader may follow.
FETCHED = {("img", "src"), ("script", "src"), ("source", "src"), ("link", "href")}
# Says where a page belongs; nothing is fetched.
NOT_FETCHED = {"canonical", "next", "prev", "search", "index", "author"}


@dataclass
class Page(HTMLParser):
    """What a page holds: its anchors, what it fetches, links to, and shows without words."""

    path: object
    ids: list = field(default_factory=list)
    fetched: list = field(default_factory=list)
    links: list = field(default_factory=list)
    wordless: list = field(default_factory=list)
    levels: list = field(default_factory=list)
    headers: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if "id" in given:
            self.ids.append(given["id"])
        for name in {"src", "href"} & given.keys():
            relation = set((given.get("rel") or "").split())
            is_fetched = (tag, name) in FETCHED and not relation & NOT_FETCHED
            (self.fetched if is_fetched else self.links).append(given[name] or "")
        if tag == "img" and not says_something(given.get("alt") or ""):
            self.wordless.append(given.get("src", ""))
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "table":
            self.headers.append(0)
        if tag == "th":
            self.headers[-1] += 1


def says_something(alt):
    """Whether a text is a sentence: without one, a picture is given its file's name."""
    return len(alt) >= SHORTEST_ALT and " " in alt


def complaints(built):
    """One line for each fault of the site in this folder."""
    pages = {path.resolve(): Page(path) for path in sorted(built.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(built.resolve()).as_posix()
        found += [f"{name}: {text}" for text in faults(page, pages)]
    return found


def faults(page, pages):
    for address in page.fetched:
        if urlsplit(address).netloc:
            yield f"fetches {address} from elsewhere"
    for address in page.fetched + page.links:
        reason = broken(address, page, pages)
        if reason:
            yield f"{address} {reason}"
    for name, count in Counter(page.ids).items():
        if count > 1:
            yield f"the label {name} is there {count} times"
    for source in page.wordless:
        yield f"the picture {source[:60]} says nothing to those who can't see it"
    for number, count in enumerate(page.headers, 1):
        if not count:
            yield f"table {number} has no headers"
    for before, after in pairwise(page.levels):
        if after > before + 1:
            yield f"a heading of level {after} follows one of level {before}"


def broken(address, page, pages):
    """What is wrong with an address within the site; "" for nothing, and for any other."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return ""
    target = page.path.parent / unquote(parts.path) if parts.path else page.path
    target = target.resolve()
    if target.is_dir():
        target = target / "index.html"
    if not target.exists():
        return "leads nowhere"
    fragment = unquote(parts.fragment)
    if fragment and target in pages and fragment not in pages[target].ids:
        return "leads to no place on that page"
    return ""


def outside(built):
    """Addresses elsewhere to which pages link, each with the pages that do."""
    found = {}
    for path in sorted(built.rglob("*.html")):
        for address in Page(path).links:
            if urlsplit(address).scheme in ("http", "https"):
                found.setdefault(address, []).append(path.relative_to(built).as_posix())
    return found


class Stay(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: that there is one says that the address is known."""

    def redirect_request(self, *ignored):
        return None


def answer(address):
    """What a server says to an address: fine, gone, or a reason why that can't be told."""
    asked = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0"})
    try:
        with urllib.request.build_opener(Stay).open(asked, timeout=20):
            return "fine"
    except urllib.error.HTTPError as error:
        if error.code < 400:
            return "fine"
        return "gone" if error.code in (404, 410) else f"refuses to say ({error.code})"
    except (OSError, ValueError) as error:
        return f"{UNREACHED} ({error})"


def main(folder):
    """Try every link that leads elsewhere; 1 if one is gone."""
    links = outside(Path(folder))
    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(links, pool.map(answer, links), strict=True))
    if links and all(said.startswith(UNREACHED) for said in answers.values()):
        print("No link elsewhere could be reached: no network, or one that keeps them out.")
        return 1
    for address, said in answers.items():
        if said != "fine":
            print(f"{address} {said}: {', '.join(links[address])}")
    print(f"{len(links)} links elsewhere, {list(answers.values()).count('fine')} fine")
    return int("gone" in answers.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
