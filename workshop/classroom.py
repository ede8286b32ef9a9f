"""Serve the course to a classroom: `python3 course.py classroom` runs this.

Three kinds of processes: the proxy, which all browsers talk to; the hub, which lets learners in;
and a server for each learner, started by the hub. This one starts the first two and starts either
again should it end. The proxy and the learners' servers need no hub to go on working, so nobody in
the room notices that it was away.

All that must outlive a restart lies in one folder: learners' files, who they are, the secrets.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import copies

import course

WORKSHOP = course.ROOT / "workshop"
PROXY = course.ROOT / "dist" / "proxy"
MARK = "COURSE_CLASSROOM_FOLDER"
SHORTEST_PASSWORD = 8
# Without letters that look alike on a projector.
LETTERS = "abcdefghjkmnpqrstuvwxyz"
STOP_SECONDS = 60
MOST_RESTARTS, WITHIN_SECONDS = 5, 60


# ── What is kept ────────────────────────────────────────────────────────────────────────────────


def prepare_folder(folder):
    """Make the classroom's folder, for this account alone and out of git's sight."""
    folder.chmod(0o700)
    (folder / ".gitignore").write_text("*\n", encoding="ascii")
    copies.make_template(course.ROOT, folder / "template")
    (folder / "learners").mkdir(exist_ok=True)


@contextlib.contextmanager
def only_one(folder):
    """Refuse a second classroom in the same folder, and end what a killed one left running."""
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise course.Trouble(
                f"A classroom is open with {course.shown(folder)} already. End it with Ctrl-C, or "
                "name another --folder."
            ) from None
        left = processes_of(folder)
        if left:
            print("The last classroom here was cut off; ending what it left running.", flush=True)
            end(left)
        yield


def processes_of(folder):
    """The processes of this classroom, found by the mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK) == str(folder):
                found.append(process)
    return found


def end(processes):
    """Ask processes to end, and make those that do not."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, stubborn = psutil.wait_procs(processes, timeout=10)
    for process in stubborn:
        with contextlib.suppress(psutil.Error):
            process.kill()


def kept(path, make):
    """The text of a file that only this account may read, made when it is missing."""
    if not path.exists():
        draft = path.with_name(f"{path.name}.draft")
        draft.touch(mode=0o600)
        draft.write_text(make(), encoding="utf-8")
        os.replace(draft, path)
    return path.read_text(encoding="utf-8")


def password(folder, asked):
    """The password that was asked for; else the one of last time; else a new one."""
    path = folder / "password"
    if asked is not None:
        if len(asked) < SHORTEST_PASSWORD:
            raise course.Trouble(
                f"The password is too short. Give one of {SHORTEST_PASSWORD} characters or more."
            )
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return kept(path, lambda: asked)
    return kept(path, made_up)


def made_up():
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(3))


def inner_ports(folder):
    """Ports of the hub and of the proxy's own door, the same at each start where they are free."""

    def made():
        with socket.socket() as one, socket.socket() as two:
            for probe in (one, two):
                probe.bind(("127.0.0.1", 0))
            return json.dumps([probe.getsockname()[1] for probe in (one, two)])

    path = folder / "ports"
    ports = json.loads(kept(path, made))
    try:
        for port in ports:
            course.check_port(port)
    except course.Trouble:
        path.unlink()
        ports = json.loads(kept(path, made))
    return ports


# ── The proxy's program ─────────────────────────────────────────────────────────────────────────


def ensure_proxy():
    """The proxy's program, fetched from npm by the checksums of its lock unless it is there."""
    lock = WORKSHOP / "proxy" / "package-lock.json"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    stamp = PROXY / "stamp.txt"
    if not course.works("node"):
        raise course.Trouble(
            "The classroom's proxy needs Node.js 20 or newer. Install it and run this again."
        )
    if not stamp.exists() or stamp.read_text(encoding="ascii") != wanted:
        if not course.works("npm"):
            raise course.Trouble("The proxy comes from npm. Install npm and run this again.")
        print("Fetching the proxy from npm (once).", flush=True)
        fetch_proxy(lock, wanted)
    return PROXY / "node_modules" / "configurable-http-proxy" / "bin" / "configurable-http-proxy"


def fetch_proxy(lock, wanted):
    draft = PROXY.with_name(f"{PROXY.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for path in (lock, lock.with_name("package.json")):
        shutil.copy2(path, draft)
    command = [shutil.which("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=draft, capture_output=True, text=True, errors="replace")
    if done.returncode:
        reasons = re.findall(r"npm (?:error|ERR!) (.+)", done.stderr) or ["it gave no reason"]
        raise course.Trouble(f"npm could not fetch the proxy: {reasons[0]}")
    (draft / "stamp.txt").write_text(wanted, encoding="ascii")
    shutil.rmtree(PROXY, ignore_errors=True)
    draft.rename(PROXY)


# ── Hub and proxy ───────────────────────────────────────────────────────────────────────────────


class Classroom:
    """The two processes that are kept alive, and what they are started with."""

    def __init__(self, folder, options):
        self.proxy_program = ensure_proxy()
        self.folder, self.port = folder, options["port"]
        self.address = "127.0.0.1" if options["local"] else ""
        self.hub_port, self.api_port = inner_ports(folder)
        self.token = kept(folder / "proxy-token", lambda: secrets.token_hex(32))
        # Short, since the paths of sockets may have a hundred letters and no more.
        self.sockets = Path(tempfile.mkdtemp(prefix="class-", dir="/tmp"))
        self.settings = {
            "folder": str(folder),
            "sockets": str(self.sockets),
            "hub_port": self.hub_port,
            "api_port": self.api_port,
            "port": self.port,
            "password": password(folder, options["password"]),
        }
        self.running, self.ended = {}, []

    def start(self, name):
        command = {"proxy": self.proxy_command, "hub": self.hub_command}[name]()
        environment = {
            **os.environ,
            MARK: str(self.folder),
            "CONFIGPROXY_AUTH_TOKEN": self.token,
            "COURSE_CLASSROOM": json.dumps(self.settings),
        }
        with open(self.folder / f"{name}.log", "ab") as log:
            self.running[name] = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for this process alone, which ends the others in order.
                start_new_session=True,
            )

    def proxy_command(self):
        hub = f"http://127.0.0.1:{self.hub_port}"
        command = [shutil.which("node"), str(self.proxy_program)]
        command += ["--ip", self.address, "--port", str(self.port)]
        command += ["--api-ip", "127.0.0.1", "--api-port", str(self.api_port)]
        return [*command, "--default-target", hub, "--error-target", f"{hub}/hub/error"]

    def hub_command(self):
        return [sys.executable, "-m", "jupyterhub", "-f", str(WORKSHOP / "jupyterhub_config.py")]

    def wait_until_open(self, limit=90):
        """Until the login page comes through the proxy."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            self.revive()
            with contextlib.suppress(OSError):
                page = f"http://127.0.0.1:{self.port}/hub/health"
                with urllib.request.urlopen(page, timeout=5):
                    return
            time.sleep(0.2)
        raise course.Trouble(f"The hub does not answer. Its log is {self.folder / 'hub.log'}.")

    def announce(self, where):
        print(f"The classroom is open: {' or '.join(where)}")
        print(f"Password: {self.settings['password']}")
        learners = course.shown(self.folder / "learners")
        print(f"Learners' files: {learners}. End with Ctrl-C.", flush=True)

    def revive(self):
        """Start again what has ended; give up when that happens over and over."""
        for name, process in list(self.running.items()):
            if process.poll() is None:
                continue
            now = time.monotonic()
            self.ended = [then for then in self.ended if now - then < WITHIN_SECONDS] + [now]
            log = self.folder / f"{name}.log"
            if len(self.ended) > MOST_RESTARTS:
                last = course.last_line(log.read_text(encoding="utf-8", errors="replace"))
                raise course.Trouble(f"The {name} ends each time it is started: {last} ({log})")
            print(f"The {name} ended (code {process.returncode}); starting it again.", flush=True)
            self.start(name)

    def stop(self):
        """End the hub, which ends the learners' servers, then the proxy, then what may be left."""
        for name in ("hub", "proxy"):
            process = self.running.get(name)
            if process is None:
                continue
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        end(processes_of(self.folder))
        shutil.rmtree(self.sockets, ignore_errors=True)


def addresses(port, local):
    """Where browsers find the classroom."""
    found = [f"http://localhost:{port}/"]
    if not local:
        with contextlib.suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as probe:
            # Nothing is sent: this asks which of this machine's addresses leads outward.
            probe.connect(("192.0.2.1", 9))
            found.insert(0, f"http://{probe.getsockname()[0]}:{port}/")
    return found


def serve(options):
    folder = Path(options["folder"]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder):
        check_free(options["port"])
        prepare_folder(folder)
        classroom = Classroom(folder, options)
        warm_up()
        try:
            classroom.start("proxy")
            classroom.start("hub")
            classroom.wait_until_open()
            classroom.announce(addresses(options["port"], options["local"]))
            while True:
                time.sleep(0.5)
                classroom.revive()
        finally:
            # A second Ctrl-C must not leave half of it running.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            print("Closing the classroom …", flush=True)
            classroom.stop()
            print("Closed. Learners' files are kept.", flush=True)


def check_free(port):
    if not 1 <= port <= 65535:
        raise course.Trouble(f"There is no port {port}. Ask for one between 1024 and 65535.")
    try:
        course.check_port(port)
    except course.Trouble:
        raise course.Trouble(f"Port {port} is taken. Ask for another with --port.") from None


def warm_up():
    """Let Matplotlib list this machine's fonts once, and not in thirty kernels at a time."""
    subprocess.run([sys.executable, "-c", "import matplotlib.pyplot"], stdout=subprocess.DEVNULL)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        serve(json.loads(os.environ.pop("COURSE_CLASSROOM")))
    except course.Trouble as trouble:
        print(trouble, file=sys.stderr)
    except OSError as error:
        print(course.plain(error), file=sys.stderr)
    except KeyboardInterrupt:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
