"""Add a JupyterLab that runs in the browser alone: `python3 course.py site --lite` runs this.

Its kernel is Pyodide, which the browser fetches, with NumPy and the rest, from Pyodide's own
distribution when a notebook is first run. lite.md says what was tried of it, and what was not.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("", "exercises", "solutions")
# Pyodide fetches what a cell imports by name, and `helpers` imports more than a lesson does.
FIRST = """# In a browser: fetch the packages first (a minute or two).
%pip install -q ipywidgets joblib matplotlib packaging pandas
%pip install -q patsy pillow scipy seaborn statsmodels"""


def gather(contents):
    """The notebooks as a browser needs them: packages first, `helpers` and the data beside them."""
    for folder in FOLDERS:
        target = contents / folder
        for path in sorted((ROOT / "notebooks" / folder).glob("*.ipynb")):
            target.mkdir(parents=True, exist_ok=True)
            notebook = json.loads(path.read_text(encoding="utf-8"))
            cell = {"cell_type": "code", "id": "packages", "metadata": {}, "source": FIRST}
            cell.update(execution_count=None, outputs=[])
            notebook["cells"].insert(1, cell)
            (target / path.name).write_text(json.dumps(notebook), encoding="utf-8")
        if target.exists():
            for name in ("helpers", "data"):
                spare = shutil.ignore_patterns("__pycache__", "*.R")
                shutil.copytree(ROOT / name, target / name, ignore=spare)


def main(out):
    with tempfile.TemporaryDirectory() as folder:
        contents = Path(folder, "contents")
        contents.mkdir()
        gather(contents)
        command = [sys.executable, "-m", "jupyterlite_core", "build", "--no-sourcemaps"]
        command += ["--contents", contents, "--output-dir", Path(out, "lite").resolve()]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
    else:
        print(f"JupyterLite: {Path(out, 'lite')}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
