"""Build the course's site: `python3 course.py site` runs this with the course's packages.

A page shows the outputs that are stored in its notebook. Notebooks with a flipbook are run here, in
memory, because its frames are nowhere else; should any other output differ from the stored one, the
build fails. (That the other notebooks still give what they store is what `python3 course.py test`
says.) What needs Python to be of use, sliders and quizzes, is a line that says so.

What the site is made of is gathered in dist/site/source, with the paths it has in the repository,
so that links lead to the same places in both. The built site replaces _site only when it is whole.
"""

import argparse
import base64
import copy
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
import audit

import course

ROOT = course.ROOT
SITE = ROOT / "site"
WORK = ROOT / "dist" / "site"
VIEW = "application/vnd.jupyter.widget-view+json"
PLANS = ("half-day", "one-day", "two-days")
STATE = "application/vnd.jupyter.widget-state+json"
FLIPBOOK = re.compile(r"\bexplore\.flipbook\(")
# These cells are exempt from comparison in the tests, too; tests/allowed.py says why.
NOT_COMPARED = "nbval-ignore-output"
# What stands in the place of a widget that is of no use without Python.
NEEDS_PYTHON = {
    re.compile(r"\bexplore\.(?!stills\(|flipbook\()[a-z]\w*\("): (
        "Here are sliders and a picture that follows them. They need Python; to move them: {open} "
        "Without it, read on: next comes the same picture at settings side by side."
    ),
    re.compile(r"\bcheck\.quiz\("): (
        "Here is a quiz that says at once whether a choice is right. It needs Python; to take it: "
        "{open} Its question is the one above."
    ),
}


# ── What the pages load ─────────────────────────────────────────────────────────────────────────


PACKAGES = tomllib.loads((SITE / "vendor.toml").read_text(encoding="utf-8"))


def package(name):
    """The folder of a package of vendor.toml, fetched unless it is there."""
    entry = PACKAGES[name]
    cache = WORK / "vendor"
    folder = cache / f"{name.replace('/', '-').lstrip('@')}-{entry['version']}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as draft:  # another build may be at it, too
            draft = Path(draft)
            with tarfile.open(fetch(name, entry, draft)) as archive:
                archive.extractall(draft / "whole", filter="data")
            try:
                (draft / "whole").rename(folder)
            except OSError:
                if not folder.exists():
                    raise
    return folder / "package"


def fetch(name, entry, cache):
    """The package's archive as npm's registry has it, if it is what was pinned."""
    npm = shutil.which("npm")
    if npm is None:
        raise course.Trouble(
            "The site's scripts come from npm, and there is none here. Install Node.js and run "
            "this again."
        )
    wanted = [npm, "pack", "--silent", "--pack-destination", cache, f"{name}@{entry['version']}"]
    done = subprocess.run(wanted, capture_output=True, text=True, cwd=cache)
    if done.returncode:
        raise course.Trouble(f"npm could not fetch {name}: {course.last_line(done.stderr)}")
    archive = cache / course.last_line(done.stdout)
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode("ascii")
    if found != entry["sha512"]:
        archive.unlink()
        raise course.Trouble(f"{name} {entry['version']} is not the package that vendor.toml pins.")
    return archive


def vendor(static):
    """Put what the pages load into the site's static folder, mended."""
    for name, entry in PACKAGES.items():
        for path in entry["files"] if "to" in entry else []:
            source = package(name) / path
            target = static / entry["to"] / path.removeprefix("dist/")
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
        for mend in entry.get("mend", []):
            text = target.read_text(encoding="utf-8")
            if mend["old"] not in text:
                raise course.Trouble(f"vendor.toml mends what is not in {name}: {mend['old']}")
            target.write_text(text.replace(mend["old"], mend["new"]), encoding="utf-8")


# ── Notebooks ───────────────────────────────────────────────────────────────────────────────────


def put_notebook(path, target):
    """Copy a notebook, with its flipbooks alive and a word for other widgets; complaints."""
    stored, complaints = nbformat.read(path, as_version=4), []
    if any(cell.cell_type == "code" and FLIPBOOK.search(cell.source) for cell in stored.cells):
        ran = course.prepared(copy.deepcopy(stored))
        problem = course.run_cells(ran, path, {"running": {}, "stop": False})
        if problem:
            return [f"{course.shown(path)}, {problem}"]
        complaints = [f"{course.shown(path)}, {text}" for text in differences(stored, ran)]
        add_widgets(stored, ran)
    add_notices(stored, course.shown(path))
    if path.parent.name == "solutions":
        name_solutions(stored)
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(stored, target)
    return complaints


def differences(stored, ran):
    """Where outputs differ, but for pictures: their bytes depend on the machine."""
    return [
        f"cell {number}: a run gives another output than the one stored; look into it, then "
        "python3 course.py render"
        for number, (before, after) in enumerate(zip(stored.cells, ran.cells, strict=True), 1)
        if before.cell_type == "code"
        and NOT_COMPARED not in before.metadata.get("tags", [])
        and comparable(before.outputs) != comparable(course.settled(after.outputs))
    ]


def comparable(outputs):
    texts = copy.deepcopy(outputs)
    for output in texts:
        output.pop("execution_count", None)
        if "image/png" in output.get("data", {}):
            output["data"]["image/png"] = "a picture"
    return json.dumps(texts, sort_keys=True)


def add_widgets(stored, ran):
    """Take from a run the widgets that move without Python: those that hold a link of two parts."""
    state = ran.metadata.get("widgets", {}).get(STATE, {"state": {}})
    kept = set()
    for before, after in zip(stored.cells, ran.cells, strict=True):
        for output in after.get("outputs", []):
            view = output.get("data", {}).get(VIEW)
            models = connected(state["state"], view["model_id"]) if view else set()
            if any(state["state"][model]["model_name"] == "LinkModel" for model in models):
                before.outputs.append(nbformat.v4.new_output("display_data", {VIEW: view}))
                kept |= models
    if kept:
        models = {name: model for name, model in state["state"].items() if name in kept}
        stored.metadata["widgets"] = {STATE: {**state, "state": models}}


def add_notices(stored, path):
    """Where a widget would be that needs Python, say so, and how to have it."""
    how = f"<code>python3 course.py lab {path}</code>."
    for cell in stored.cells:
        said = [text for made, text in NEEDS_PYTHON.items() if made.search(cell.source)]
        if cell.cell_type == "code" and said and not cell.outputs:
            html = f'<p class="course-live">{said[0].format(open=how)}</p>'
            data = {"text/html": html, "text/plain": ""}
            cell.outputs.append(nbformat.v4.new_output("display_data", data))


def name_solutions(stored):
    """Exercises and their solutions share a title, which a search could not tell apart."""
    first = stored.cells[0]
    first.source = first.source.replace("# Exercises: ", "# Solutions: ", 1)
    first.source = first.source.replace("# Capstone: ", "# Capstone, solved: ", 1)


def connected(models, start):
    """The ids of a widget's models: its parts, and the links between two of them."""
    found, left = set(), {start}
    while left:
        found |= left
        left = {name for one in left for name in mentioned(models[one])} - found
        for name, model in models.items():
            if "Link" in model["model_name"] and mentioned(model) <= found:
                left |= {name} - found
    return found


def mentioned(model):
    return set(re.findall(r'"IPY_MODEL_(\w+)"', json.dumps(model["state"])))


# ── Pages gathered from lessons ─────────────────────────────────────────────────────────────────


def section(notebook, heading):
    """The text under a heading of the second level, over all text cells; "" without one."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found.group(1).strip() if found else ""


def references(lessons):
    """A page of all works cited, each once, with the lessons that cite it."""
    works = {}
    for path, notebook in lessons.items():
        for text in re.split(r"^- ", section(notebook, "References"), flags=re.MULTILINE)[1:]:
            text = " ".join(text.split())
            doi = re.search(r"10\.\d{4,}/[^\s>)]+", text)
            key = doi.group().lower().rstrip(".") if doi else text[:40]
            works.setdefault(key, (text, []))[1].append(f"[{path.name[:2]}](notebooks/{path.name})")
    lines = [
        f"- {text} — lesson{'s' * (len(where) > 1)} {', '.join(where)}"
        for text, where in sorted(works.values(), key=lambda work: work[0].casefold())
    ]
    return "\n".join(["# References", "", "What the lessons cite, and where.", "", *lines, ""])


def with_contents(home, root):
    """The home page with its lists of notebooks and pages, in order; an empty list goes."""

    def listed(found):
        folder, kind = found.groups()
        paths = sorted(
            (root / ("site" if kind == "md" else "") / folder).glob(f"*.{kind}"), key=place
        )
        return "\n".join(entry(path, f"{folder}/{path.stem}") for path in paths)

    home = re.sub(r"^([\w/]+)/\*\.(\w+)$", listed, home, flags=re.MULTILINE)
    return re.sub(r"```\{toctree\}\n(:.*\n)*\n*```\n", "", home)


def with_first_notebooks(text, root):
    """A text whose links to folders of notebooks, which the site has not, lead to their first."""

    def first(found):
        paths = sorted((root / found[1]).glob("*.ipynb"))
        return f"]({paths[0].relative_to(root).as_posix()})" if paths else found[0]

    return re.sub(r"\]\((notebooks/\w+)/?\)", first, text)


def beside(text):
    """A page's text whose links know that here notebooks and data lie beside the site's pages."""
    return re.sub(r"\]\(\.\./((?:\.\./)?(?:notebooks|data)/)", r"](\1", text)


def place(path):
    """Plans for a day come in the order of their length, and before what goes with them."""
    return PLANS.index(path.stem) if path.stem in PLANS else len(PLANS), path.name


def entry(path, name):
    """A page's line in a list: a notebook has its number before its title."""
    if path.suffix != ".ipynb":
        return name
    cells = nbformat.read(path, as_version=4).cells
    heading = cells[0].source.splitlines()[0] if cells and cells[0].source else ""
    if not heading.startswith("# "):
        raise course.Trouble(f"{course.shown(path)} has no title. Begin its first cell with '# …'.")
    return f"{path.name[:2]} {heading.removeprefix('# ').removeprefix('Exercises: ')} <{name}>"


# ── The build ───────────────────────────────────────────────────────────────────────────────────


def gather(source):
    """All that Sphinx reads; complaints."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(SITE, source, ignore=shutil.ignore_patterns("*.py", "*.toml", "*.txt"))
    shutil.copy2(SITE / "conf.py", source)
    for page in source.rglob("*.md"):
        page.write_text(beside(page.read_text(encoding="utf-8")), encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (source / "README.md").write_text(with_first_notebooks(readme, ROOT), encoding="utf-8")
    (source / "data").mkdir()
    shutil.copy2(ROOT / "data" / "README.md", source / "data")
    vendor(source / "_static")
    paths = [
        path
        for folder in ("", "exercises", "solutions")
        for path in sorted((ROOT / "notebooks" / folder).glob("*.ipynb"))
    ]
    lessons = {
        path: nbformat.read(path, as_version=4) for path in paths if path.parent.name == "notebooks"
    }
    (source / "references.md").write_text(references(lessons), encoding="utf-8")
    home = (source / "index.md").read_text(encoding="utf-8")
    (source / "index.md").write_text(with_contents(home, ROOT), encoding="utf-8")
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(put_notebook, paths, (source / path.relative_to(ROOT) for path in paths))
        return [complaint for complaints in done for complaint in complaints]


def sphinx(source, built):
    """Whether Sphinx had nothing to complain of; what it says goes to the terminal."""
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--jobs", "2"]
    command += ["--fresh-env", "--builder", "html", "--doctree-dir", f"{built}-doctrees"]
    return subprocess.run([*command, source, built], cwd=ROOT).returncode == 0


def lighten(built):
    """Make pages light to load: pictures in a smaller format, and only icons that are used."""
    pictures = sorted((built / "_images").glob("*.png"))
    with ThreadPoolExecutor(2) as pool:
        sizes = dict(pool.map(make_webp, pictures))
    for page in built.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"<img\b[^>]*>", lambda found: sized(found[0], sizes), text)
        text = re.sub(r"data:image/png;base64,([\w+/=]+)", smaller_frame, text)
        page.write_text(text, encoding="utf-8")
    drop_icons(built)


def webp(content):
    """A PNG's picture as WebP, in 256 colours that the eye can't tell from its own; its size."""
    target = io.BytesIO()
    with Image.open(io.BytesIO(content)) as picture:
        paper = Image.new("RGBA", picture.size, "white")
        paper.alpha_composite(picture.convert("RGBA"))
        drawn = paper.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=0)
        # What is nearly white is white, as the page is.
        drawn.putpalette([255 if value > 250 else value for value in drawn.getpalette()])
        drawn.convert("RGB").save(target, "WEBP", lossless=True, quality=50)
        return target.getvalue(), picture.size


def make_webp(path):
    """Put a WebP in a picture's place; the picture's name, and its width and height."""
    content, size = webp(path.read_bytes())
    path.with_suffix(".webp").write_bytes(content)
    path.unlink()
    return path.name, size


def smaller_frame(found):
    """A flipbook's frame, which is part of its page."""
    content, _ = webp(base64.b64decode(found[1]))
    return "data:image/webp;base64," + base64.b64encode(content).decode("ascii")


def sized(tag, sizes):
    """An <img> that names the smaller file, and its size, so that text does not jump."""
    name = re.search(r'_images/([^"/]+\.png)"', tag)
    if not name:
        return tag
    width, height = sizes[name[1]]
    tag = tag.replace(name[1], name[1].removesuffix("png") + "webp")
    wide = ' class="course-wide"' if width > 1.6 * height and " class=" not in tag else ""
    return tag.replace("<img", f'<img{wide} loading="lazy" width="{width}" height="{height}"')


def drop_icons(built):
    """Of the theme's two thousand icons, keep those that a page or the theme's script names.

    It has them twice, as drawings and as a font that only a page without scripts would show.
    """
    static = built / "_static"
    path = static / "scripts" / "fontawesome.js"
    naming = [*built.rglob("*.html"), static / "scripts" / "pydata-sphinx-theme.js"]
    texts = [file.read_text(encoding="utf-8") for file in naming]
    used = {name for text in texts for name in re.findall(r"fa-([a-z0-9-]+)", text)}
    drawing = r'("?)([a-z0-9-]+)\1:\[\d+,\d+,\[[^\]]*\],"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\],?'
    replace(path, drawing, lambda found: found[0] if found[2] in used else "")
    font = r"@font-face\{[^}]*Font Awesome[^}]*\}"
    replace(static / "styles" / "pydata-sphinx-theme.css", font, "")
    shutil.rmtree(static / "vendor" / "fontawesome")
    for spare in [*static.glob("*/*.map"), *static.glob("*macros.html")]:
        spare.unlink()


def replace(path, pattern, by):
    path.write_text(re.sub(pattern, by, path.read_text(encoding="utf-8")), encoding="utf-8")


def build(out):
    """Build the site; the number of complaints, each printed."""
    built = WORK / "built"
    shutil.rmtree(built, ignore_errors=True)
    complaints = gather(WORK / "source")
    if not sphinx(WORK / "source", built):
        complaints.append("Sphinx gave warnings (above)")
    else:
        lighten(built)
        complaints += audit.complaints(built)
    for complaint in complaints:
        print(course.mark(False), complaint)
    if not complaints:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(built, out)
        print(course.mark(True), f"{course.shown(out)}: {len(list(out.rglob('*.html')))} pages")
    return len(complaints)


def main(arguments):
    parser = argparse.ArgumentParser(prog="course.py site", description=course.site.__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "_site", help="the folder to build into")
    options = parser.parse_args(arguments)
    try:
        return int(build(options.out.resolve()) > 0)
    except course.Trouble as trouble:
        print(trouble, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
