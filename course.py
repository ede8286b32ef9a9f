"""The course's one entry point.

    python3 course.py lab       open the course in JupyterLab
    python3 course.py test      run every test and every notebook
    python3 course.py render    run notebooks and store what they show
    python3 course.py site      build the course as web pages
    python3 course.py slides    make slides of lessons
    python3 course.py bench     measure the engine beside other fitters
    python3 course.py bundle    pack the course for machines without a network
    python3 course.py classroom serve the course to a room of browsers
    python3 course.py doctor    say whether this machine will do

It needs nothing but Python. The first run puts the packages named in requirements.txt into the
folder .venv beside this file; later runs do so again only when that list has changed. To take the
course off a machine, delete its folder.

This file keeps to syntax that Python 3.6 can parse, so that an old Python gets to say that it is
old. Commands whose work needs the packages start this file again, with `--inside`, under the
Python of .venv.
"""

import argparse
import ast
import contextlib
import errno
import hashlib
import importlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
SPARE = ROOT / ".venv.old"
LOCK = ROOT / "requirements.txt"
# A bundle brings the packages along, and a list of the machines that they are for.
WHEELS = ROOT / "wheels"
MACHINES = "machines.txt"
NOTEBOOKS = ROOT / "notebooks"
FIRST_NOTEBOOK = NOTEBOOKS / "00-start-here.ipynb"

SITE = ROOT / "_site"
SITE_LOCK = ROOT / "site" / "requirements.txt"
LITE_LOCK = ROOT / "site" / "lite.txt"
LITE_VENV = ROOT / "dist" / "lite-venv"
CLASSROOM = ROOT / "classroom"
CLASSROOM_LOCK = ROOT / "workshop" / "requirements.txt"

STAMP = "course-stamp.txt"
SITE_STAMP = "site-stamp.txt"
CLASSROOM_STAMP = "classroom-stamp.txt"
UNFINISHED = "unfinished"
OLDEST, TOO_NEW = (3, 11), (3, 15)
INSTALL_GB = 1.2
CELL_SECONDS = 120
WINDOWS = os.name == "nt"
# Checks of answers note a learner's progress; a run of the whole course is nobody's, and what is
# stored has the figures of the course, not those of a teacher in front of a room.
NOBODY = {"COURSE_PROGRESS": "off", "COURSE_STYLE": "course"}

# What a learner may have set for other work and would change, or break, what runs here.
NOT_OURS = {
    *("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONWARNINGS", "PYTHONOPTIMIZE"),
    *("PYTHONUSERBASE", "__PYVENV_LAUNCHER__", "CONDA_PREFIX", "JUPYTER_PATH", "MPLBACKEND"),
    *("MATPLOTLIBRC", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_CONSTRAINT", "PIP_NO_BINARY"),
    *("UV_SYSTEM_PYTHON", "UV_BREAK_SYSTEM_PACKAGES", "UV_PYTHON", "UV_TARGET", "UV_PREFIX"),
    *("UV_CONSTRAINT", "UV_OVERRIDE", "UV_NO_BINARY", "UV_PROJECT", "UV_WORKING_DIRECTORY"),
}

NO_NETWORK = (
    r"name resolution|name or service not known|getaddrinfo|nodename nor servname|dns error"
    r"|failed to establish a new connection|network is unreachable|connection refused"
    r"|error sending request|connecttimeout|timed out|connection (?:was )?reset|proxyerror"
    r"|cannot connect to proxy|no route to host|network connectivity is disabled"
)
# The first pattern found in an installer's output says what went wrong, and the mend.
INSTALL_TROUBLES = (
    (
        r"no space left|not enough space|disk quota|ENOSPC",
        f"The disk is full. Free {INSTALL_GB} GB and run this again.",
    ),
    (
        r"long path support|file name too long|WinError 206",
        "The path of this folder is too long. Move the course to a shorter one and run this again.",
    ),
    (
        r"permission denied|read-only file system|access is denied",
        "The packages could not be written. Move the course to a folder of your own and run this "
        "again.",
    ),
    (
        r"do not match the hashes|hash mismatch",
        "A package was damaged or changed on its way here. Run this again; if it comes back, try "
        "another network.",
    ),
    (
        r"certificate.verify.failed|invalid peer certificate|unknownissuer",
        "The network puts a certificate of its own in the way. Ask its keepers for the value of "
        "SSL_CERT_FILE, or try another network.",
    ),
    (
        NO_NETWORK,
        "The packages could not be fetched: no network, or one that keeps them out. Connect and "
        "run this again.",
    ),
    (
        r"no matching distribution|no solution found|could not find a version|no wheels",
        "A package is not to be had for this machine and Python "
        f"({platform.system()} {platform.machine()}, {platform.python_version()}). Use a 64-bit "
        "Python 3.11 to 3.14.",
    ),
)


class Trouble(Exception):
    """Something that the person at the keyboard can mend; the message is one plain line."""


# ── Speaking ────────────────────────────────────────────────────────────────────────────────────


class LiveLine:
    """A line that is rewritten in place on a terminal, and seldom repeated in a log file."""

    def __init__(self, every=20.0):
        self.live = sys.stdout.isatty()
        self.every = every
        self.last = time.monotonic()

    def show(self, text):
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write("\r" + text[:width].ljust(width))
            sys.stdout.flush()
        elif time.monotonic() - self.last > self.every:
            self.last = time.monotonic()
            print(text, flush=True)

    def clear(self):
        if self.live:
            sys.stdout.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
            sys.stdout.flush()


def mark(fine):
    """A tick or a cross, in letters where the terminal has neither."""
    try:
        "✓✗".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "ok  " if fine else "FAIL"
    return "✓" if fine else "✗"


def seconds(since):
    return f"{time.monotonic() - since:.0f} s"


def plain(error):
    """One line for an error of the operating system."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"This may not be written{where}. Close what is using it, or copy the course to a "
            "folder of your own, and run this again."
        )
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return f"The disk is full{where}. Free {INSTALL_GB} GB and run this again."
    return f"{error.strerror or error}{where}."


# ── The packages in .venv ───────────────────────────────────────────────────────────────────────


def check_python():
    """Refuse a Python that the locked packages do not serve."""
    if OLDEST <= sys.version_info[:2] < TOO_NEW:
        return
    for minor in range(TOO_NEW[1] - 1, OLDEST[1] - 1, -1):
        name = f"python3.{minor}"
        if works(name):
            mend = " ".join(["Run", name, "course.py", *sys.argv[1:], "instead."])
            break
    else:
        mend = "Install Python 3.13 from python.org or your system's packages and run this again."
    raise Trouble(
        f"This course needs Python 3.{OLDEST[1]} to 3.{TOO_NEW[1] - 1}, and this is Python "
        f"{platform.python_version()}. {mend}"
    )


def works(command):
    """Whether a program is there and starts (a shim of pyenv may be there and not start)."""
    if shutil.which(command) is None:
        return False
    try:
        done = subprocess.run(
            [command, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return False
    return done.returncode == 0


def venv_python():
    return VENV / ("Scripts/python.exe" if WINDOWS else "bin/python")


def site_packages():
    return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(VENV)}))


def base_python():
    """The Python to build on: never the one in .venv, which may be about to be replaced."""
    base = getattr(sys, "_base_executable", None)
    return base if base and Path(base).exists() else sys.executable


def wanted_stamp():
    """What .venv must hold: this lock, for this Python, on this kind of machine."""
    lock = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    major, minor = sys.version_info[:2]
    return f"{lock} python{major}.{minor} {sys.platform} {platform.machine()}"


def read_stamp(folder):
    """The stamp of an environment; None where this file did not make it."""
    try:
        return (folder / STAMP).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def is_whole(folder):
    """Whether an install came to its end there: the stamp then begins with a lock's digest."""
    return re.match("[0-9a-f]{64} ", read_stamp(folder) or "") is not None


def environment_state():
    """One of ready, stale, unfinished, missing and foreign."""
    stamp = read_stamp(VENV)
    if stamp is None:
        return "foreign" if VENV.is_dir() and any(VENV.iterdir()) else "missing"
    if not is_whole(VENV):
        return "unfinished"
    # A link to a Python that has since been removed does not exist.
    return "ready" if stamp == wanted_stamp() and venv_python().exists() else "stale"


def ensure_packages():
    """Install the locked packages, unless they are there."""
    wait_for_other_run()
    state = environment_state()
    if state == "ready":
        with contextlib.suppress(OSError):
            discard(SPARE)
        return
    if state == "foreign":
        raise Trouble(
            "The folder .venv was not made by course.py. Move it away or delete it, and run this "
            "again."
        )
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < INSTALL_GB:
        raise Trouble(
            f"The packages need {INSTALL_GB} GB and the disk has {free:.1f} GB left. Free some "
            "space and run this again."
        )
    with replaced_environment():
        install_packages()


def wait_for_other_run():
    """An install under way touches its stamp all the time; one that was cut off does not."""
    said = False
    with contextlib.suppress(FileNotFoundError):
        while environment_state() == "unfinished":
            if time.time() - (VENV / STAMP).stat().st_mtime > 5:
                return
            if not said:
                print("Another install is at work here, or was cut off: waiting …", flush=True)
                said = True
            time.sleep(0.5)


@contextlib.contextmanager
def replaced_environment():
    """An empty .venv to fill. Should that fail, the whole one that was there comes back.

    An environment cannot be built elsewhere and moved in (its scripts hold their own path), so the
    old one steps aside, and its stamp with it.
    """
    if is_whole(VENV):
        discard(SPARE)
        try:
            VENV.rename(SPARE)
        except PermissionError:
            if not WINDOWS:
                raise
            raise Trouble(
                "The packages must be renewed and are in use. Close JupyterLab and every terminal "
                "that uses .venv, and run this again."
            ) from None
    try:
        empty_environment()
        yield
        draft = VENV / (STAMP + ".draft")
        draft.write_text(wanted_stamp(), encoding="utf-8")
        os.replace(draft, VENV / STAMP)
    except BaseException:
        discard(VENV)
        if is_whole(SPARE):
            SPARE.rename(VENV)
        raise
    if SPARE.exists():
        print("Removing the packages that were there before.", flush=True)
        discard(SPARE)


def empty_environment():
    """A .venv that holds nothing but the word that it is unfinished."""
    discard(VENV)
    VENV.mkdir()
    (VENV / STAMP).write_text(UNFINISHED, encoding="utf-8")


def discard(folder):
    """Delete an environment; its stamp says `unfinished` from the first moment to the last."""
    if not folder.exists():
        return
    if read_stamp(folder) is not None:
        (folder / STAMP).write_text(UNFINISHED, encoding="utf-8")
    for attempt in range(4):
        # A scanner that looks into fresh files holds up their deletion on Windows.
        time.sleep(0.3 * attempt)
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=attempt < 3)
            elif path.name != STAMP:
                path.unlink()
        if {path.name for path in folder.iterdir()} <= {STAMP}:
            break
    with contextlib.suppress(FileNotFoundError):
        (folder / STAMP).unlink()
    folder.rmdir()


def install_packages():
    """Fill .venv with uv if it is there and can, else with venv and pip."""
    installers = [install_with_uv] if works("uv") else []
    installers += [install_with_pip] if has_module("ensurepip") else []
    if not installers:
        raise Trouble(
            "This Python cannot make environments (no ensurepip). On Debian and Ubuntu: "
            "sudo apt install python3-venv; elsewhere install Python from python.org. Then run "
            "this again."
        )
    start = time.monotonic()
    print(f"Installing the course's packages into {VENV} (once; a few minutes).", flush=True)
    if WHEELS.is_dir() and not wheels_fit():
        print(
            f"The packages of this bundle are for {', '.join(machines_served())}; this is "
            f"{this_machine()}, and needs a network.",
            flush=True,
        )
    for install in installers:
        output = install(start)
        if output is None:
            break
        if install is not installers[-1]:
            print(f"uv could not do it ({last_line(output)}); trying pip.", flush=True)
            empty_environment()
    else:
        raise Trouble(explain(output))
    finish_environment()
    print(f"{count_installed()} packages installed in {seconds(start)}.", flush=True)


def install_with_uv(start):
    """Returns None, or what uv said when it failed."""
    make = ["uv", "venv", "--quiet", "--allow-existing", "--no-project"]
    make += ["--python", base_python(), str(VENV)]
    fill = ["uv", "pip", "install", "--python", str(venv_python())]
    return run_installers(start, make, [*fill, *lock_options(LOCK), *wheel_options()])


def install_with_pip(start):
    """Returns None, or what venv or pip said when it failed."""
    make = [base_python(), "-m", "venv", str(VENV)]
    fill = [str(venv_python()), "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
    fill += ["--disable-pip-version-check", *lock_options(LOCK), *wheel_options()]
    return run_installers(start, make, fill)


def lock_options(lock):
    return ["--require-hashes", "--only-binary", ":all:", "-r", str(lock)]


def wheel_options():
    """What makes an installer take the packages that came with a bundle, and ask no network."""
    return ["--no-index", "--find-links", str(WHEELS)] if wheels_fit() else []


def wheels_fit():
    return this_machine() in machines_served()


def machines_served():
    """The machines that a bundle's packages are for; none where there is no bundle."""
    try:
        return (WHEELS / MACHINES).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def this_machine():
    major, minor = sys.version_info[:2]
    return f"python{major}.{minor} {platform.system()} {platform.machine()}"


def run_installers(start, *commands):
    """Run commands in turn with a live line; None, or the output of the one that failed."""
    for command in commands:
        code, output = run_quietly(command, start)
        if code:
            return output or f"{command[0]} ended with code {code}"
    return None


def run_quietly(command, start):
    """Run a command, keep its output, and say how far it is; its exit code and output."""
    lines, line = [], LiveLine()
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        # From anywhere else, uv would take up the settings of projects in the folders above.
        cwd=ROOT.anchor,
        env=course_environment(installing=True),
    )
    reader = threading.Thread(target=lambda: lines.extend(child.stdout), daemon=True)
    with stopped_at_last(child):
        reader.start()
        while child.poll() is None:
            with contextlib.suppress(FileNotFoundError):
                os.utime(VENV / STAMP)
            fetched = sum(text.startswith("Collecting ") for text in list(lines))
            done, total = max(fetched, count_installed()), count_locked()
            line.show(f"  {min(done, total)} of {total} packages, {seconds(start)}")
            time.sleep(0.25)
    reader.join()
    child.stdout.close()
    line.clear()
    return child.returncode, "".join(lines)


@contextlib.contextmanager
def stopped_at_last(child):
    """Leave no child behind, however this ends."""
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()


def count_installed():
    return sum(1 for _ in site_packages().glob("*.dist-info"))


def count_locked():
    """How many packages every machine gets; a few more depend on the system."""
    return len(re.findall(r"^\w\S+==\S+ \\$", LOCK.read_text(encoding="utf-8"), re.MULTILINE))


def has_module(name):
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def explain(output):
    """What an installer's output means, and the mend, in one line."""
    for pattern, message in INSTALL_TROUBLES:
        if re.search(pattern, output, re.IGNORECASE):
            return message
    return f"The packages could not be installed: {last_line(output)}"


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it gave no reason"


def finish_environment():
    """Let notebooks import `helpers`, and keep JupyterLab from asking about its news."""
    # Relative to the environment, so that the course's folder may move and be named in any script.
    (site_packages() / "course.pth").write_text(
        "import os, sys; sys.path.append(os.path.dirname(sys.prefix))\n", encoding="ascii"
    )
    settings = VENV / "share" / "jupyter" / "lab" / "settings"
    settings.mkdir(parents=True, exist_ok=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    overrides = {"@jupyterlab/apputils-extension:notification": quiet}
    (settings / "overrides.json").write_text(json.dumps(overrides), encoding="utf-8")


def course_environment(installing=False):
    """The environment variables for what runs in .venv."""
    env = {name: value for name, value in os.environ.items() if name.upper() not in NOT_OURS}
    env.update(
        PATH=os.pathsep.join([str(venv_python().parent), env.get("PATH", os.defpath)]),
        VIRTUAL_ENV=str(VENV),
        PYTHONNOUSERSITE="1",
        # The environment's own kernel comes before one of the same name in the home folder.
        JUPYTER_PREFER_ENV_PATH="1",
        # The course's matrices are small: threads only get in each other's way.
        OMP_NUM_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
        MKL_NUM_THREADS="1",
        VECLIB_MAXIMUM_THREADS="1",
    )
    if installing:
        env.update(
            PIP_USER="0",
            PIP_REQUIRE_VIRTUALENV="0",
            PYTHONUNBUFFERED="1",
            UV_PYTHON_DOWNLOADS="never",
        )
    elif os.access(VENV, os.W_OK):
        # A learner's start-up scripts and figure style would change what the notebooks show.
        env.update(IPYTHONDIR=str(VENV / "ipython"), MPLCONFIGDIR=str(VENV / "matplotlib"))
    return env


def run_in_venv(*arguments, cwd=None, **variables):
    """Run the Python of .venv; Ctrl-C is the child's to answer. Its exit code."""
    child = subprocess.Popen(
        [str(venv_python()), *map(str, arguments)],
        cwd=cwd and str(cwd),
        env={**course_environment(), **variables},
    )
    with stopped_at_last(child):
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                code = child.wait()
                return code if code >= 0 else 128 - code


# ── lab ─────────────────────────────────────────────────────────────────────────────────────────


def lab(arguments):
    """open the course in JupyterLab; the rest of the line goes to JupyterLab"""
    check_root(arguments)
    port = asked_port(arguments)
    if port is not None:
        check_port(port)
    ensure_packages()
    return run_in_venv("-m", "jupyterlab", *lab_arguments(arguments), cwd=ROOT)


def lab_arguments(arguments):
    """The first notebook, unless another is named, and settings that a learner's own may lack."""
    options = [f"--ServerApp.root_dir={ROOT}"]
    # Otherwise every kernel warns that others on this machine could read along.
    options.append("--MappingKernelManager.transport_encryption=auto")
    if asked_port(arguments) is not None:
        # JupyterLab would try the next ports without a word.
        options.append("--ServerApp.port_retries=0")
    if FIRST_NOTEBOOK.exists() and not any(text.endswith(".ipynb") for text in arguments):
        options.append(str(FIRST_NOTEBOOK))
    return [*options, *arguments]


def check_root(arguments):
    """JupyterLab's own refusal is a page long."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if is_root and not any("allow-root" in text or "allow_root" in text for text in arguments):
        raise Trouble(
            "JupyterLab does not run as root. Use your own account, or, in a container, add "
            "--allow-root."
        )


def asked_port(arguments):
    """The port that was asked for in so many words, or None."""
    line = "\n".join(arguments)
    found = re.findall(r"^--(?:port|(?:Server|Lab)App\.port)[=\n](\d+)$", line, re.MULTILINE)
    return int(found[-1]) if found else None


def check_port(port):
    """Refuse a port that another program listens on."""
    if not 0 <= port <= 65535:
        raise Trouble(f"There is no port {port}. Ask for one between 1024 and 65535.")
    for family, kind, protocol, _, address in socket.getaddrinfo(
        "localhost", port, type=socket.SOCK_STREAM
    ):
        with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
            if not WINDOWS:
                # As JupyterLab itself does: a port that was free a moment ago is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    raise Trouble(
                        f"Port {port} is taken. Ask for another, or leave --port out and "
                        "JupyterLab finds a free one."
                    ) from None
                raise


# ── test ────────────────────────────────────────────────────────────────────────────────────────


def test(arguments):
    """run every test and every notebook; the rest of the line goes to pytest"""
    ensure_packages()
    return run_in_venv("-m", "pytest", *pytest_arguments(arguments), cwd=ROOT, **NOBODY)


def pytest_arguments(arguments):
    """Tests and notebooks in parallel, a notebook being the smallest part; asked paths, or all."""
    options = ["-n", str(min(8, os.cpu_count() or 1)), "--dist", "loadscope"]
    options += ["--nbval", f"--nbval-cell-timeout={CELL_SECONDS}"]
    options += ["--nbval-sanitize-with", "tests/nbval.cfg"]
    asked = any((ROOT / text.split("::")[0]).exists() for text in arguments if text[:1] != "-")
    # Workers that are given a folder which is not there run nothing and do not say so.
    everything = [name for name in ("tests", "notebooks") if (ROOT / name).is_dir()]
    return [*options, *arguments, *([] if asked else everything)]


# ── render ──────────────────────────────────────────────────────────────────────────────────────


def render(arguments):
    """run notebooks and store what they show: all, or those named (04, a path)"""
    ensure_packages()
    return run_in_venv(__file__, "--inside", "render", *arguments, **NOBODY)


def render_inside(arguments):
    """Run notebooks in place and make exercises/ from solutions/.

    Sources are kept as they are. A notebook is written only when all of it ran, and not if it was
    saved by someone else meanwhile; an exercise notebook that holds answers is left alone.
    """
    parser = argparse.ArgumentParser(prog="course.py render", description=render.__doc__)
    parser.add_argument("names", nargs="*", help="a number (04) or a path; none means all")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--force", action="store_true", help="overwrite answered exercises")
    options = parser.parse_args(arguments)
    wanted, failed = [], False
    for source, target in plan(options.names):
        if source != target and not options.force and is_answered(target):
            print(
                f"{mark(False)} {shown(target)} holds answers and is left as it is. To start it "
                f"afresh: python3 course.py render --force {shown(target)}"
            )
            failed = True
        else:
            wanted.append((source, target))
    return int(render_all(wanted, max(1, options.jobs)) or failed)


def plan(names):
    """Pairs (source, target): lessons and solutions in place, exercises from solutions."""
    lessons = sorted(NOTEBOOKS.glob("*.ipynb"))
    solutions = sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))
    exercises = [(path, NOTEBOOKS / "exercises" / path.name) for path in solutions]
    everything = [(path, path) for path in [*lessons, *solutions]] + exercises
    if not names:
        return everything
    chosen = []
    for name in names:
        found = [pair for pair in everything if is_named(pair[1], name)]
        if not found:
            raise Trouble(f"No notebook is named {name}. Give a number such as 04, or a path.")
        chosen += [pair for pair in found if pair not in chosen]
    return chosen


def is_named(path, name):
    if name.endswith(".ipynb"):
        return path in (Path(name).resolve(), (ROOT / name).resolve())
    return path.name.startswith(name)


def shown(path):
    try:
        return path.relative_to(ROOT).as_posix()
    except ValueError:
        return str(path)


def render_all(pairs, jobs):
    """Render pairs in parallel, a line each; True if one failed."""
    from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

    line, state, failed = LiveLine(), {"running": {}, "stop": False}, False
    with ThreadPoolExecutor(jobs) as pool:
        left = {pool.submit(render_one, *pair, state) for pair in pairs}
        try:
            while left:
                done, left = wait(left, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    line.clear()
                    fine, text = future.result()
                    print(mark(fine), text, flush=True)
                    failed = failed or not fine
                line.show("  " + "  ".join(how_far(state)))
        except BaseException:
            state["stop"] = True
            for future in left:
                future.cancel()
            for client, _ in list(state["running"].values()):
                stop_kernel(client)
            raise
        finally:
            line.clear()
    return failed


def how_far(state):
    """The live line: each running notebook with its cell and seconds."""
    for name, (client, start) in list(state["running"].items()):
        yield f"{name} {client.course_cell}/{len(client.nb.cells)} {seconds(start)}"


def stop_kernel(client):
    process = client.km and client.km.provisioner and client.km.provisioner.process
    if process:
        process.kill()


def render_one(source, target, state):
    """Render one notebook; whether that went well, and the line that says so."""
    import nbformat

    start = time.monotonic()
    before = target.read_bytes() if target.exists() else None
    try:
        notebook = nbformat.reads(source.read_text(encoding="utf-8"), as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        return False, f"{shown(source)} is not a notebook: {first_line(error)}"
    if source != target:
        notebook = exercise_from(notebook)
    notebook = prepared(notebook)
    if target.parent == NOTEBOOKS:
        from workshop.slides import mark

        mark(notebook)
    problem = execute(notebook, target, state)
    if problem:
        return False, f"{shown(target)}, {problem}; the file is left as it was"
    after = notebook_bytes(notebook)
    if after == before:
        return True, f"{shown(target)}: unchanged, {seconds(start)}"
    if before != (target.read_bytes() if target.exists() else None):
        return False, f"{shown(target)} was saved by another program meanwhile and is left as it is"
    write_whole(target, after)
    return True, f"{shown(target)}: {len(notebook.cells)} cells, {seconds(start)}"


def prepared(notebook):
    """The notebook without what a run adds, and with what must not vary: ids and metadata."""
    course = notebook.metadata.get("course")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata.clear()
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata["language_info"] = {"name": "python"}
    if course:
        notebook.metadata["course"] = course
    for number, cell in enumerate(notebook.cells, 1):
        cell["id"] = f"cell-{number:02d}"
        for name in ("execution", "ExecuteTime", "collapsed", "scrolled"):
            cell.metadata.pop(name, None)
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    return notebook


def execute(notebook, target, state):
    """Run all cells in place and keep what can be stored; None, or what went wrong and where."""
    metadata = {key: dict(value) for key, value in notebook.metadata.items()}
    problem = run_cells(notebook, target, state)
    if problem:
        return problem
    notebook.metadata.clear()
    notebook.metadata.update(metadata)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = settled(cell.outputs)
    return None


def run_cells(notebook, target, state):
    """Run all cells in place, widgets and all; None, or what went wrong and where."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    def started(cell, cell_index):
        client.course_cell = cell_index + 1
        if state["stop"]:
            raise RuntimeError("stopped")

    # An exercise may be the first in its folder.
    target.parent.mkdir(parents=True, exist_ok=True)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_SECONDS,
        record_timing=False,
        on_cell_start=started,
        resources={"metadata": {"path": str(target.parent)}},
    )
    client.course_cell = 0
    state["running"][shown(target)] = (client, time.monotonic())
    try:
        client.execute(transport_encryption="auto")
    except CellExecutionError as error:
        return f"{where(client)}: {error.ename}: {first_line(error.evalue)}"
    except Exception as error:
        return f"{where(client)}: {type(error).__name__}: {first_line(error)}"
    finally:
        del state["running"][shown(target)]
    return None


def where(client):
    """The cell that is at work, by its number and first line."""
    if not client.course_cell:
        return "before its first cell"
    source = client.nb.cells[client.course_cell - 1].source
    return f"cell {client.course_cell} ({first_line(source)[:50]})"


def first_line(text):
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[0] if lines else "no message"


def settled(outputs):
    """Outputs in a form that does not depend on timing and needs no kernel.

    Neighbouring pieces of text join, standard output before warnings; a live widget goes (its
    identity is new in every run, and without a kernel it is a blank).
    """
    result, streams = [], {}
    for output in outputs:
        if output["output_type"] == "stream":
            if not streams:
                place = len(result)
            streams.setdefault(output["name"], dict(output, text=""))["text"] += output["text"]
            ordered = [streams[name] for name in ("stdout", "stderr") if name in streams]
            result[place:] = ordered
            continue
        streams = {}
        if "application/vnd.jupyter.widget-view+json" not in output.get("data", {}):
            result.append(output)
    return result


def notebook_bytes(notebook):
    import nbformat

    return (nbformat.writes(nbformat.from_dict(notebook)).rstrip("\n") + "\n").encode("utf-8")


def write_whole(target, content):
    """Put the content there in one step: never half a notebook."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.draft")
    try:
        draft.write_bytes(content)
        os.replace(draft, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()


# Exercises: a cell tagged `solution` becomes a place to answer in. Nothing but the tag decides.


def exercise_from(notebook):
    """The notebook of the exercises: the solution cells emptied, the rest as it is.

    A code cell becomes a comment and, for each name or function that it defines and that a later
    cell (not itself a solution) uses, `name = ...` or the function with an empty body, so that
    checks further down run and say what is missing. A text cell becomes an invitation. The tag
    `solution` becomes `answer`. The notebook remembers what it was made as, so that answers are
    never overwritten.
    """
    cells = notebook.cells
    for number, cell in enumerate(cells):
        tags = cell.metadata.get("tags", [])
        if "solution" not in tags:
            continue
        later = [
            other.source
            for other in cells[number + 1 :]
            if other.cell_type == "code" and "solution" not in other.metadata.get("tags", [])
        ]
        is_code = cell.cell_type == "code"
        cell.source = stub(cell.source, later) if is_code else "*Your answer here.*"
        cell.metadata["tags"] = ["answer" if tag == "solution" else tag for tag in tags]
    notebook.metadata["course"] = {"made_as": fingerprint(notebook)}
    return notebook


def stub(source, later):
    """An empty answer that still defines the names used in the later sources."""
    used = set().union(*map(names_read, later))
    lines = {}
    for node in ast.parse(source).body:
        for name in names_bound(node):
            if name in used:
                lines.setdefault(name, f"{name} = ...")
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in used:
            lines[node.name] = empty_function(node)
    return "\n".join(["# Your answer here", *lines.values()])


def names_read(source):
    """The names that a cell reads; every word of it where it is not plain Python (`%magic`)."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set(re.findall(r"[^\W\d]\w*", source))
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def names_bound(node):
    """The simple names that a statement assigns, `a, b = …` and `with … as c` included."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return []
    return [
        part.id
        for part in ast.walk(node)
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
    ]


def empty_function(node):
    """The function with its signature and docstring and nothing else."""
    documented = ast.get_docstring(node) is not None
    node.body = [*node.body[: int(documented)], ast.Expr(ast.Constant(...))]
    return ast.unparse(ast.fix_missing_locations(node))


def fingerprint(notebook):
    """A digest of what a learner can edit: the cells' kinds and sources."""
    cells = [[cell["cell_type"], "".join(cell["source"])] for cell in notebook["cells"]]
    return hashlib.sha256(json.dumps(cells).encode("ascii")).hexdigest()


def is_answered(path):
    """Whether an exercise notebook differs from what it was made as; unreadable counts as yes."""
    if not path.exists():
        return False
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        return notebook["metadata"]["course"]["made_as"] != fingerprint(notebook)
    except (ValueError, KeyError, TypeError):
        return True


# ── site ────────────────────────────────────────────────────────────────────────────────────────


def site(arguments):
    """build the course as web pages in _site; --serve shows them on this machine"""
    parser = argparse.ArgumentParser(prog="course.py site", description=site.__doc__)
    parser.add_argument("--serve", action="store_true", help="show the pages until Ctrl-C")
    parser.add_argument("--port", type=int, default=0, help="where; any free port without it")
    parser.add_argument("--links", action="store_true", help="try the links that lead elsewhere")
    parser.add_argument("--lite", action="store_true", help="add a JupyterLab in the browser")
    parser.add_argument("--out", default=str(SITE), help="the folder to build into")
    options = parser.parse_args(arguments)
    ensure_packages()
    ensure_site_packages()
    builder = ROOT / "site" / "build.py"
    code = run_in_venv(builder, "--out", options.out, cwd=ROOT, **NOBODY)
    if options.lite and not code:
        command = [str(lite_python()), str(ROOT / "site" / "lite.py"), options.out]
        code = subprocess.run(command, env=course_environment()).returncode
    if options.links and not code:
        code = run_in_venv(ROOT / "site" / "audit.py", options.out, cwd=ROOT)
    if options.serve and not code:
        serve(options.out, options.port)
    return code


def ensure_site_packages():
    add_packages(SITE_LOCK, SITE_STAMP, "what builds the site")


def add_packages(lock, stamp_name, what):
    """Add packages to .venv for one command; the versions agree with those of the course's lock."""
    stamp = VENV / stamp_name
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="ascii") == wanted:
        return
    print(f"Installing {what} (once; a minute).", flush=True)
    fill = ["uv", "pip", "install", "--python", str(venv_python())]
    if not works("uv"):
        fill = [str(venv_python()), "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
        fill.append("--disable-pip-version-check")
    output = run_installers(time.monotonic(), [*fill, *lock_options(lock)])
    if output and "No module named pip" in output:
        raise Trouble("The packages were installed by uv, which is gone. Install uv and try again.")
    if output:
        raise Trouble(explain(output))
    stamp.write_text(wanted, encoding="ascii")


def lite_python():
    """The Python that builds the JupyterLab in the browser, in an environment of its own.

    Its extension is not one that the JupyterLab of the course should load.
    """
    python = LITE_VENV / ("Scripts/python.exe" if WINDOWS else "bin/python")
    stamp = LITE_VENV / SITE_STAMP
    wanted = hashlib.sha256(LITE_LOCK.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="ascii") == wanted:
        return python
    print("Installing what builds JupyterLite (once; a minute).", flush=True)
    make = [base_python(), "-m", "venv", "--clear", str(LITE_VENV)]
    fill = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    if works("uv"):
        make = ["uv", "venv", "--quiet", "--clear", "--no-project", "--python", base_python()]
        make.append(str(LITE_VENV))
        fill = ["uv", "pip", "install", "--python", str(python)]
    output = run_installers(time.monotonic(), make, [*fill, *lock_options(LITE_LOCK)])
    if output:
        raise Trouble(explain(output))
    stamp.write_text(wanted, encoding="ascii")
    return python


def serve(folder, port):
    """Show a folder to this machine's browsers until Ctrl-C."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Pages(SimpleHTTPRequestHandler):
        def log_message(self, *ignored):
            """No line for each file."""

    if port:
        check_port(port)
    with ThreadingHTTPServer(("127.0.0.1", port), partial(Pages, directory=folder)) as server:
        print(f"http://localhost:{server.server_port}/ (end with Ctrl-C)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


# ── slides ──────────────────────────────────────────────────────────────────────────────────────


def slides(arguments):
    """make slides of lessons, all or those named (04), in dist/slides or --out"""
    ensure_packages()
    return run_in_venv(ROOT / "workshop" / "deck.py", *arguments, cwd=ROOT, **NOBODY)


# ── bench ───────────────────────────────────────────────────────────────────────────────────────


def bench(arguments):
    """measure the engine beside other fitters; --quick is short, --out names the copy's file"""
    ensure_packages()
    return run_in_venv(ROOT / "tests" / "bench.py", *arguments)


# ── For a workshop ──────────────────────────────────────────────────────────────────────────────


def bundle(arguments):
    """pack the course and its packages in a zip, for machines without a network"""
    ensure_packages()
    return run_in_venv(ROOT / "workshop" / "bundle.py", *arguments)


def classroom(arguments):
    """serve the course to a room of browsers (JupyterHub), until Ctrl-C"""
    if WINDOWS:
        raise Trouble("JupyterHub does not run on Windows. Use Linux, macOS or WSL.")
    parser = argparse.ArgumentParser(prog="course.py classroom", description=classroom.__doc__)
    parser.add_argument("--password", help="what learners type; made up and shown without it")
    parser.add_argument("--port", type=int, default=8000, help="where (8000)")
    parser.add_argument("--local", action="store_true", help="serve this machine's browsers only")
    parser.add_argument("--folder", default=str(CLASSROOM), help="where learners' files are kept")
    parser.add_argument("--allow-root", action="store_true", help="in a container")
    options = parser.parse_args(arguments)
    check_root(arguments)
    ensure_packages()
    add_packages(CLASSROOM_LOCK, CLASSROOM_STAMP, "what serves a classroom")
    # Not handed on along command lines, which every account of this machine can read.
    settings = {"COURSE_CLASSROOM": json.dumps(vars(options))}
    return run_in_venv(ROOT / "workshop" / "classroom.py", **settings)


# ── doctor ──────────────────────────────────────────────────────────────────────────────────────


def doctor(arguments):
    """say whether this machine will do; --workshop: in one line, to send to a teacher"""
    if arguments == ["--workshop"]:
        return doctor_in_a_line()
    if arguments:
        raise Trouble(f"doctor takes --workshop or nothing (given: {' '.join(arguments)}).")
    state = environment_state()
    bad = report(outside_checks(state))
    if can_look_inside(state):
        bad += run_in_venv(__file__, "--inside", "doctor")
    else:
        bad += report([check_installer, check_network])
    if bad:
        print(f"This machine is not ready: {bad} check{'s' * (bad > 1)} failed.")
    else:
        print("This machine is ready for the course.")
    return int(bad > 0)


def outside_checks(state):
    return [check_interpreter, check_disk, lambda: check_packages_made(state)]


def can_look_inside(state):
    return state in ("ready", "stale") and venv_python().exists()


def inside_checks():
    """The checks that need the packages."""
    ran = {}
    return [
        check_versions,
        check_data,
        lambda: check_kernel(ran),
        lambda: check_figure(ran),
        lambda: check_widget(ran),
    ]


def doctor_inside(arguments):
    """Run those checks; returns how many failed, or prints everything for doctor_in_a_line."""
    if not arguments:
        return report(inside_checks())
    print(json.dumps([list(examine(inside_checks())), installed_versions()]))
    return 0


def doctor_in_a_line():
    """One line without names or paths of the person's: the verdict, the machine, the versions."""
    state, versions = environment_state(), {}
    results = list(examine(outside_checks(state)))
    if can_look_inside(state):
        command = [
            str(venv_python()),
            str(Path(__file__).resolve()),
            "--inside",
            "doctor",
            "--json",
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, env=course_environment())
        try:
            more, versions = json.loads(done.stdout.decode("utf-8").splitlines()[-1])
        except (ValueError, IndexError):
            more = [[False, "packages: they do not start"]]
        results += more
    else:
        results += examine([check_installer, check_network])
    # Only the word before the colon: what follows may name a folder, and so a person.
    failed = list(dict.fromkeys(text.split(":")[0] for fine, text in results if not fine))
    verdict = f"FAILED ({', '.join(failed)})" if failed else "ok"
    shown_versions = [f"{name} {number}" for name, number in versions.items()]
    facts = [
        f"course {hashlib.sha256(LOCK.read_bytes()).hexdigest()[:8]}",
        f"Python {platform.python_version()}",
        f"{platform.system()} {platform.release()} {platform.machine()}",
        f"{shutil.disk_usage(ROOT).free / 1e9:.0f} GB free",
        " ".join(shown_versions) or "no packages",
    ]
    print(" | ".join([f"workshop: {verdict}", *facts]))
    return int(bool(failed))


def installed_versions():
    from importlib.metadata import version

    return {name: version(name) for name in ("jupyterlab", "numpy", "statsmodels")}


def report(checks):
    """Print a line for each check; the number of failures."""
    bad = 0
    for fine, text in examine(checks):
        print(mark(fine), text, flush=True)
        bad += not fine
    return bad


def examine(checks):
    """For each check, whether all is fine and a text; a check that breaks is one that fails."""
    for check in checks:
        try:
            yield check()
        except Exception as error:
            name = getattr(check, "__name__", "check")
            yield False, f"{name}: {type(error).__name__}: {first_line(error)}"


def check_interpreter():
    return True, f"Python {platform.python_version()} ({platform.system()} {platform.machine()})"


def check_disk():
    need = 0.2 if environment_state() == "ready" else INSTALL_GB
    free = shutil.disk_usage(ROOT).free / 1e9
    return free >= need, f"disk: {free:.1f} GB free, {need} GB needed"


def check_packages_made(state):
    texts = {
        "ready": "packages: installed",
        "stale": "packages: another version of the course's; python3 course.py lab renews them",
        "foreign": "packages: .venv was not made by course.py; move it away",
    }
    missing = "packages: not installed yet; python3 course.py lab installs them"
    return state == "ready", texts.get(state, missing)


def check_installer():
    if works("uv"):
        return True, "installer: uv"
    if has_module("ensurepip"):
        return True, "installer: venv and pip"
    return False, "installer: none; on Debian and Ubuntu: sudo apt install python3-venv"


def check_network():
    """Fetch one package of the lock into a passing folder, as the install would."""
    first = re.match(r"(?:.*\\\n)*.*\n", LOCK.read_text(encoding="utf-8")).group()
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder, "first.txt")
        lock.write_text(first, encoding="utf-8")
        if works("uv"):
            fetch = ["uv", "pip", "install", "--target", str(Path(folder, "there"))]
            fetch += ["--python", base_python()]
        else:
            fetch = [base_python(), "-m", "pip", "download", "--dest", folder]
        fetch += ["--no-deps", *lock_options(lock), *wheel_options()]
        code, output = run_quietly(fetch, time.monotonic())
    if "No module named pip" in output:
        return True, "network: not checked (this Python has no pip before the install)"
    if code:
        return False, f"network: {explain(output)}"
    came_along = "wheels: the packages came with the course, no network is needed"
    return True, came_along if wheels_fit() else "network: packages can be fetched"


def check_versions():
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import Requirement

    wrong, count = [], 0
    for text in re.findall(r"^(\w.*?) \\$", LOCK.read_text(encoding="utf-8"), re.MULTILINE):
        locked = Requirement(text)
        if locked.marker and not locked.marker.evaluate():
            continue
        count += 1
        try:
            if not locked.specifier.contains(version(locked.name), prereleases=True):
                wrong.append(f"{locked.name} {version(locked.name)}, not {locked.specifier}")
        except PackageNotFoundError:
            wrong.append(f"{locked.name} is missing")
    if wrong:
        mend = "delete .venv and run python3 course.py lab"
        return False, f"packages: {'; '.join(wrong[:3])} ({len(wrong)} in all); {mend}"
    return True, f"packages: {count} at their locked versions"


def check_data():
    from helpers import datasets

    names = list(datasets.names())
    for name in names:
        datasets.load(name)
    return True, f"data: {len(names)} files match their checksums"


KERNEL_CELLS = (
    "1 + 1",
    "import matplotlib.pyplot as plt\nplt.plot([0, 1])\nplt.show()",
    "import ipywidgets\nipywidgets.IntSlider(value=3)",
)


def check_kernel(ran):
    """Run the three cells in a real kernel and keep what came of it for the checks that follow."""
    import nbformat
    from nbclient import NotebookClient

    start = time.monotonic()
    cells = [nbformat.v4.new_code_cell(source) for source in KERNEL_CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(notebook, kernel_name="python3", allow_errors=True)
    client.execute(transport_encryption="auto")
    ran["data"] = [
        {kind: value for output in cell.outputs for kind, value in output.get("data", {}).items()}
        for cell in notebook.cells
    ]
    ran["widgets"] = client.widget_state
    fine = ran["data"][0].get("text/plain") == "2"
    return fine, f"kernel: starts and computes ({seconds(start)})"


def check_figure(ran):
    fine = bool(ran.get("data")) and "image/png" in ran["data"][1]
    return fine, "figure: draws" if fine else "figure: none came back from the kernel"


def check_widget(ran):
    view = ran["data"][2] if ran.get("data") else {}
    model = view.get("application/vnd.jupyter.widget-view+json", {}).get("model_id")
    fine = ran.get("widgets", {}).get(model, {}).get("value") == 3
    return fine, "widget: a slider renders" if fine else "widget: none came back from the kernel"


# ── The command line ────────────────────────────────────────────────────────────────────────────

COMMANDS = {
    command.__name__: command
    for command in (lab, test, render, site, slides, bench, bundle, classroom, doctor)
}
INSIDE = {"render": render_inside, "doctor": doctor_inside}


def usage():
    lines = ["usage: python3 course.py <command> …", ""]
    lines += [f"  {name:10}{command.__doc__}" for name, command in COMMANDS.items()]
    return "\n".join(lines)


def run(arguments):
    """Find the command and run it; its exit code."""
    check_python()
    if arguments[:1] == ["--inside"]:
        return INSIDE[arguments[1]](arguments[2:])
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] not in COMMANDS:
        raise Trouble(f"There is no command {arguments[0]}. There are: {', '.join(COMMANDS)}.")
    return COMMANDS[arguments[0]](arguments[1:])


def main(arguments):
    """Run a command; what a person can mend is one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        return run(arguments)
    except Trouble as trouble:
        print(trouble, file=sys.stderr)
    except KeyboardInterrupt:
        print("Stopped. Nothing half-made is left behind.", file=sys.stderr)
        return 130
    except OSError as error:
        print(plain(error), file=sys.stderr)
    return 1


if __name__ == "__main__":
    # Told to end from outside, it must tidy up too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
