"""The bundle: the right wheels for each machine, written whole, and enough without a network."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

import course

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workshop"))
import bundle  # noqa: E402
import copies  # noqa: E402

# Pure, small, and needing nothing: with these the short test installs without a network.
SMALL = ("iniconfig", "packaging", "six")


@pytest.fixture(scope="module")
def lock():
    return (ROOT / "requirements.txt").read_text(encoding="utf-8")


def names(lock, platform, python="3.13"):
    return {entry["name"] for entry in bundle.entries(lock, bundle.marker_values(platform, python))}


# ── Which packages ──────────────────────────────────────────────────────────────────────────────


def test_markers_are_compared_with_the_learners_machine_and_not_with_this_one(lock):
    assert "colorama" in names(lock, "windows-x86_64")
    assert "colorama" not in names(lock, "linux-x86_64")
    assert "appnope" in names(lock, "macos-arm64")
    assert "appnope" not in names(lock, "windows-arm64")
    assert "mixedlm-rs" in names(lock, "windows-x86_64")
    assert "mixedlm-rs" not in names(lock, "windows-arm64")


@pytest.mark.parametrize("platform", bundle.PLATFORMS)
def test_every_platform_gets_the_course_with_checksums(lock, platform):
    entries = bundle.entries(lock, bundle.marker_values(platform, "3.12"))
    assert {"jupyterlab", "statsmodels", "numpy"} <= {entry["name"] for entry in entries}
    assert all(entry["hashes"] for entry in entries)
    assert not any(";" in entry["text"] or "\\" in entry["text"] for entry in entries)


def test_this_machine_is_named_as_the_course_names_it(monkeypatch):
    name = bundle.this_platform()
    if name is None:
        pytest.skip("no bundle is made for this kind of machine")
    system, machine, _ = bundle.PLATFORMS[name]
    version = f"python3.{sys.version_info[1]}"
    assert course.this_machine() == f"{version} {system['platform_system']} {machine}"


def wheel(folder, name, content):
    path = folder / f"{name}-1.0-py3-none-any.whl"
    path.write_bytes(content)
    return path


def test_a_damaged_wheel_goes_and_one_that_is_not_asked_for_stays_out(tmp_path):
    good, bad = wheel(tmp_path, "good", b"good"), wheel(tmp_path, "bad", b"torn")
    other = wheel(tmp_path, "other", b"other")
    digest = hashlib.sha256(b"good").hexdigest()
    wanted = [
        {"name": name, "version": "1.0", "hashes": {digest}, "text": ""} for name in ("good", "bad")
    ]
    assert bundle.wheels_there(tmp_path, wanted) == {"good": good}
    assert not bad.exists()
    assert other.exists()


def test_what_was_fetched_is_not_fetched_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bundle, "CACHE", tmp_path)
    monkeypatch.setattr(bundle, "pip", lambda: ["pip"])
    monkeypatch.setattr(bundle, "AT_A_TIME", 1)
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("one", "two")}
    lock = "".join(f"{name}==1.0 \\\n    --hash=sha256:{d}\n" for name, d in digests.items())
    asked = []

    def fetch_some(fetcher, some, platform, python, folder):
        for entry in some:
            asked.append(entry["name"])
            if asked == ["one", "two"]:
                raise KeyboardInterrupt
            wheel(folder, entry["name"], entry["name"].encode())

    monkeypatch.setattr(bundle, "fetch_some", fetch_some)
    with pytest.raises(KeyboardInterrupt):
        bundle.fetch("linux-x86_64", "3.13", lock)
    assert len(bundle.fetch("linux-x86_64", "3.13", lock)) == 2
    assert asked == ["one", "two", "two"]


# ── The zip ─────────────────────────────────────────────────────────────────────────────────────


def test_a_bundle_that_is_cut_off_leaves_the_one_before(tmp_path):
    target = tmp_path / "bundle.zip"
    target.write_text("the one before")
    with pytest.raises(FileNotFoundError):
        bundle.write_zip(target, [Path("README.md")], [tmp_path / "gone.whl"], [])
    assert target.read_text() == "the one before"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.zip"]


def test_the_course_s_files_are_those_that_git_knows_or_else_all_but_this_machine_s(tmp_path):
    ours = ("course.py", "data/x.csv", ".gitignore")
    made = (".venv/x.py", "dist/x.zip", "helpers/__pycache__/x.pyc", "wheels/x.whl", "classroom/x")
    for name in (*ours, *made, ".progress.json", "data/.x.csv.draft"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [path.as_posix() for path in copies.course_files(tmp_path)] == [
        ".gitignore",
        "course.py",
        "data/x.csv",
    ]
    if not course.works("git"):
        return
    for words in (["init", "-q"], ["add", "data/x.csv"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert [path.as_posix() for path in copies.course_files(tmp_path)] == ["data/x.csv"]


def test_exercises_with_answers_are_not_handed_out(tmp_path):
    path = tmp_path / "notebooks" / "exercises" / "01-line.ipynb"
    path.parent.mkdir(parents=True)
    fresh = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("slope = ...")])
    fresh.metadata["course"] = {"made_as": course.fingerprint(fresh)}
    nbformat.write(fresh, path)
    files = copies.course_files(tmp_path)
    copies.refuse_answers(tmp_path, files)
    path.write_text(path.read_text().replace("slope = ...", "slope = 2"))
    with pytest.raises(course.Trouble, match="render --force notebooks/exercises/01-line.ipynb"):
        copies.refuse_answers(tmp_path, files)


@pytest.mark.parametrize(
    "output, said",
    [
        (
            "ERROR: Could not find a version that satisfies the requirement one==1.0\n"
            "ERROR: No matching distribution found for one==1.0",
            "no package of one==1.0 for windows-arm64 and Python 3.14",
        ),
        ("Temporary failure in name resolution\nNo matching distribution found", "no network"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
    ],
)
def test_a_failed_fetch_is_one_line(tmp_path, monkeypatch, output, said):
    monkeypatch.setattr(
        subprocess, "run", lambda *line, **more: subprocess.CompletedProcess(line, 1, output)
    )
    entry = {"name": "one", "version": "1.0", "hashes": set(), "text": "one==1.0\n"}
    with pytest.raises(course.Trouble, match=re.escape(said)):
        bundle.fetch_some(["pip"], [entry], "windows-arm64", "3.14", tmp_path)


# ── Taking the packages from the bundle ─────────────────────────────────────────────────────────


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "WHEELS", tmp_path / "wheels")
    course.WHEELS.mkdir()
    return course.WHEELS / course.MACHINES


def test_packages_come_from_the_bundle_where_it_is_for_this_machine(wheels):
    assert course.wheel_options() == []
    wheels.write_text(f"python3.99 Plan9 vax\n{course.this_machine()}\n", encoding="utf-8")
    assert course.wheel_options() == ["--no-index", "--find-links", str(course.WHEELS)]


def test_a_bundle_for_other_machines_says_so_and_the_network_is_used(wheels, monkeypatch, capsys):
    wheels.write_text("python3.99 Plan9 vax\n", encoding="utf-8")
    monkeypatch.setattr(course, "works", lambda command: True)
    monkeypatch.setattr(course, "install_with_uv", lambda start: None)
    monkeypatch.setattr(course, "finish_environment", lambda: None)
    course.install_packages()
    assert course.wheel_options() == []
    said = capsys.readouterr().out
    assert f"are for python3.99 Plan9 vax; this is {course.this_machine()}" in said


# ── Without a network ───────────────────────────────────────────────────────────────────────────

# In a network of its own, with nothing in it but the machine itself.
ALONE = ["unshare", "--user", "--map-root-user", "--net"]
ALONE_WITH_ITSELF = [*ALONE, "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]


def cut_off():
    """Why the network can't be cut off here; "" when it can."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return "no unshare and ip on this machine"
    done = subprocess.run([*ALONE, "true"], capture_output=True)
    return "" if done.returncode == 0 else "this machine allows no network of one's own"


needs_cut = pytest.mark.skipif(bool(cut_off()), reason=cut_off() or "can run")


def unpacked(zipped, folder):
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(folder)
    return folder / bundle.NAME


def alone(folder, *words, path=None, limit=280):
    """Run Python in the folder without a network and without caches; exit code and output."""
    env = {name: text for name, text in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    env.update(UV_CACHE_DIR=str(folder / ".cache"), PIP_CACHE_DIR=str(folder / ".cache"))
    env.update(PATH=path or env["PATH"])
    python = course.base_python()
    done = subprocess.run(
        [*ALONE_WITH_ITSELF, python, *words],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def small(tmp_path_factory, lock):
    """A bundle, made as a teacher makes it, of a course whose lock has three packages."""
    source = tmp_path_factory.mktemp("teacher") / "course"
    for path in copies.course_files(ROOT):
        if path.parts[0] in ("helpers", "workshop") or path.name == "course.py":
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, source / path)
    blocks = re.findall(r"^\w.*\n(?:[ #].*\n)*", lock, re.MULTILINE)
    kept = [block for block in blocks if block.split("==")[0] in SMALL]
    assert len(kept) == len(SMALL)
    (source / "requirements.txt").write_text("".join(kept), encoding="utf-8")
    command = [sys.executable, str(source / "workshop" / "bundle.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    if "no network" in done.stderr and not os.environ.get("CI"):
        pytest.skip("no network to fetch the packages of a bundle")
    assert done.returncode == 0, done.stdout + done.stderr
    return source / "dist" / f"{bundle.NAME}-bundle.zip"


SHOW = "import iniconfig, packaging, six; import helpers; print('all there')"


@needs_cut
@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_bundle_needs_no_network(small, tmp_path, installer):
    if installer == "uv" and not course.works("uv"):
        pytest.skip("no uv on this machine")
    folder = unpacked(small, tmp_path / "Été bundle")
    path = None if installer == "uv" else "/usr/sbin:/usr/bin:/sbin:/bin"
    if installer == "pip" and shutil.which("uv", path=path):
        pytest.skip("uv is among the system's own programs")
    code, said = alone(folder, "course.py", "doctor", path=path)
    assert "wheels: the packages came with the course" in said
    assert "not installed yet" in said
    install = "import course; course.check_python(); course.ensure_packages()"
    code, said = alone(folder, "-c", install, path=path)
    assert code == 0, said
    assert " packages installed in " in said
    run = f"import course; raise SystemExit(course.run_in_venv('-c', {SHOW!r}))"
    assert alone(folder, "-c", run)[1].strip() == "all there"


@needs_cut
def test_a_changed_wheel_is_refused(small, tmp_path):
    folder = unpacked(small, tmp_path)
    (path,) = (folder / "wheels").glob("six-*.whl")
    with zipfile.ZipFile(path, "a") as wheel:
        wheel.writestr("six_extra.py", "")
    code, said = alone(folder, "-c", "import course; course.main(['test'])")
    assert "damaged or changed" in said
    assert not (folder / ".venv").exists()


def whole_bundle():
    """The bundle that `course.py bundle` made here of this lock for this machine, or None."""
    path = ROOT / "dist" / f"{bundle.NAME}-bundle.zip"
    if not path.exists():
        return None
    with zipfile.ZipFile(path) as archive:
        machines = archive.read(f"{bundle.NAME}/wheels/{course.MACHINES}").decode("utf-8")
        same = archive.read(f"{bundle.NAME}/requirements.txt") == course.LOCK.read_bytes()
    return path if same and course.this_machine() in machines.splitlines() else None


@needs_cut
@pytest.mark.skipif(
    whole_bundle() is None,
    reason="fetching all packages takes a minute: python3 course.py bundle, then this runs",
)
def test_the_whole_course_runs_from_its_bundle_without_a_network(tmp_path):
    folder = unpacked(whole_bundle(), tmp_path)
    code, said = alone(folder, "course.py", "test", "notebooks/00-start-here.ipynb")
    assert code == 0, said
    code, said = alone(folder, "course.py", "doctor")
    assert code == 0, said


def test_the_starters_are_in_the_bundle_and_name_the_one_command(small, tmp_path):
    folder = unpacked(small, tmp_path)
    for name in bundle.STARTERS:
        assert "course.py lab" in (folder / name).read_text(encoding="ascii")
    assert course.this_machine() in (folder / "wheels" / course.MACHINES).read_text()
    assert not (folder / "dist").exists()
    wheels = {path.name.split("-")[0] for path in folder.glob("wheels/*.whl")}
    assert wheels == set(SMALL)


@pytest.mark.skipif(course.WINDOWS, reason="the starter of Windows is another")
def test_the_starter_takes_the_python_that_the_packages_are_for(tmp_path):
    shutil.copy2(ROOT / "workshop" / "start.sh", tmp_path)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / course.MACHINES).write_text("python3.99 Linux x86_64\n")
    (tmp_path / "bin").mkdir()
    for name in ("python3", "python3.99"):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\necho {name} "$@"\n')
        program.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    command = ["sh", str(tmp_path / "start.sh"), "--no-browser"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd="/")
    assert done.stdout.splitlines()[-1] == "python3.99 course.py lab --no-browser"
    (tmp_path / "bin" / "python3.99").write_text("#!/bin/sh\nexit 1\n")
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd="/")
    assert done.stdout.splitlines()[-1] == "python3 course.py lab --no-browser"
