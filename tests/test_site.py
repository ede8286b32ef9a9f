"""The built site, in a browser that may fetch nothing else: shown whole, light, within reach."""

import base64
import gzip
import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
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

CODE, TEXT = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
PHONE, LAPTOP = 390, 1280
MOST_BYTES = 1_500_000
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
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


@pytest.fixture(scope="module")
def driver(site):
    with browser.chrome(LAPTOP, 900) as running:
        running.execute_cdp_cmd("Network.enable", {})
        running.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["https://*"]})
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
    shown = driver.execute_script("return document.documentElement.dataset.theme")
    if shown != theme:
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


# ── What is there ───────────────────────────────────────────────────────────────────────────────


@needs_site
def test_every_notebook_and_every_page_of_its_own_is_there(site):
    notebooks = {path.relative_to(ROOT).with_suffix(".html").as_posix() for path in digests()}
    own = {"index", "syllabus", "teachers", "glossary", "references", "data/README", "api", "lite"}
    assert set(site.pages) == notebooks | {f"{name}.html" for name in own} | {"search.html"}


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

COMPLAINTS = """
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


@needs_site
def test_every_page_shows_all_it_has_and_logs_nothing(site, driver):
    driver.get_log("browser")
    found = {}
    for page in site.pages:
        visit(driver, site, page)
        logged = [entry["message"] for entry in driver.get_log("browser")]
        if complaints := driver.execute_script(COMPLAINTS) + logged:
            found[page] = complaints
    assert found == {}


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
def test_a_live_explorer_says_how_to_run_it(site):
    said = [
        page[10:12]
        for page in lessons(site)
        if "course-live" in (site.folder / page).read_text(encoding="utf-8")
    ]
    assert {"00", "03", "13"} <= set(said)


@needs_site
def test_no_page_scrolls_sideways_on_a_phone(site, driver):
    wide = {}
    for page in site.pages:
        visit(driver, site, page, width=PHONE)
        width = driver.execute_script("return document.documentElement.scrollWidth")
        if width > PHONE:
            wide[page] = width
    assert wide == {}


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

AXE = """
const [options, done] = arguments;
axe.run(document, { ...options, resultTypes: ['violations'] }).then(result => done(
    result.violations.map(v => `${v.id}: ${v.nodes.map(n => n.html.slice(0, 120)).join(' | ')}`)));
"""


def violations(driver, site, page, theme, **options):
    axe = build.package("axe-core") / "axe.min.js"
    visit(driver, site, page, theme=theme)
    driver.execute_script(axe.read_text(encoding="utf-8"))
    driver.set_script_timeout(120)
    return driver.execute_async_script(AXE, options)


@needs_site
def test_axe_finds_nothing_by_day(site, driver):
    found = {page: violations(driver, site, page, "light", runOnly=WCAG) for page in site.pages}
    assert {page: faults for page, faults in found.items() if faults} == {}


@needs_site
def test_axe_finds_no_weak_contrast_by_night(site, driver):
    only = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
    found = {page: violations(driver, site, page, "dark", runOnly=only) for page in site.pages}
    assert {page: faults for page, faults in found.items() if faults} == {}


# ── Weight and speed ────────────────────────────────────────────────────────────────────────────


def on_the_wire(path):
    """Bytes as a web server sends them: text is compressed, pictures and fonts are already."""
    content = path.read_bytes()
    return len(gzip.compress(content, 6)) if path.suffix in TEXTS else len(content)


@needs_site
def test_a_lesson_weighs_less_than_a_megabyte_and_a_half(site, driver):
    heavy = {}
    for page in lessons(site):
        visit(driver, site, page)
        loaded = driver.execute_script(
            "return performance.getEntriesByType('resource').map(e => new URL(e.name))"
            ".filter(u => u.origin === location.origin).map(u => u.pathname.slice(1))"
        )
        files = {page, *loaded}
        weight = sum(
            on_the_wire(site.folder / path)
            for path in files
            if not path.startswith("_static/mathj")
        )
        if weight > MOST_BYTES:
            heavy[page] = weight
    assert heavy == {}


@needs_site
def test_no_picture_is_wider_than_twice_what_is_shown(site, driver):
    wide = {}
    for page in lessons(site):
        visit(driver, site, page)
        found = driver.execute_script(
            "return [...document.querySelectorAll('.cell_output img')].filter("
            "i => i.offsetParent && i.naturalWidth > 2 * i.clientWidth).map(i => i.src)"
        )
        if found:
            wide[page] = found
    assert wide == {}


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

    stored = notebook(CODE("book"), CODE("live"))
    ran = notebook(CODE("book", outputs=[view("book")]), CODE("live", outputs=[view("live")]))
    ran.metadata["widgets"] = {build.STATE: {"state": models, "version_major": 2}}
    made = build.with_widgets(stored, ran)
    assert made.cells[0].outputs == [view("book")]
    assert "JupyterLab" in made.cells[1].outputs[0]["data"]["text/html"]
    kept = made.metadata["widgets"][build.STATE]
    assert set(kept["state"]) == {"book", "slider", "stack", "frame", "link"}
    assert kept["version_major"] == 2


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


def test_the_glossary_s_links_lead_from_its_own_page():
    source = "## Glossary\n\n| ICC | share | [02](02-groups.ipynb) |\n| prior | belief | this one |"
    made = build.glossary({Path("notebooks/15-next.ipynb"): notebook(TEXT(source))})
    assert "[02](notebooks/02-groups.ipynb)" in made
    assert "| belief | [15](notebooks/15-next.ipynb) |" in made


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
<img src="b.html" alt="short"><table><tr><td>1</td></tr></table>"""


def test_the_audit_sees_what_is_wrong(tmp_path):
    (tmp_path / "a.html").write_text(PAGE)
    (tmp_path / "b.html").write_text('<h1 id="c">B</h1>')
    assert audit.complaints(tmp_path) == [
        "a.html: fetches https://elsewhere.example/a.js from elsewhere",
        "a.html: none.html leads nowhere",
        "a.html: #no leads to no place on that page",
        "a.html: the label twice is there 2 times",
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
