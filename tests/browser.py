"""Open the course's notebooks in a real JupyterLab, in a headless Chromium.

From a shell, to look at a notebook::

    python tests/browser.py shot notebooks/04-random-slopes.ipynb out.png
    python tests/browser.py shot --run --unfold notebooks/04-random-slopes.ipynb out.png
    python tests/browser.py page notebooks/04-random-slopes.ipynb out.png

``shot`` saves the whole notebook as JupyterLab shows it, as out-01.png, out-02.png, … from top
to bottom. Stored outputs are shown as they are; ``--run`` runs every cell first, which is what
makes widgets appear, and ``--unfold`` opens the ``<details>`` blocks. It ends with exit code 1 and
a list when something is wrong on the page: an error output, an equation that MathJax refused, a
widget that did not come alive. ``page`` saves the notebook as nbconvert's HTML, where equations
stay as typed: quicker, no server.

Everything happens in a temporary copy of the repository, so nothing is ever saved into it.
"""

import argparse
import contextlib
import io
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
NOT_COPIED = (
    ".git", ".venv*", "_site", "dist", "__pycache__", ".ipynb_checkpoints", ".*_cache",
    ".progress.json*",
)  # fmt: skip
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROME_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--force-device-scale-factor=1",
)
# Every cell attached to the page (JupyterLab otherwise draws only those in view), no news, no
# autosave, nothing that could cover a cell.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
    "@jupyterlab/apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
}
PAGE_HEIGHT = 2000
# On a photograph, what belongs to editing only is left out.
NO_EDITING = """
.jp-Notebook-footer, .jp-cell-toolbar { display: none !important; }
.jp-Collapser { visibility: hidden !important; }
.jp-Cell { outline: none !important; border-color: transparent !important; }
"""


def missing():
    """Return why no browser check can run here, or "" when one can."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed"
    if not any(shutil.which(name) for name in BROWSERS):
        return "no Chromium on this machine"
    if not shutil.which("chromedriver"):
        return "no chromedriver on this machine"
    return ""


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: its address (ending in /), its token and the folder it serves."""

    url: str
    token: str
    root: Path


def _environment(home, root):
    """The server's environment: nothing of the user's own Jupyter, helpers from the copy."""
    own = {
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "IPYTHONDIR": home / "ipython",
        "PYTHONPATH": root,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "PYTEST"))}
    # Tests may run on the Agg back end; a learner's notebook draws inline.
    kept.pop("MPLBACKEND", None)
    return kept | {k: str(v) for k, v in own.items()}


def _write_settings(home):
    for plugin, values in SETTINGS.items():
        path = home / "settings" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _wait_for_server(process, home, log, seconds=60):
    """Return the address the server says it listens on (it moves on when the port is taken)."""
    record = home / "runtime" / f"jpserver-{process.pid}.json"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError, ValueError):
            return json.loads(record.read_text(encoding="utf-8"))["url"]
        time.sleep(0.1)
    raise RuntimeError("JupyterLab did not start:\n" + log.read_text(encoding="utf-8")[-2000:])


def _stop(process):
    """End the server and, through it, its kernels."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def lab(repo=REPO):
    """Run JupyterLab on a temporary copy of `repo`; yields a `Lab`.

    The server is that of the current interpreter, listens on 127.0.0.1 only and ends with the
    block. Notebooks import `helpers` from the copy.
    """
    with tempfile.TemporaryDirectory(prefix="lab-", ignore_cleanup_errors=True) as temporary:
        home = Path(temporary)
        root = home / "course"
        shutil.copytree(repo, root, ignore=shutil.ignore_patterns(*NOT_COPIED))
        _write_settings(home)
        token, log = secrets.token_hex(16), home / "server.log"
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1"]
        command += [f"--port={_free_port()}", f"--IdentityProvider.token={token}"]
        command += [f"--ServerApp.root_dir={root}", "--LabApp.expose_app_in_browser=True"]
        command += [
            "--ServerApp.terminals_enabled=False",
            "--FileContentsManager.use_atomic_writing=False",
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--allow-root")
        with log.open("w") as output:
            process = subprocess.Popen(
                command, cwd=root, env=_environment(home, root), stdout=output, stderr=output
            )
        try:
            yield Lab(_wait_for_server(process, home, log), token, root)
        finally:
            _stop(process)


@contextlib.contextmanager
def chrome(width=1150, height=PAGE_HEIGHT):
    """Start a headless Chromium of the given size in CSS pixels; yields selenium's driver."""
    from selenium import webdriver

    binary = next(filter(None, map(shutil.which, BROWSERS)))
    with tempfile.TemporaryDirectory(prefix="chrome-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in (
            *CHROME_FLAGS,
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
        ):
            options.add_argument(flag)
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
        driver.set_script_timeout(30)
        try:
            yield driver
        finally:
            driver.quit()


def _until(driver, script, seconds, what):
    """Poll a JavaScript expression until it is true; TimeoutError says what was waited for."""
    deadline = time.monotonic() + seconds
    while not driver.execute_script(f"return Boolean({script});"):
        if time.monotonic() > deadline:
            dialog = driver.execute_script(
                "return [...document.querySelectorAll('.jp-Dialog-content')].map(n => n.innerText);"
            )
            raise TimeoutError(f"JupyterLab: after {seconds} s still not: {what} {dialog or ''}")
        time.sleep(0.2)


PANEL = "window.jupyterapp.shell.currentWidget"
READY = f"""(() => {{
    const panel = window.jupyterapp && {PANEL};
    if (!panel || !panel.context || !panel.context.isReady || !panel.content.widgets) return false;
    if (panel.node.querySelector('.jp-Cell-Placeholder')) return false;
    return panel.content.widgets.length === panel.content.model.cells.length;
}})()"""
KERNEL_IDLE = f"""(() => {{
    const session = {PANEL}.sessionContext.session;
    return session && session.kernel && session.kernel.status === 'idle';
}})()"""
# JupyterLab leaves "[*]" at a cell that waits or runs.
CELLS_DONE = (
    f"![...{PANEL}.node.querySelectorAll('.jp-InputPrompt')].some(p => /\\*/.test(p.textContent))"
)
# Fonts loaded, images decoded, and every rendered Markdown cell past MathJax's queue.
SETTLED = f"""(() => {{
    const node = {PANEL}.node;
    if (document.fonts.status !== 'loaded') return false;
    if ([...node.querySelectorAll('img')].some(i => !i.complete)) return false;
    return ![...{PANEL}.content.widgets].some(
        c => c.model.type === 'markdown' && c.model.sharedModel.source.trim() && c.rendered
             && !c.node.querySelector('.jp-MarkdownOutput').childNodes.length);
}})()"""


def open_notebook(driver, server, path, seconds=60):
    """Open the notebook at `path` (relative to the served folder), in single-document mode."""
    driver.get(f"{server.url}doc/tree/{Path(path).as_posix()}?token={server.token}&reset")
    _until(driver, READY, seconds, f"{path} open")
    settle(driver)


def settle(driver, seconds=30):
    """Wait until fonts, images and equations are drawn and the page's height stands still."""
    _until(driver, SETTLED, seconds, "page drawn")
    last, still = None, 0
    deadline = time.monotonic() + seconds
    while still < 3 and time.monotonic() < deadline:
        now = driver.execute_script(
            f"return [{PANEL}.node.querySelector('.jp-WindowedPanel-outer').scrollHeight,"
            f"{PANEL}.node.querySelectorAll('mjx-container').length];"
        )
        still = still + 1 if now == last else 0
        last = now
        time.sleep(0.2)


def run_all(driver, seconds=300):
    """Run all cells of the open notebook and wait until the kernel has nothing left to do.

    Raises TimeoutError after `seconds`. Cells after one that fails stay unrun, as for a learner.
    """
    _until(driver, KERNEL_IDLE, 60, "kernel started")
    driver.execute_script(
        "window.runAllDone = false; window.jupyterapp.commands.execute('notebook:run-all-cells')"
        ".finally(() => { window.runAllDone = true; }); return null;"
    )
    _until(driver, f"window.runAllDone && {CELLS_DONE} && {KERNEL_IDLE}", seconds, "all cells run")
    settle(driver)


def end_kernel(driver):
    """Shut down the open notebook's kernel."""
    driver.execute_async_script(
        f"const done = arguments[0]; {PANEL}.sessionContext.shutdown().finally(() => done(null));"
    )


def errors(driver):
    """Return what stands in red boxes in the open notebook: errors, and text on stderr."""
    script = f"""
    const found = [];
    {PANEL}.content.widgets.forEach((cell, i) => {{
        const outputs = cell.model.type === 'code' ? cell.model.sharedModel.getOutputs() : [];
        for (const o of outputs) {{
            if (o.output_type === 'error')
                found.push(`cell ${{i + 1}}: ${{o.ename}}: ${{o.evalue}}`);
            if (o.output_type === 'stream' && o.name === 'stderr')
                found.push(`cell ${{i + 1}}: stderr: ${{[].concat(o.text).join('')}}`);
        }}
    }});
    return found;"""
    return driver.execute_script(script)


def equations(driver):
    """Return (number of equations that MathJax drew, list of those it refused)."""
    script = f"""
    const node = {PANEL}.node, refused = 'merror, [mathcolor="red"]';
    return [node.querySelectorAll('mjx-container').length,
            [...node.querySelectorAll('mjx-assistive-mml')].flatMap(
                maths => [...maths.querySelectorAll(refused)].map(
                    n => [n.textContent, n.getAttribute('data-mjx-error') || 'unknown macro']
                        .join(': ')))];"""
    return tuple(driver.execute_script(script))


def bare_equations(driver):
    """Return what rendered prose still shows between dollar signs: equations left as typed.

    Amounts of money stay out of it: only what holds a backslash, "_" or "^" counts.
    """
    script = f"""
    const found = [];
    for (const cell of {PANEL}.node.querySelectorAll('.jp-MarkdownOutput')) {{
        const copy = cell.cloneNode(true);
        copy.querySelectorAll('code, pre, mjx-container').forEach(n => n.remove());
        found.push(...(copy.textContent.match(/\\$[^$]*[\\\\_^][^$]*\\$/g) || []));
    }}
    return found;"""
    return driver.execute_script(script)


def broken_images(driver):
    """Return the source of every picture that did not load."""
    return driver.execute_script(
        f"return [...{PANEL}.node.querySelectorAll('img')]"
        ".filter(i => !i.naturalWidth).map(i => i.src.slice(0, 80));"
    )


def widgets(driver):
    """Return (number of live widget views, list of complaints about dead ones)."""
    script = f"""
    const mime = 'application/vnd.jupyter.widget-view+json';
    let alive = 0, dead = [];
    {PANEL}.content.widgets.forEach((cell, i) => {{
        const outputs = cell.model.type === 'code' ? cell.model.sharedModel.getOutputs() : [];
        const wanted = outputs.filter(o => o.data && mime in o.data).length;
        if (!wanted) return;
        const views = [...cell.node.querySelectorAll('.jp-OutputArea-output')].filter(
            n => n.querySelector('.jupyter-widgets') && n.getBoundingClientRect().height > 0
                 && !/Error displaying widget|Loading widget/.test(n.innerText));
        alive += Math.min(wanted, views.length);
        if (views.length < wanted)
            dead.push(`cell ${{i + 1}}: ${{wanted - views.length}} of ${{wanted}} widgets are not`
                      + ` drawn: ${{cell.node.querySelector('.jp-Cell-outputArea').innerText
                                     .slice(0, 200)}}`);
    }});
    return [alive, dead];"""
    return tuple(driver.execute_script(script))


def complaints(driver, ran=True):
    """Return what is wrong on the open notebook's page, one sentence each.

    Widgets are looked at only when the notebook has been run: without a kernel they have no state.
    """
    found = [f"red box: {text}" for text in errors(driver)]
    found += [f"MathJax refused: {text}" for text in equations(driver)[1]]
    found += [f"an equation stayed as typed: {text}" for text in bare_equations(driver)]
    found += [f"picture not loaded: {source}" for source in broken_images(driver)]
    if ran:
        found += [f"widget: {text}" for text in widgets(driver)[1]]
    return found


def _save_tall(strips, height, target):
    """Save strips (top, image) of one tall page as `target`-01.png, … of at most PAGE_HEIGHT."""
    from PIL import Image, ImageChops

    width = strips[0][1].width
    page = Image.new("RGB", (width, height), "white")
    for top, image in strips:
        page.paste(image, (0, top))
    inked = ImageChops.invert(page.convert("L")).getbbox()
    height = min(height, (inked[3] if inked else 0) + 20)
    target = Path(target)
    stem = target.with_suffix("")
    for old in stem.parent.glob(f"{stem.name}-[0-9][0-9].png"):
        old.unlink()
    saved = []
    for number, top in enumerate(range(0, height, PAGE_HEIGHT), 1):
        path = stem.with_name(f"{stem.name}-{number:02d}.png")
        page.crop((0, top, width, min(top + PAGE_HEIGHT, height))).save(path)
        saved.append(path)
    return saved


def _strips(driver, scroller):
    """Photograph a scrolling element from top to bottom: list of (top, image), and its height."""
    from PIL import Image

    element = driver.execute_script(f"return {scroller};")
    left, above, width = driver.execute_script(
        "const e = arguments[0]; e.scrollTop = 0; const box = e.getBoundingClientRect();"
        "return [box.left, box.top, e.clientWidth].map(Math.round);",
        element,
    )
    strips, seen = [], 0
    while True:
        total, view, top = driver.execute_script(
            "const e = arguments[0]; e.scrollTop = arguments[1];"
            "return [e.scrollHeight, e.clientHeight, e.scrollTop].map(Math.round);",
            element,
            seen,
        )
        time.sleep(0.15)
        image = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
        strips.append((top, image.crop((left, above, left + width, above + view))))
        seen = top + view
        if seen >= total:
            return strips, total


def screenshot(driver, target):
    """Save the open notebook from top to bottom; returns the paths (`target` with -01, -02, …)."""
    driver.execute_script(
        "const style = document.createElement('style'); style.textContent = arguments[0];"
        "document.head.append(style);",
        NO_EDITING,
    )
    strips, height = _strips(driver, f"{PANEL}.node.querySelector('.jp-WindowedPanel-outer')")
    return _save_tall(strips, height, target)


def _inside(notebook, repo):
    """Return `notebook` relative to `repo`, or None when it lies elsewhere."""
    with contextlib.suppress(ValueError):
        return Path(notebook).resolve().relative_to(repo)
    return None


def shoot(notebook, target, run=False, unfold=False, width=1150):
    """Save what JupyterLab shows of a notebook; returns (paths of the pictures, complaints).

    `run` runs all cells first; `unfold` opens the ``<details>`` blocks.
    """
    notebook = Path(notebook)
    with lab() as server, chrome(width) as driver:
        inside = _inside(notebook, REPO)
        if inside is None:
            # A notebook from outside the repository is shown as if it were one of the lessons.
            inside = Path("notebooks", notebook.name)
            (server.root / inside).parent.mkdir(exist_ok=True)
            shutil.copy(notebook, server.root / inside)
        open_notebook(driver, server, inside)
        if run:
            run_all(driver)
        if unfold:
            driver.execute_script(
                "document.querySelectorAll('details').forEach(d => d.open = true)"
            )
        return screenshot(driver, target), complaints(driver, ran=run)


def page(notebook, target, width=1150):
    """Save nbconvert's HTML of a notebook as pictures; equations stay as typed."""
    import nbconvert

    html, _ = nbconvert.HTMLExporter().from_filename(str(notebook))
    # The page's scripts only fetch MathJax and RequireJS from elsewhere.
    html = re.sub(r"<script\b.*?</script>", "", html, flags=re.S)
    with tempfile.TemporaryDirectory() as folder, chrome(width) as driver:
        path = Path(folder, "page.html")
        path.write_text(html, encoding="utf-8")
        driver.get(path.as_uri())
        strips, height = _strips(driver, "document.documentElement")
        return _save_tall(strips, height, target)


def main(arguments=None):
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=["shot", "page"])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("target", type=Path, help="out.png saves out-01.png, out-02.png, …")
    parser.add_argument("--run", action="store_true", help="run all cells first (shot only)")
    parser.add_argument("--unfold", action="store_true", help="open <details> blocks (shot only)")
    parser.add_argument("--width", type=int, default=1150, help="of the window, in pixels")
    options = parser.parse_args(arguments)
    if reason := missing():
        parser.error(f"{reason}; install chromium and chromium-driver")
    if not options.notebook.is_file():
        parser.error(f"no such notebook: {options.notebook}")
    found = []
    if options.what == "page":
        saved = page(options.notebook, options.target, options.width)
    else:
        saved, found = shoot(
            options.notebook, options.target, options.run, options.unfold, options.width
        )
    print(*saved, *(f"wrong: {text}" for text in found), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
