"""A classroom of simulated learners at the real hub, who all run a lesson within the same minutes.

    .venv/bin/python workshop/load_test.py --learners 30 --minutes 6

opens a classroom of its own (another port, a passing folder). Each learner logs in over HTTP, opens
the lesson, runs its cells one after the other with a pause as a reader makes one, compares what
comes back with the outputs that are stored, and saves a note of their own. When half of all cells
have run, the hub is killed without warning. At the end nobody's session may be lost, no output may
be wrong, every kernel must be the one it was, and each note must be in its file.
"""

import argparse
import contextlib
import json
import random
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from urllib.parse import quote

import nbformat
import psutil
import requests
import websocket

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import classroom

import course

PASSWORD = "parallel-lines"
# These cells are exempt from comparison in the course's tests, too.
NOT_COMPARED = "nbval-ignore-output"


class Lost(Exception):
    """A learner who can't go on, and why."""


# ── A learner ───────────────────────────────────────────────────────────────────────────────────


class Learner:
    """A browser's part: one person, their session, one open notebook."""

    def __init__(self, address, name, lesson, deadline):
        self.address, self.name, self.lesson, self.deadline = address, name, lesson, deadline
        self.base = f"{address}/user/{name}"
        self.web = requests.Session()
        self.session_id = uuid.uuid4().hex
        self.socket = self.kernel = None
        self.note = f"A note of {name}, {uuid.uuid4().hex}"
        self.times, self.wrong, self.counts = [], [], []
        self.reconnected = 0
        self.waited = self.problem = None

    # HTTP

    def log_in(self):
        page = f"{self.address}/hub/login"
        self.web.get(page, timeout=60).raise_for_status()
        form = {"username": self.name, "password": PASSWORD, "_xsrf": self.web.cookies["_xsrf"]}
        reply = self.web.post(page, data=form, timeout=60, allow_redirects=False)
        if reply.status_code != 302:
            raise Lost(f"not let in ({reply.status_code})")

    def open_lesson(self):
        """Ask for a server, wait until it shows the lesson, and start the lesson's kernel."""
        start = time.monotonic()
        self.web.get(f"{self.address}/hub/spawn", timeout=300)
        page = f"{self.base}/lab/tree/{quote(self.lesson)}"
        while True:
            reply = self.web.get(page, timeout=300)
            if reply.status_code == 200 and "jupyter-config-data" in reply.text:
                break
            self.pause(1)
        stored = self.call("GET", f"contents/{quote(self.lesson)}")["content"]
        about = {"path": self.lesson, "type": "notebook", "name": ""}
        about["kernel"] = {"name": "python3"}
        self.kernel = self.call("POST", "sessions", about)["kernel"]["id"]
        self.connect()
        self.waited = time.monotonic() - start
        return nbformat.from_dict(stored)

    def call(self, method, path, content=None):
        """The learner's server's answer; asked again while a hub that is away can't vouch."""
        while True:
            token = next((c.value for c in self.web.cookies if self.is_own_token(c)), "")
            reply = self.web.request(
                method,
                f"{self.base}/api/{path}",
                json=content,
                headers={"X-XSRFToken": token},
                timeout=300,
            )
            if reply.ok:
                return reply.json()
            if reply.status_code < 500:
                raise Lost(f"{method} {path.split('/')[0]} was refused ({reply.status_code})")
            self.pause(1)

    def is_own_token(self, cookie):
        return cookie.name == "_xsrf" and cookie.path.startswith("/user/")

    def is_known(self):
        """Whether the hub still takes the learner for logged in."""
        reply = self.web.get(f"{self.address}/hub/home", timeout=60)
        return reply.ok and "/hub/login" not in reply.url

    # The kernel

    def connect(self):
        url = self.base.replace("http", "ws", 1)
        url += f"/api/kernels/{self.kernel}/channels?session_id={self.session_id}"
        own = [c for c in self.web.cookies if self.base.endswith(c.path.rstrip("/"))]
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in own)
        self.socket = websocket.create_connection(
            url, cookie=cookies, origin=self.address, timeout=60
        )
        self.socket.settimeout(5)

    def receive(self):
        """The next message of the kernel; a broken line is taken up again, as a browser does."""
        while True:
            self.check_time()
            try:
                received = self.socket.recv()
                if received:
                    return json.loads(without_buffers(received))
            except websocket.WebSocketTimeoutException:
                continue
            except (websocket.WebSocketException, OSError):
                pass
            self.pause(1)
            with contextlib.suppress(websocket.WebSocketException, OSError):
                self.connect()
                self.reconnected += 1

    def run(self, source):
        """Run a cell; what it shows and its execution count."""
        number = uuid.uuid4().hex
        header = {"msg_id": number, "msg_type": "execute_request", "username": self.name}
        header |= {"session": self.session_id, "version": "5.3"}
        content = {"code": source, "silent": False, "store_history": True}
        content |= {"user_expressions": {}, "allow_stdin": False, "stop_on_error": True}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        start = time.monotonic()
        self.socket.send(json.dumps({**message, "channel": "shell", "buffers": []}))
        shown, count, idle = Shown(), None, False
        while count is None or not idle:
            message = self.receive()
            if message["parent_header"].get("msg_id") != number:
                continue
            if message["msg_type"] == "execute_reply":
                count = message["content"]["execution_count"]
            elif message["msg_type"] == "status":
                idle = message["content"]["execution_state"] == "idle"
            elif message["channel"] == "iopub":
                shown.add(message)
        self.times.append(time.monotonic() - start)
        return shown.outputs, count

    def check_time(self):
        if time.monotonic() > self.deadline:
            raise Lost("ran out of time")

    def pause(self, length):
        self.check_time()
        time.sleep(length)

    # The lesson

    def attend(self, arrival, pauses, most_cells, done):
        """All that the learner does; whatever goes wrong is kept in `problem`."""
        try:
            time.sleep(arrival)
            self.log_in()
            self.study(self.open_lesson(), pauses, most_cells, done)
        except Lost as lost:
            self.problem = str(lost)
        except Exception as error:
            self.problem = f"{type(error).__name__}: {course.first_line(error)}"

    def study(self, notebook, pauses, most_cells, done):
        code = [cell for cell in notebook.cells if cell.cell_type == "code"][:most_cells]
        notebook.cells.append(nbformat.v4.new_markdown_cell(self.note))
        for number, (cell, length) in enumerate(zip(code, pauses, strict=False), 1):
            outputs, count = self.run(cell.source)
            self.counts.append(count)
            if NOT_COMPARED not in cell.metadata.get("tags", []):
                if comparable(outputs) != comparable(cell.outputs):
                    self.wrong.append(number)
                cell.outputs = outputs
            if number == (len(code) + 1) // 2:
                self.save(notebook)
            done()
            self.pause(length)
        self.save(notebook)

    def save(self, notebook):
        content = {"type": "notebook", "format": "json", "content": notebook}
        self.call("PUT", f"contents/{quote(self.lesson)}", content)

    def lost(self, file, cells):
        """Why the learner counts as lost; None when all that was done is there."""
        if self.problem:
            return self.problem
        if self.counts != list(range(1, cells + 1)):
            return "the kernel was not the same throughout"
        if not any(k["id"] == self.kernel for k in self.call("GET", "kernels")):
            return "the kernel is gone"
        if not self.is_known():
            return "the hub has forgotten the learner"
        if self.note not in file.read_text(encoding="utf-8"):
            return "the saved note is not in the file"
        return None


def without_buffers(received):
    """The text of a message; one that carries a widget's pictures begins with where its parts lie.

    The layout is jupyter_server's: how many parts, then where each begins; the text is the first.
    """
    if isinstance(received, str):
        return received
    count, first = struct.unpack("!2I", received[:8])
    second = struct.unpack("!I", received[8:12])[0] if count > 1 else None
    return received[first:second].decode("utf-8")


class Shown:
    """What a cell shows, from the kernel's messages, as a notebook's page would have it."""

    def __init__(self):
        self.outputs, self.by_id, self.clear = [], {}, False

    def add(self, message):
        kind, content = message["msg_type"], message["content"]
        if kind == "clear_output":
            self.clear = True
            return
        number = content.get("transient", {}).get("display_id")
        if kind == "update_display_data":
            for output in self.by_id.get(number, []):
                output["data"] = nbformat.from_dict(content["data"])
            return
        if kind not in ("stream", "display_data", "execute_result", "error"):
            return
        if self.clear:
            self.outputs, self.clear = [], False
        output = nbformat.v4.output_from_msg(message)
        self.outputs.append(output)
        if number:
            self.by_id.setdefault(number, []).append(output)


def comparable(outputs):
    """Outputs as the course's tests compare them: text as it is, of a picture that there is one."""
    result = []
    for output in course.settled(outputs):
        data = {
            kind: "a picture" if kind == "image/png" else "".join(value)
            for kind, value in output.get("data", {}).items()
        }
        result.append((output["output_type"], data, "".join(output.get("text", ""))))
    return result


# ── The classroom ───────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def opened(folder, limit=300):
    """A classroom with its learners' files in `folder`; its address. Closed at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(course.ROOT / "course.py"), "classroom", "--local"]
    command += ["--allow-root", "--password", PASSWORD, "--port", str(port)]
    said = Path(folder, "said.txt")
    with open(said, "wb") as log:
        process = subprocess.Popen(
            [*command, "--folder", str(folder)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        start = time.monotonic()
        while b"Password:" not in said.read_bytes():
            if process.poll() is not None or time.monotonic() - start > limit:
                raise course.Trouble(f"No classroom: {said.read_text(errors='replace').strip()}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(limit)


def hub(folder):
    """The hub's process; None while there is none."""
    for process in classroom.processes_of(Path(folder).resolve()):
        with contextlib.suppress(psutil.Error):
            if any(part.endswith("jupyterhub_config.py") for part in process.cmdline()):
                return process
    return None


def kill_hub(folder, address, limit=120):
    """Kill the hub; seconds until another one answers."""
    start, victim = time.monotonic(), hub(folder)
    victim.kill()
    while time.monotonic() - start < limit:
        with contextlib.suppress(requests.RequestException):
            risen = hub(folder)
            fresh = risen is not None and risen.pid != victim.pid
            if fresh and requests.get(f"{address}/hub/health", timeout=5).ok:
                return time.monotonic() - start
        time.sleep(0.2)
    raise course.Trouble("The hub did not come back.")


def footprints(folder):
    """For each learner MB of memory (a fair share of what is shared) and seconds of processor."""
    memory, processor = {}, {}
    for process in classroom.processes_of(Path(folder).resolve()):
        with contextlib.suppress(psutil.Error):
            name = process.environ().get("JUPYTERHUB_USER")
            if not name:
                continue
            used = process.memory_full_info()
            memory[name] = memory.get(name, 0) + getattr(used, "pss", used.rss) / 1e6
            times = process.cpu_times()
            processor[name] = processor.get(name, 0) + times.user + times.system
    return memory, processor


# ── The test ────────────────────────────────────────────────────────────────────────────────────


class Counter:
    """How many cells have run in all, and a word when half of them have."""

    def __init__(self, total):
        self.total, self.done = total, 0
        self.lock, self.half = threading.Lock(), threading.Event()

    def __call__(self):
        with self.lock:
            self.done += 1
            if 2 * self.done >= self.total:
                self.half.set()


def run(folder, *, learners, minutes, lesson, most_cells=None, limit=10, seed=1):
    """Hold the class; a dict of figures. `limit` is in minutes, after which it is called off."""
    stored = nbformat.read(course.ROOT / lesson, as_version=4)
    cells = len([cell for cell in stored.cells if cell.cell_type == "code"][:most_cells])
    randomly, counter = random.Random(seed), Counter(learners * cells)
    with opened(folder) as address:
        start = time.monotonic()
        deadline = start + 60 * limit
        people = [
            Learner(address, f"learner-{number:02d}", lesson, deadline)
            for number in range(1, learners + 1)
        ]
        threads = []
        for person in people:
            # They arrive within a fifth of the time and read between cells.
            arrival = randomly.uniform(0, 12 * minutes)
            pauses = [randomly.uniform(0, 2 * 48 * minutes / cells) for _ in range(cells)]
            arguments = arrival, pauses, most_cells, counter
            threads.append(threading.Thread(target=person.attend, args=arguments, daemon=True))
            threads[-1].start()
        away = None
        while any(thread.is_alive() for thread in threads):
            if away is None and counter.half.is_set():
                away = kill_hub(folder, address)
            time.sleep(0.2)
        took = time.monotonic() - start
        memory, processor = footprints(folder)
        lost = {}
        for person in people:
            why = person.lost(Path(folder, "learners", person.name, lesson), cells)
            if why:
                lost[person.name] = why
    times = sorted(length for person in people for length in person.times)
    return {
        "learners": learners,
        "cells": cells,
        "minutes": took / 60,
        "cells run": len(times),
        "lost": lost,
        "wrong": {person.name: person.wrong for person in people if person.wrong},
        "wait": sorted(person.waited for person in people if person.waited is not None),
        "times": times,
        "hub away": away,
        "reconnected": sum(person.reconnected for person in people),
        "memory": sorted(memory.values()),
        "processor": sorted(processor.values()),
    }


def quantile(values, share):
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def table(figures):
    """The figures as a Markdown table."""
    memory, processor, wait = figures["memory"], figures["processor"], figures["wait"]
    rows = [
        ("learners", figures["learners"]),
        ("cells run", f"{figures['cells run']} ({figures['cells']} each)"),
        ("minutes, from the first log-in to the last cell", f"{figures['minutes']:.1f}"),
        ("sessions lost", len(figures["lost"])),
        ("wrong outputs", sum(map(len, figures["wrong"].values()))),
        ("hub killed; answered again after", f"{figures['hub away'] or float('nan'):.1f} s"),
        ("connections to kernels that broke", figures["reconnected"]),
        ("log-in to open lesson, median and slowest", f"{pair(wait, 0.5, 1)} s"),
        ("a cell, median and p95", f"{pair(figures['times'], 0.5, 0.95, 2)} s"),
        ("memory a learner, median and most", f"{pair(memory, 0.5, 1, 0)} MB"),
        ("processor a learner, mean", f"{statistics.fmean(processor or [0]):.0f} s"),
    ]
    return "\n".join(["| what | figure |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])


def pair(values, first, second, digits=1):
    return " and ".join(f"{quantile(values, share):.{digits}f}" for share in (first, second))


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learners", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=6, help="over which they spread (6)")
    parser.add_argument("--limit", type=float, default=12, help="minutes, then it is called off")
    parser.add_argument("--lesson", default="04", help="its number (04)")
    parser.add_argument("--cells", type=int, help="only the first so many")
    options = parser.parse_args(arguments)
    lesson = next(course.NOTEBOOKS.glob(f"{options.lesson}-*.ipynb")).relative_to(course.ROOT)
    with tempfile.TemporaryDirectory(prefix="classroom-") as folder:
        figures = run(
            folder,
            learners=options.learners,
            minutes=options.minutes,
            limit=options.limit,
            lesson=lesson.as_posix(),
            most_cells=options.cells,
        )
    print(table(figures))
    for name, why in figures["lost"].items():
        print(f"{name}: {why}")
    for name, numbers in figures["wrong"].items():
        print(f"{name}: other outputs in code cells {numbers}")
    return int(bool(figures["lost"] or figures["wrong"]))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except course.Trouble as trouble:
        sys.exit(str(trouble))
