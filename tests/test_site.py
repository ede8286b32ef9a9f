"""The built site, in a browser that may fetch nothing else: shown whole, light, within reach."""

import base64
import contextlib
import copy
import gzip
import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import ascii_lowercase
from types import SimpleNamespace

import browser
import nbformat
import pytest
import yaml

import course

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "site"))
import audit  # noqa: E402
import build  # noqa: E402
import lite  # noqa: E402

CODE, TEXT = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
PHONE, LAPTOP, PROJECTOR = 390, 1280, 1920
MOST_BYTES = 1_500_000
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
NEEDS_PYTHON = re.compile(r"check\.quiz\(|explore\.(?!stills|flipbook)[a-z]\w*\(")
# At night a page has other colours and is otherwise the same.
COLOURS = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
TEXTS = {".html", ".css", ".js", ".svg"}


def why_not():
    """Why the site can't be built and looked at here; "" when it can."""
    if course.environment_state() != "ready":
        return "the site is built with the packages of .venv, which is not in use"
    return browser.missing() or ("" if build.shutil.which("npm") else "no npm on this machine")


needs_site = pytest.mark.skipif(bool(why_not()), reason=why_not() or "can run")


def digests():
    paths = sorted((ROOT / "notebooks").rglob("*.ipynb"))
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *ignored):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as a reader of the README would build it, and served."""
    out = tmp_path_factory.mktemp("site") / "built"
    before = digests()
    command = [sys.executable, "course.py", "site", "--out", str(out)]
    env = {name: value for name, value in os.environ.items() if name != "COURSE_BINDER_ADDRESS"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if "no network" in done.stderr and not os.environ.get("CI"):
        pytest.skip("no network to fetch what builds the site")
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests() == before
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(out))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        pages = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.html"))
        url = f"http://127.0.0.1:{server.server_port}/"
        yield SimpleNamespace(folder=out, url=url, pages=pages)
        server.shutdown()


@contextlib.contextmanager
def cut_off():
    """A browser that reaches this machine and nothing else."""
    elsewhere = ["https://*", "wss://*", *(f"http://{letter}*" for letter in ascii_lowercase)]
    with browser.chrome(LAPTOP, 900) as running:
        running.set_script_timeout(120)
        running.execute_cdp_cmd("Network.enable", {})
        running.execute_cdp_cmd("Network.setBlockedURLs", {"urls": elsewhere})
        yield running


@pytest.fixture(scope="module")
def driver(site):
    with cut_off() as running:
        yield running


def resize(driver, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


# Equations drawn, pictures loaded, widgets (if any) in place.
SETTLED = """
if (document.readyState !== 'complete') return false;
document.querySelectorAll('img').forEach(i => { i.loading = 'eager'; });
const maths = document.querySelectorAll('article .math').length;
return maths <= document.querySelectorAll('article mjx-container').length
    && [...document.images].every(i => i.complete)
    && [...document.querySelectorAll('script[type$="widget-view+json"]')].every(
        s => s.parentElement.querySelector('.jupyter-widgets'));
"""


def visit(driver, site, page, *, theme="light", width=LAPTOP, seconds=60):
    resize(driver, width)
    driver.get(site.url + page)
    if driver.execute_script("return document.documentElement.dataset.theme") != theme:
        driver.execute_script(
            "localStorage.setItem('mode', arguments[0]);"
            "localStorage.setItem('theme', arguments[0]);",
            theme,
        )
        driver.refresh()
    deadline = time.monotonic() + seconds
    while not driver.execute_script(SETTLED):
        assert time.monotonic() < deadline, f"{page}: not drawn after {seconds} s"
        time.sleep(0.1)


def lessons(site):
    return [page for page in site.pages if page.startswith("notebooks/")]


WRONG = """
const found = [];
for (const i of document.images) if (!i.naturalWidth) found.push('not shown: ' + i.src);
for (const e of document.querySelectorAll('mjx-merror, [data-mjx-error]'))
    found.push('refused equation: ' + e.textContent);
for (const part of document.querySelectorAll('article p, article li, article td')) {
    const copy = part.cloneNode(true);
    copy.querySelectorAll('code, pre, mjx-container').forEach(n => n.remove());
    const bare = copy.textContent.match(/\\$[^$]*[\\\\_^][^$]*\\$/g);
    if (bare) found.push('as typed: ' + bare[0]);
}
if (/Error displaying widget|Loading widget/.test(document.body.innerText))
    found.push('a widget that is dead');
for (const entry of performance.getEntriesByType('resource'))
    if (!entry.name.startsWith(location.origin) && !entry.name.startsWith('data:'))
        found.push('fetched from elsewhere: ' + entry.name);
return found;
"""
LOADED = """
return performance.getEntriesByType('resource').map(e => new URL(e.name))
    .filter(u => u.origin === location.origin).map(u => decodeURI(u.pathname).slice(1))"""
# A picture of a cell fills the column unless it is small by nature, and keeps its shape.
PICTURES = """
const found = [];
for (const i of document.querySelectorAll('.cell_output img')) {
    if (!i.checkVisibility()) continue;
    const room = i.closest('.cell_output').clientWidth, shape = i.naturalWidth / i.naturalHeight;
    if (i.naturalWidth > 2 * i.clientWidth) found.push('more than twice as wide: ' + i.src);
    if (i.clientWidth < 0.9 * Math.min(room, i.naturalWidth)) found.push('shrunk: ' + i.src);
    if (Math.abs(i.clientWidth / i.clientHeight / shape - 1) > 0.02) found.push('bent: ' + i.src);
}
return found;
"""
AXE = """
const [theme, rules, done] = arguments;
const still = document.head.appendChild(document.createElement('style'));
still.textContent = '* { transition: none !important; }';
document.documentElement.dataset.theme = theme;
// What is in an equation has the colour of the text around it, which is looked at.
const asked = { runOnly: rules, resultTypes: ['violations', 'incomplete'] };
const said = v => `${v.id}: ${v.nodes.map(n => n.html.slice(0, 120)).join(' | ')}`;
axe.run({ exclude: [['mjx-container > *']] }, asked).then(result => {
    // Text in the colour of its ground may be meant to be hidden, says axe. Not here.
    const same = n => n.any.some(c => c.data?.messageKey === 'equalRatio');
    const unseen = result.incomplete.map(v => ({ id: 'unseen', nodes: v.nodes.filter(same) }));
    done([...result.violations, ...unseen.filter(v => v.nodes.length)].map(said));
});
"""


def look(driver, site, page):
    """All that the tests below ask about one page, from a single visit."""
    driver.get_log("browser")
    visit(driver, site, page)
    seen = {
        "wrong": driver.execute_script(WRONG),
        "loaded": driver.execute_script(LOADED),
        "pictures": driver.execute_script(PICTURES),
        "open": driver.execute_script("return document.querySelectorAll('details[open]').length"),
    }
    axe = build.package("axe-core") / "axe.min.js"
    driver.execute_script(axe.read_text(encoding="utf-8"))
    for theme, rules in (("light", WCAG), ("dark", COLOURS)):
        seen[theme] = driver.execute_async_script(AXE, theme, rules)
    seen["sideways"] = []
    for width in (PROJECTOR, PHONE):
        resize(driver, width)
        needed = driver.execute_script("return document.documentElement.scrollWidth")
        seen["sideways"] += [width] if needed > width else []
    seen["wrong"] += [entry["message"] for entry in driver.get_log("browser")]
    return seen


@pytest.fixture(scope="module")
def looked(site):
    """What was seen on every page, by two browsers that share the pages."""
    left, seen = list(reversed(site.pages)), {}

    def work():
        with cut_off() as running:
            while left:
                page = left.pop()
                seen[page] = look(running, site, page)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work) for _ in range(2)]:
            done.result()
    return seen


def faults(looked, what):
    return {page: seen[what] for page, seen in looked.items() if seen[what]}


# ── What is there ───────────────────────────────────────────────────────────────────────────────


@needs_site
def test_every_notebook_and_every_page_of_its_own_is_there(site):
    notebooks = {path.relative_to(ROOT).with_suffix(".html").as_posix() for path in digests()}
    own = {path.relative_to(build.SITE).with_suffix("") for path in build.SITE.rglob("*.md")}
    made = {"references.html", "data/README.html", "search.html"}
    assert set(site.pages) == notebooks | {f"{name.as_posix()}.html" for name in own} | made
    assert {"index.html", "syllabus.html", "teachers.html", "glossary.html"} < set(site.pages)


@needs_site
def test_next_leads_through_the_syllabus_in_order(site):
    page, walked = "index.html", []
    while page:
        walked.append(page)
        text = (site.folder / page).read_text(encoding="utf-8")
        found = re.search(r'<a class="right-next"\s+href="([^"#]+)"', text)
        page = found and os.path.normpath(Path(page).parent / found[1])
    assert set(walked) == set(site.pages) - {"search.html"}
    numbers = [Path(page).name[:2] for page in walked if re.match(r"notebooks/\d", page)]
    assert walked[:3] == ["index.html", "syllabus.html", "notebooks/00-start-here.html"]
    assert numbers == sorted(numbers) and len(numbers) >= 16


@needs_site
def test_the_code_s_page_names_all_public_names(site):
    from helpers import mixed

    ids = audit.Page(site.folder / "api.html").ids
    assert {f"helpers.mixed.{name}" for name in mixed.__all__} <= set(ids)


# ── What is seen ────────────────────────────────────────────────────────────────────────────────


@needs_site
def test_every_page_shows_all_it_has_and_logs_nothing(site, looked):
    assert set(looked) == set(site.pages)
    assert faults(looked, "wrong") == {}


@needs_site
def test_no_page_scrolls_sideways_on_a_phone_or_a_projector(looked):
    assert faults(looked, "sideways") == {}


@needs_site
def test_answers_and_hints_are_closed(looked):
    assert faults(looked, "open") == {}


@needs_site
def test_a_flipbook_turns_without_a_kernel(site, driver):
    frame = (
        "return [...document.querySelectorAll('article .jupyter-widgets img')]"
        ".filter(i => i.offsetParent).map(i => i.alt)"
    )
    visit(driver, site, "notebooks/05-intercepts-and-slopes-together.html")
    handle = driver.find_element("css selector", "[role=slider]")
    assert handle.get_attribute("aria-label") == "Zero at age (years)"
    before = driver.execute_script(frame)
    handle.send_keys("\ue014")  # the right arrow
    time.sleep(0.5)
    after = driver.execute_script(frame)
    assert len(before) == len(after) == 1
    assert before != after


@needs_site
def test_what_needs_python_says_how_to_run_it_and_a_picture_follows(site):
    for path in digests():
        cells = nbformat.read(path, as_version=4).cells
        wanted = [c for c in cells if c.cell_type == "code" and NEEDS_PYTHON.search(c.source)]
        name = path.relative_to(ROOT)
        page = (site.folder / name.with_suffix(".html")).read_text(encoding="utf-8")
        said = page.split('<p class="course-live">')[1:]
        assert len(said) == len(wanted), name
        for cell, text in zip(wanted, said, strict=True):
            assert f"<code>python3 course.py lab {name.as_posix()}</code>" in text
            assert "explore" not in cell.source or "<img" in text


@needs_site
def test_what_a_cell_printed_stays_above_the_table_it_was_printed_for(site):
    kinds = {"output stream": "printed", "output text_html": "table"}
    mixed_cells = 0
    for path in digests():
        page = site.folder / path.relative_to(ROOT).with_suffix(".html")
        shown = [
            [kinds[kind] for kind in re.findall(r'class="(output (?:stream|text_html))', cell)]
            for cell in page.read_text(encoding="utf-8").split('<div class="cell_output')[1:]
        ]
        for cell in nbformat.read(path, as_version=4).cells:
            stored = [
                "printed" if out.output_type == "stream" else "table"
                for out in cell.get("outputs", [])
                if out.output_type == "stream" or "text/html" in out.get("data", {})
            ]
            if stored.count("printed") > 1 and "<table" in str(cell.outputs):
                assert stored in shown, f"{path.name}: {cell.source[:60]}"
                mixed_cells += 1
    assert mixed_cells > 10


@needs_site
def test_at_night_figures_are_as_they_were_drawn(site, driver):
    visit(driver, site, "notebooks/04-random-slopes.html", theme="dark")
    looks = driver.execute_script(
        "return [...document.querySelectorAll('.cell_output img')].map("
        "i => getComputedStyle(i).filter)"
    )
    assert set(looks) == {"none"}


@needs_site
def test_on_paper_answers_are_open_and_menus_gone(site, driver):
    visit(driver, site, "notebooks/04-random-slopes.html")
    closed = "return document.querySelectorAll('details:not([open])').length"
    shown = (
        "return [...document.querySelectorAll('.bd-sidebar-primary, .course-open, .copybtn')]"
        ".filter(n => n.checkVisibility()).length"
    )
    assert driver.execute_script(closed) > 0
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert driver.execute_script(closed) == 0
    assert driver.execute_script(shown) == 0
    driver.execute_script("dispatchEvent(new Event('afterprint'))")
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert driver.execute_script(closed) > 0


@needs_site
@pytest.mark.parametrize("page", ["cheat-sheet", "handout"])
def test_a_page_to_hand_out_fits_one_sheet(site, driver, page):
    visit(driver, site, f"workshop/{page}.html")
    a4 = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": True}
    printed = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", a4)["data"])
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1


@needs_site
def test_search_works(site, driver):
    driver.get(site.url + "search.html?q=shrinkage")
    deadline = time.monotonic() + 30
    results = []
    while len(results) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
        results = driver.execute_script(
            "return [...document.querySelectorAll('ul.search li a')].map(a => a.pathname)"
        )
    assert any("03-random-intercepts" in path for path in results)


@needs_site
def test_every_cell_of_code_can_be_copied(site, driver):
    visit(driver, site, "notebooks/01-one-line-for-everyone.html")
    cells, buttons = driver.execute_script(
        "return ['.cell_input', '.cell_input .copybtn'].map("
        "s => document.querySelectorAll(s).length)"
    )
    assert cells == buttons > 5


# ── Accessibility ───────────────────────────────────────────────────────────────────────────────


@needs_site
def test_axe_finds_nothing_by_day(looked):
    assert faults(looked, "light") == {}


@needs_site
def test_axe_finds_nothing_by_night(looked):
    assert faults(looked, "dark") == {}


@needs_site
def test_axe_is_awake(site, driver):
    page = site.folder / "faulty.html"
    page.write_text(
        '<html lang="en"><title>A</title><p style="color:#ccc">pale</p><img src="a">'
        '<p style="background:#eee;color:#eee">gone</p>'
    )
    try:
        driver.get(site.url + page.name)
    finally:
        page.unlink()
    axe = build.package("axe-core") / "axe.min.js"
    driver.execute_script(axe.read_text(encoding="utf-8"))
    found = driver.execute_async_script(AXE, "light", WCAG)
    assert {text.split(":")[0] for text in found} == {"color-contrast", "image-alt", "unseen"}


# ── Weight and speed ────────────────────────────────────────────────────────────────────────────


def on_the_wire(path):
    """Bytes as a web server sends them: text is compressed, pictures and fonts are already."""
    content = path.read_bytes()
    return len(gzip.compress(content, 6)) if path.suffix in TEXTS else len(content)


@needs_site
def test_a_lesson_weighs_less_than_a_megabyte_and_a_half(site, looked):
    weights = {
        page: sum(
            on_the_wire(site.folder / path)
            for path in {page, *looked[page]["loaded"]}
            if not path.startswith("_static/mathj")
        )
        for page in lessons(site)
    }
    assert min(weights.values()) > 100_000
    assert {page: weight for page, weight in weights.items() if weight > MOST_BYTES} == {}


@needs_site
def test_pictures_are_as_wide_as_they_can_be_and_not_twice_as_wide(looked):
    assert faults(looked, "pictures") == {}


@needs_site
def test_the_first_paint_comes_within_a_second(site, driver):
    paints = []
    while len(paints) < 5 and not any(paint < 1000 for paint in paints):
        visit(driver, site, "notebooks/05-intercepts-and-slopes-together.html")
        script = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
        paints.append(driver.execute_script(script))
    assert min(paints) < 1000


# ── The builder ─────────────────────────────────────────────────────────────────────────────────


def text(words):
    return nbformat.v4.new_output("stream", name="stdout", text=words)


def picture(content):
    return nbformat.v4.new_output("display_data", {"image/png": content, "text/plain": "<Figure>"})


def notebook(*cells):
    return nbformat.v4.new_notebook(cells=list(cells))


def test_a_different_output_is_a_complaint():
    stored = notebook(TEXT("# A"), CODE("1", outputs=[text("1\n")]))
    ran = notebook(TEXT("# A"), CODE("1", outputs=[text("2\n")]))
    assert build.differences(stored, stored) == []
    assert [line[:8] for line in build.differences(stored, ran)] == ["cell 2: "]
    stored.cells[1].metadata["tags"] = ["nbval-ignore-output"]
    assert build.differences(stored, ran) == []


def test_the_bytes_of_a_picture_may_differ_and_its_absence_may_not():
    one, two = (
        notebook(CODE("", outputs=[picture("AA")])),
        notebook(CODE("", outputs=[picture("BB")])),
    )
    assert build.differences(one, two) == []
    assert build.differences(one, notebook(CODE(""))) != []


def model(name, *parts):
    return {"model_name": name, "state": {"children": [f"IPY_MODEL_{part}" for part in parts]}}


def test_what_moves_by_itself_is_kept_and_the_rest_says_what_it_needs():
    models = {
        "book": model("VBoxModel", "slider", "stack"),
        "slider": model("SelectionSliderModel"),
        "stack": model("StackModel", "frame"),
        "frame": model("HTMLModel"),
        "link": model("LinkModel", "slider", "stack"),
        "live": model("VBoxModel", "dial"),
        "dial": model("IntSliderModel"),
    }

    def view(name):
        return nbformat.v4.new_output("display_data", {build.VIEW: {"model_id": name}})

    stored = notebook(CODE("explore.flipbook()"), CODE("explore.shrinkage()"))
    ran = notebook(CODE("", outputs=[view("book")]), CODE("", outputs=[view("live")]))
    ran.metadata["widgets"] = {build.STATE: {"state": models, "version_major": 2}}
    build.add_widgets(stored, ran)
    build.add_notices(stored, "notebooks/03-a.ipynb")
    assert stored.cells[0].outputs == [view("book")]
    assert "lab notebooks/03-a.ipynb" in stored.cells[1].outputs[0]["data"]["text/html"]
    kept = stored.metadata["widgets"][build.STATE]
    assert set(kept["state"]) == {"book", "slider", "stack", "frame", "link"}
    assert kept["version_major"] == 2


def test_a_picture_on_paper_and_a_stored_output_need_no_notice():
    cells = [CODE("explore.stills(explore.Shrinkage, settings)"), TEXT("`check.quiz(1)`")]
    stored = notebook(*cells, CODE('check.quiz("01.4")', outputs=[text("stored")]))
    before = copy.deepcopy(stored)
    build.add_notices(stored, "notebooks/03-a.ipynb")
    assert stored == before


def test_a_page_of_solutions_has_a_title_of_its_own(tmp_path):
    path = tmp_path / "solutions" / "02-b.ipynb"
    path.parent.mkdir()
    nbformat.write(notebook(TEXT("# Exercises: B\n\nWhy?")), path)
    assert build.put_notebook(path, tmp_path / "made.ipynb") == []
    made = nbformat.read(tmp_path / "made.ipynb", as_version=4)
    assert made.cells[0].source == "# Solutions: B\n\nWhy?"


def test_a_work_cited_twice_is_listed_once():
    one = (
        "## References\n\n- Bates (2015). Fitting. <https://doi.org/10.1/X>\n- Aitkin (1999). Book."
    )
    two = "## Next\n\n…\n\n## References\n\n- Bates (2015). Fitting. <https://doi.org/10.1/x>"
    made = build.references(
        {
            Path("notebooks/01-a.ipynb"): notebook(TEXT(one)),
            Path("notebooks/02-b.ipynb"): notebook(TEXT(two)),
        }
    )
    assert made.splitlines()[4:] == [
        "- Aitkin (1999). Book. — lesson [01](notebooks/01-a.ipynb)",
        "- Bates (2015). Fitting. <https://doi.org/10.1/X> — lessons [01](notebooks/01-a.ipynb), "
        "[02](notebooks/02-b.ipynb)",
    ]


def test_lists_have_numbers_an_order_and_no_gaps(tmp_path):
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook(TEXT("# Exercises: B\n\nWhy?")), tmp_path / "notebooks/02-b.ipynb")
    nbformat.write(notebook(TEXT("# A")), tmp_path / "notebooks/01-a.ipynb")
    (tmp_path / "site/workshop").mkdir(parents=True)
    for name in ("cheat-sheet", "two-days", "half-day"):
        (tmp_path / f"site/workshop/{name}.md").write_text(f"# {name}\n")
    home = """```{toctree}
notebooks/*.ipynb
```

```{toctree}
:caption: Solutions
notebooks/solutions/*.ipynb
```
```{toctree}
teachers
workshop/*.md
```
"""
    assert build.with_contents(home, tmp_path).splitlines() == [
        "```{toctree}",
        "01 A <notebooks/01-a>",
        "02 B <notebooks/02-b>",
        "```",
        "",
        "```{toctree}",
        "teachers",
        "workshop/half-day",
        "workshop/two-days",
        "workshop/cheat-sheet",
        "```",
    ]
    nbformat.write(notebook(CODE("1")), tmp_path / "notebooks/01-a.ipynb")
    with pytest.raises(course.Trouble, match="has no title"):
        build.with_contents(home, tmp_path)


def test_a_link_to_a_folder_leads_to_its_first_notebook(tmp_path):
    (tmp_path / "notebooks/solutions").mkdir(parents=True)
    for name in ("02-b", "01-a"):
        (tmp_path / f"notebooks/solutions/{name}.ipynb").write_text("{}")
    said = "[there](notebooks/solutions), [none](notebooks/exercises), [a](notebooks/01-a.ipynb)"
    assert build.with_first_notebooks(said, tmp_path) == (
        "[there](notebooks/solutions/01-a.ipynb), [none](notebooks/exercises), "
        "[a](notebooks/01-a.ipynb)"
    )


def test_links_of_the_sites_pages_lead_there_in_the_repository_too():
    said = "[a](../notebooks/01-a.ipynb), [b](../../data/README.md), [c](../syllabus.md), [d](b.md)"
    assert build.beside(said) == (
        "[a](notebooks/01-a.ipynb), [b](../data/README.md), [c](../syllabus.md), [d](b.md)"
    )


# ── The glossary ────────────────────────────────────────────────────────────────────────────────


def words(notebook_path):
    cells = nbformat.read(notebook_path, as_version=4).cells
    return "\n".join(c.source for c in cells if c.cell_type == "markdown").replace("*", "")


def glossary():
    """Pairs of a term and its text."""
    written = (build.SITE / "glossary.md").read_text(encoding="utf-8")
    return re.findall(r"^(\S.*)\n((?:  .*\n)+)", written, re.MULTILINE)


def test_each_term_is_used_in_the_lessons_it_names():
    wrong = []
    for term, said in glossary():
        names = [name for name in re.split(r", | and |: ", term) if len(name) > 2]
        lessons = re.findall(r"\[(\d\d)\]\(\.\./(notebooks/\1-[\w-]+\.ipynb)\)", said)
        assert lessons, term
        for number, path in lessons:
            there = words(ROOT / path).casefold()
            # `shrinkage factor` may stand there as `shrinkage factors`, `pooling` as `pooled`.
            if not any(name.casefold()[:-3] in there for name in names):
                wrong.append((term, number))
    assert wrong == []
    assert 30 <= len(glossary()) <= 60


def test_the_glossary_has_all_that_the_last_lesson_lists():
    listed = words(ROOT / "notebooks" / "15-where-next.ipynb").split("### Glossary")[1]
    rows = re.findall(r"^\| ([^|]+) \|", listed.split("###")[0], re.MULTILINE)[2:]
    mine = " ".join(term.casefold() for term, _ in glossary())
    missing = [
        name
        for row in rows
        for name in re.findall(r"[\w-]{3,}", row)
        if name.casefold().rstrip("s") not in mine
    ]
    assert len(rows) > 20 and missing == []


# ── What stops a build ──────────────────────────────────────────────────────────────────────────

SMALL_HOME = """# Home

```{toctree}
notebooks/*.ipynb
references
data/README
```
"""
DOT = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
SAID = {"mystnb": {"image": {"alt": "One grey dot and nothing else."}}}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A course of one lesson, built by calling what this returns with the cells of the lesson."""
    root, site = tmp_path, tmp_path / "site"
    for folder in (site, root / "data", root / "notebooks", root / "work"):
        folder.mkdir()
    for name in ("conf.py", "_static", "_templates"):
        (site / name).symlink_to(build.SITE / name)
    (root / "work" / "vendor").symlink_to(build.WORK / "vendor")
    (site / "index.md").write_text(SMALL_HOME)
    for name in ("README.md", "data/README.md"):
        (root / name).write_text("# Read me\n")
    monkeypatch.setattr(build, "ROOT", root)
    monkeypatch.setattr(build, "SITE", site)
    monkeypatch.setattr(build, "WORK", root / "work")

    def made(*cells):
        lesson = root / "notebooks" / "01-a.ipynb"
        written = notebook(TEXT("# A lesson"), *cells)
        written.metadata["language_info"] = {"name": "python"}
        nbformat.write(written, lesson)
        return build.build(root / "built")

    return made


@needs_site
def test_a_sound_course_is_built(site, small, tmp_path):
    sound = CODE("print(42)  # explore.flipbook()", outputs=[text("42\n")])
    dot = CODE("pass", outputs=[picture(DOT)], metadata={**SAID, "tags": [build.NOT_COMPARED]})
    assert small(sound, dot) == 0
    assert (tmp_path / "built" / "notebooks" / "01-a.html").exists()


@needs_site
def test_a_fault_of_any_kind_stops_the_build(site, small, tmp_path, capsys):
    different = CODE("print(42)  # explore.flipbook()", outputs=[text("41\n")])
    wordless = CODE("pass", outputs=[picture(DOT)], metadata={"tags": [build.NOT_COMPARED]})
    broken = TEXT('<a href="02-b.html">next</a>')
    twice = TEXT('<span id="here"></span> <span id="here"></span>')
    assert small(different, wordless, broken, twice) == 4
    assert not (tmp_path / "built").exists()
    said = capsys.readouterr().out
    assert "01-a.ipynb, cell 2: a run gives another output than the one stored" in said
    assert "says nothing to those who can't see it" in said
    assert "02-b.html leads nowhere" in said
    assert "the label here is there 2 times" in said


@needs_site
def test_a_warning_stops_the_build(site, small, tmp_path, capfd):
    link, label = "[next](02-b.ipynb)", "(here)=\n## B\n\n(here)=\n## C"
    assert small(TEXT(link), TEXT(label), TEXT("## D\n\n#### E")) == 1
    assert not (tmp_path / "built").exists()
    written = capfd.readouterr()
    assert "Sphinx gave warnings" in written.out
    for said in ("target not found: '02-b.ipynb'", 'target name: "here"', "header level increase"):
        assert said in written.err


def test_a_package_that_is_not_the_pinned_one_is_refused(tmp_path, monkeypatch):
    (tmp_path / "x-1.tgz").write_bytes(b"changed")
    monkeypatch.setattr(build.shutil, "which", lambda name: name)
    done = SimpleNamespace(returncode=0, stdout="x-1.tgz\n", stderr="")
    monkeypatch.setattr(build.subprocess, "run", lambda *line, **options: done)
    pinned = base64.b64encode(hashlib.sha512(b"changed").digest()).decode()
    assert build.fetch("x", {"version": "1", "sha512": pinned}, tmp_path).name == "x-1.tgz"
    with pytest.raises(course.Trouble, match="not the package"):
        build.fetch("x", {"version": "1", "sha512": "other"}, tmp_path)
    assert not (tmp_path / "x-1.tgz").exists()


def test_without_npm_the_mend_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(course.Trouble, match=r"Install Node\.js"):
        build.fetch("x", {"version": "1", "sha512": ""}, tmp_path)


PAGE = """<h1>A</h1><h3 id="twice">B</h3><p id="twice"></p>
<script src="https://elsewhere.example/a.js"></script><a href="https://elsewhere.example/">out</a>
<a href="none.html">x</a><a href="#twice">y</a><a href="#no">z</a><a href="b.html#c">w</a>
<img src="b.html" alt="short">
<img src="b.html" alt="../_images/a-long-name.png"><table><tr><td>1</td></tr></table>"""


def test_the_audit_sees_what_is_wrong(tmp_path):
    (tmp_path / "a.html").write_text(PAGE)
    (tmp_path / "b.html").write_text('<h1 id="c">B</h1>')
    assert audit.complaints(tmp_path) == [
        "a.html: fetches https://elsewhere.example/a.js from elsewhere",
        "a.html: none.html leads nowhere",
        "a.html: #no leads to no place on that page",
        "a.html: the label twice is there 2 times",
        "a.html: the picture b.html says nothing to those who can't see it",
        "a.html: the picture b.html says nothing to those who can't see it",
        "a.html: table 1 has no headers",
        "a.html: a heading of level 3 follows one of level 1",
    ]
    assert list(audit.outside(tmp_path)) == ["https://elsewhere.example/"]


class Servant(Quiet):
    def do_GET(self):
        self.send_response(int(self.path.strip("/")))
        self.send_header("Location", "/404")
        self.end_headers()


def test_links_that_lead_elsewhere_are_told_apart(tmp_path, capsys):
    with ThreadingHTTPServer(("127.0.0.1", 0), Servant) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        said = [audit.answer(url + code) for code in ("200", "302", "404", "403")]
        (tmp_path / "a.html").write_text(f'<a href="{url}200">a</a><a href="{url}404">b</a>')
        assert audit.main(tmp_path) == 1
        server.shutdown()
    assert said == ["fine", "fine", "gone", "refuses to say (403)"]
    assert capsys.readouterr().out == (f"{url}404 gone: a.html\n2 links elsewhere, 1 fine\n")
    assert audit.answer(url).startswith("could not be reached")
    assert audit.main(tmp_path) == 1
    assert capsys.readouterr().out.startswith("No link elsewhere could be reached")


@needs_site
def test_binder_is_offered_only_where_it_is_known(site, tmp_path, monkeypatch):
    source = tmp_path / "source"
    (source / "notebooks").mkdir(parents=True)
    for name in ("conf.py", "_templates", "_static"):
        (source / name).symlink_to(ROOT / "site" / name)
    (source / "index.md").write_text("# A\n\n```{toctree}\nnotebooks/01-b\n```\n")
    (source / "notebooks" / "01-b.md").write_text("# B\n")
    address = "https://binder.example/v2/gh/who/what/main"
    monkeypatch.setenv("COURSE_BINDER_ADDRESS", address)
    assert build.sphinx(source, tmp_path / "built")
    page = (tmp_path / "built" / "notebooks" / "01-b.html").read_text(encoding="utf-8")
    assert (
        "https://binder.example/v2/gh/who/what/main?urlpath=lab/tree/notebooks/01-b.ipynb" in page
    )
    for page in lessons(site):
        shown = (site.folder / page).read_text(encoding="utf-8")
        assert "urlpath" not in shown
        assert f"python3 course.py lab {page.removesuffix('html')}ipynb" in shown


def test_github_builds_what_the_readme_says():
    workflow = yaml.safe_load((ROOT / ".github/workflows/site.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["site"]["steps"]
    assert {"run": "python3 course.py site"} in steps
    published = [step["with"]["path"] for step in steps if "pages-artifact" in step.get("uses", "")]
    assert published == ["_site"]
    assert "python3 course.py site --serve" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_notebooks_for_a_browser_bring_all_they_need(tmp_path):
    lite.gather(tmp_path)
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.ipynb")}
    assert made == {path.relative_to(ROOT / "notebooks") for path in digests()}
    first = nbformat.read(tmp_path / "04-random-slopes.ipynb", as_version=4).cells[1].source
    asked = {name for line in re.findall("install -q (.*)", first) for name in line.split()}
    named = (path.read_text(encoding="utf-8") for path in (ROOT / "helpers").rglob("*.py"))
    used = {name for text in named for name in re.findall(r"^(?:import|from) (\w+)", text, re.M)}
    theirs = {"PIL": "pillow", "numpy": "scipy", "IPython": "ipywidgets"}
    missing = {theirs.get(name, name) for name in used - sys.stdlib_module_names} - asked
    assert missing == {"helpers"}
    for folder in lite.FOLDERS:
        assert (tmp_path / folder / "helpers" / "mixed.py").exists()
        assert (tmp_path / folder / "data" / "hsb.csv").exists()


def test_the_readme_does_not_promise_what_was_not_tried():
    assert "lite" not in (ROOT / "README.md").read_text(encoding="utf-8").casefold()
