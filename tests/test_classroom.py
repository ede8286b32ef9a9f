"""The classroom server: whatever ends, no work is lost; what Kubernetes is told agrees."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from test_dependencies import faults_of_lock, faults_of_wanted, locked_entries

import course

pytestmark = pytest.mark.skipif(course.WINDOWS, reason="JupyterHub does not run on Windows")
if not course.WINDOWS:
    from packaging.requirements import Requirement

    ROOT = Path(__file__).resolve().parent.parent
    sys.path.insert(0, str(ROOT / "workshop"))
    import classroom
    import copies
    import load_test
    import requests

LESSON = "notebooks/04-random-slopes.ipynb"


def text_of(*parts):
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


# ── A learner's copy ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def template(tmp_path):
    folder = tmp_path / "template"
    for name in ("notebooks/01-line.ipynb", "data/x.csv", "helpers/one.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name}, as it was made")
    return folder


def test_a_copy_never_overwrites_and_brings_back_what_is_missing(template, tmp_path):
    home = tmp_path / "learner"
    assert copies.give_copy(template, home) == 3
    lesson = home / "notebooks" / "01-line.ipynb"
    lesson.write_text("edited")
    (home / "data" / "x.csv").unlink()
    (template / "notebooks" / "01-line.ipynb").write_text("a later version")
    assert copies.give_copy(template, home) == 1
    assert lesson.read_text() == "edited"
    assert (home / "data" / "x.csv").read_text() == "data/x.csv, as it was made"


def test_a_copy_that_is_cut_off_leaves_no_half_of_a_file(template, tmp_path, monkeypatch):
    whole = shutil.copy2

    def cut(source, target):
        Path(target).write_text("ha")
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copy2", cut)
    with pytest.raises(KeyboardInterrupt):
        copies.give_copy(template, tmp_path / "learner")
    monkeypatch.setattr(shutil, "copy2", whole)
    assert copies.give_copy(template, tmp_path / "learner") == 3
    assert all(
        path.read_text().endswith("as it was made")
        for path in (tmp_path / "learner").rglob("*")
        if path.is_file()
    )


def test_learners_get_the_lessons_and_not_what_would_install_anew():
    files = {path.as_posix() for path in copies.learners_files(ROOT)}
    assert {LESSON, "helpers/mixed.py", "data/hsb.csv", "README.md"} <= files
    assert not [name for name in files if name.startswith(("tests/", "workshop/", "course.py"))]


# ── What is kept between two runs ───────────────────────────────────────────────────────────────


def test_the_password_is_kept_and_kept_to_oneself(tmp_path):
    made = classroom.password(tmp_path, None)
    assert re.fullmatch(r"[a-z]{4}-[a-z]{4}-[a-z]{4}", made)
    assert classroom.password(tmp_path, None) == made
    assert classroom.password(tmp_path, "another one") == "another one"
    assert classroom.password(tmp_path, None) == "another one"
    assert (tmp_path / "password").stat().st_mode & 0o077 == 0
    with pytest.raises(course.Trouble, match="too short"):
        classroom.password(tmp_path, "short")


def test_the_hub_comes_back_at_the_port_where_servers_look_for_it(tmp_path):
    ports = classroom.inner_ports(tmp_path)
    assert classroom.inner_ports(tmp_path) == ports
    with classroom.socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[0]))
        taken.listen()
        assert classroom.inner_ports(tmp_path)[0] != ports[0]


def test_a_second_classroom_in_the_same_folder_is_refused(tmp_path):
    with (
        classroom.only_one(tmp_path),
        pytest.raises(course.Trouble, match="open with .* already"),
        classroom.only_one(tmp_path),
    ):
        pass


def test_what_a_killed_classroom_left_running_is_ended(tmp_path, capsys):
    program = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    env = {**os.environ, classroom.MARK: str(tmp_path)}
    with subprocess.Popen(program, env=env, stdout=subprocess.PIPE) as left:
        left.stdout.readline()
        with classroom.only_one(tmp_path):
            assert not classroom.psutil.pid_exists(left.pid)
    assert "cut off" in capsys.readouterr().out


@pytest.mark.parametrize("port, said", [(0, "no port 0"), (65536, "no port 65536")])
def test_a_port_that_is_none_is_one_line(port, said):
    with pytest.raises(course.Trouble, match=said):
        classroom.check_free(port)


def test_a_port_that_is_taken_is_one_line():
    with classroom.socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(course.Trouble, match="is taken. Ask for another with --port."):
            classroom.check_free(taken.getsockname()[1])


def test_the_password_is_on_no_command_line(monkeypatch):
    ran = []
    monkeypatch.setattr(course, "ensure_packages", lambda: None)
    monkeypatch.setattr(course, "add_packages", lambda *ignored: None)
    monkeypatch.setattr(course, "run_in_venv", lambda *line, **env: ran.append((line, env)) or 0)
    line = ["classroom", "--password", "parallel-lines", "--port", "0", "--allow-root"]
    assert course.main(line) == 0
    ((words, env),) = ran
    assert "parallel-lines" not in " ".join(map(str, words))
    assert json.loads(env["COURSE_CLASSROOM"])["password"] == "parallel-lines"


def test_windows_is_told_what_to_use(monkeypatch, capsys):
    monkeypatch.setattr(course, "WINDOWS", True)
    assert course.main(["classroom"]) == 1
    assert "WSL" in capsys.readouterr().err


# ── The proxy's program ─────────────────────────────────────────────────────────────────────────


def test_the_proxy_s_packages_are_pinned_with_checksums_and_no_addresses():
    lock, asked = (
        json.loads(text_of("workshop", "proxy", f"package{end}.json")) for end in ("-lock", "")
    )
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert len(packages) > 20
    assert all(re.match("sha512-", entry["integrity"]) for entry in packages.values())
    assert "://" not in json.dumps(lock)
    for name, version in asked["dependencies"].items():
        assert packages[f"node_modules/{name}"]["version"] == version


@pytest.fixture
def no_proxy(tmp_path, monkeypatch):
    monkeypatch.setattr(classroom, "PROXY", tmp_path / "proxy")


@pytest.mark.parametrize("there, said", [([], "needs Node.js"), (["node"], "Install npm")])
def test_without_node_or_npm_the_mend_is_named(no_proxy, monkeypatch, there, said):
    monkeypatch.setattr(course, "works", lambda command: command in there)
    with pytest.raises(course.Trouble, match=said):
        classroom.ensure_proxy()


def test_a_proxy_that_does_not_arrive_is_one_line_and_leaves_none(no_proxy, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "npm error code EINTEGRITY\nnpm error more\n")
    monkeypatch.setattr(course, "works", lambda command: True)
    monkeypatch.setattr(shutil, "which", lambda command: command)
    monkeypatch.setattr(subprocess, "run", lambda *line, **more: failed)
    with pytest.raises(course.Trouble, match="could not fetch the proxy: code EINTEGRITY"):
        classroom.ensure_proxy()
    assert not classroom.PROXY.exists()


# ── Hub and proxy are kept alive ────────────────────────────────────────────────────────────────


@pytest.fixture
def kept_alive(tmp_path):
    """A classroom whose hub is a program that ends at once."""
    room = classroom.Classroom.__new__(classroom.Classroom)
    room.folder, room.running, room.ended = tmp_path, {}, []
    room.settings, room.token = {}, ""
    room.hub_command = lambda: [sys.executable, "-c", "raise SystemExit('out of order')"]
    return room


def test_what_ends_is_started_again_until_it_is_of_no_use(kept_alive, capsys):
    kept_alive.start("hub")
    with pytest.raises(course.Trouble, match="ends each time it is started: out of order"):
        for _ in range(classroom.MOST_RESTARTS + 1):
            kept_alive.running["hub"].wait(20)
            kept_alive.revive()
    said = capsys.readouterr().out
    assert said.count("starting it again") == classroom.MOST_RESTARTS


# ── The configuration, and Kubernetes ───────────────────────────────────────────────────────────


class Settings(SimpleNamespace):
    """Stands in for traitlets' configuration, whose sections come into being when named."""

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        setattr(self, name, Settings())
        return getattr(self, name)


@pytest.fixture
def configuration(monkeypatch, tmp_path):
    """What jupyterhub_config.py sets, and the names it defines, read without JupyterHub."""
    spawner = SimpleNamespace(SimpleLocalProcessSpawner=object)
    monkeypatch.setitem(sys.modules, "jupyterhub", SimpleNamespace(spawner=spawner))
    monkeypatch.setitem(sys.modules, "jupyterhub.spawner", spawner)
    settings = {"folder": str(tmp_path), "sockets": "/tmp/x", "password": "parallel-lines"}
    settings |= {"port": 8000, "hub_port": 1, "api_port": 2}
    monkeypatch.setenv("COURSE_CLASSROOM", json.dumps(settings))
    monkeypatch.setenv("CONFIGPROXY_AUTH_TOKEN", "token")
    path = ROOT / "workshop" / "jupyterhub_config.py"
    names = {"get_config": Settings, "__file__": str(path)}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    return names


def test_two_servers_started_at_once_get_two_ports(configuration):
    first = configuration["free_port"]()
    with classroom.socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 1))
        assert configuration["free_port"]() == first + 2
    assert first in configuration["PORTS"]


@pytest.mark.parametrize("name", ["ada", "learner-07", "a", "x" * 30])
def test_names_that_are_safe_as_folders_are_taken(configuration, name):
    assert re.match(configuration["NAMES"], name)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "7up", "-rf", "añu", "a.b", "x" * 31])
def test_other_names_are_refused(configuration, name):
    # JupyterHub compares with re.match, so the end has to be asked for.
    pattern = configuration["c"].Authenticator.username_pattern
    assert not re.compile(pattern).match(name)


def test_kubernetes_is_told_what_the_classroom_does(configuration):
    values = yaml.safe_load(text_of("workshop", "zero-to-jupyterhub.yaml"))
    local, hub, single = configuration["c"], values["hub"]["config"], values["singleuser"]
    for part, name in [
        ("JupyterHub", "authenticator_class"),
        ("Authenticator", "allow_all"),
        ("Authenticator", "username_pattern"),
    ]:
        assert hub[part][name] == getattr(getattr(local, part), name)
    assert single["defaultUrl"] == local.Spawner.default_url
    assert configuration["ONE_THREAD"].items() <= single["extraEnv"].items()
    assert single["extraEnv"]["PYTHONPATH"] == hub["KubeSpawner"]["notebook_dir"]
    assert hub["KubeSpawner"]["notebook_dir"].startswith(single["storage"]["homeMountPath"])
    version = re.search(r'^version = "(.+)"', text_of("pyproject.toml"), re.MULTILINE)[1]
    assert single["image"]["tag"] == version
    assert "password" not in json.dumps(hub).replace("shared-password", "")


def test_kubernetes_copies_with_the_classroom_s_own_code(tmp_path):
    single = yaml.safe_load(text_of("workshop", "zero-to-jupyterhub.yaml"))["singleuser"]
    script = single["cmd"][2]
    copy, start = script.split(" && ")
    program, source, target = copy.split()[1:]
    assert start == 'exec jupyterhub-singleuser "$@"'
    assert target == single["extraEnv"]["PYTHONPATH"]
    assert (ROOT / Path(program).relative_to(source)).exists()
    here = [sys.executable, str(ROOT / "workshop" / "copies.py"), str(ROOT), str(tmp_path)]
    done = subprocess.run(here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / LESSON).read_bytes() == (ROOT / LESSON).read_bytes()
    assert (ROOT / single["defaultUrl"].removeprefix("/lab/tree/")).exists()


def test_the_page_names_the_image_and_the_commands_that_are():
    page = text_of("site", "workshop", "server.md")
    single = yaml.safe_load(text_of("workshop", "zero-to-jupyterhub.yaml"))["singleuser"]
    image = single["image"]
    assert f"--image-name {image['name']}:{image['tag']}" in page
    assert f"--target-repo-dir {single['cmd'][2].split()[2]}" in page
    for path in re.findall(r"workshop/[\w-]+\.(?:py|yaml|txt)", page):
        assert (ROOT / path).exists(), path


# ── The lock ────────────────────────────────────────────────────────────────────────────────────


def test_the_classroom_s_lock_is_sound_and_agrees_with_the_course_s():
    lock = text_of("workshop", "requirements.txt")
    asked = re.findall(r"^\w.*", text_of("workshop", "requirements.in"), re.MULTILINE)
    assert faults_of_lock(lock) == []
    assert faults_of_wanted(map(Requirement, asked), lock) == []
    # Its packages go into the same environment.
    theirs, ours = (
        {entry.name: entry.specifier for entry, _ in locked_entries(text)}
        for text in (lock, text_of("requirements.txt"))
    )
    shared = theirs.keys() & ours.keys()
    assert len(shared) > 15
    assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}


# ── What a learner's browser does ───────────────────────────────────────────────────────────────


def message(kind, **content):
    return {"msg_type": kind, "header": {"msg_type": kind}, "content": content}


def test_a_display_that_is_updated_counts_as_it_is_in_the_end():
    shown = load_test.Shown()
    first = {"data": {"text/plain": "1 of 2"}, "metadata": {}, "transient": {"display_id": "x"}}
    shown.add(message("display_data", **first))
    shown.add(message("update_display_data", **{**first, "data": {"text/plain": "2 of 2"}}))
    shown.add(message("clear_output", wait=True))
    assert [output["data"]["text/plain"] for output in shown.outputs] == ["2 of 2"]
    shown.add(message("stream", name="stdout", text="done\n"))
    assert load_test.comparable(shown.outputs) == [("stream", {}, "done\n")]


def test_the_text_of_a_message_with_pictures_is_found():
    text = json.dumps({"msg_type": "comm_open"}).encode("utf-8")
    head = load_test.struct.pack("!3I", 2, 12, 12 + len(text))
    assert load_test.without_buffers(head + text + b"\x89PNG") == text.decode("utf-8")
    assert load_test.without_buffers("{}") == "{}"


def test_another_number_is_a_wrong_output_and_another_picture_is_not():
    def output(text, picture):
        data = {"text/plain": text, "image/png": picture}
        return [nbformat.v4.new_output("display_data", data)]

    stored = load_test.comparable(output("1.0", "a"))
    assert load_test.comparable(output("1.0", "b")) == stored
    assert load_test.comparable(output("1.1", "a")) != stored


# ── The real hub ────────────────────────────────────────────────────────────────────────────────


def why_not():
    """Why no classroom can be opened here; "" when one can."""
    if course.WINDOWS:
        return "JupyterHub does not run on Windows"
    if course.environment_state() != "ready":
        return "the hub is installed with the packages of .venv, which is not in use"
    if not (course.works("node") and course.works("npm")):
        return "no Node.js and npm on this machine"
    try:
        copies.refuse_answers(ROOT, copies.learners_files(ROOT))
    except course.Trouble:
        return "exercises hold answers, which a classroom does not hand out"
    return ""


needs_hub = pytest.mark.skipif(bool(why_not()), reason=why_not() or "can run")


@contextlib.contextmanager
def skipped_without_network():
    """Without a network the hub can't be fetched; where the course is built that is a failure."""
    try:
        yield
    except course.Trouble as trouble:
        away = re.search("no network|npm could not fetch", str(trouble))
        if away and not os.environ.get("CI"):
            pytest.skip("no network to fetch the hub")
        raise


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A class of two, whose hub was killed in the middle; the folder and the figures."""
    folder = tmp_path_factory.mktemp("class")
    with skipped_without_network():
        figures = load_test.run(
            folder, learners=2, minutes=0.1, lesson=LESSON, most_cells=3, limit=5
        )
    return folder, figures


@needs_hub
def test_a_hub_killed_in_the_middle_costs_nobody_anything(held):
    folder, figures = held
    assert figures["lost"] == {}
    assert figures["wrong"] == {}
    assert figures["cells run"] == 6
    assert figures["hub away"] is not None
    assert "hub ended (code -9); starting it again" in (folder / "said.txt").read_text()
    assert all(50 < used < 2000 for used in figures["memory"])


@needs_hub
def test_ctrl_c_ends_everything_and_keeps_the_files(held):
    folder, _ = held
    assert classroom.processes_of(folder.resolve()) == []
    for name in ("learner-01", "learner-02"):
        assert f"A note of {name}" in (folder / "learners" / name / LESSON).read_text("utf-8")
        assert not (folder / "learners" / name / "course.py").exists()
    assert (folder / "said.txt").read_text().splitlines()[-1] == (
        "Closed. Learners' files are kept."
    )
    assert folder.stat().st_mode & 0o077 == 0


@needs_hub
def test_the_next_day_work_is_there_and_strangers_are_not_let_in(held):
    folder, _ = held
    with load_test.opened(folder) as address:
        back = load_test.Learner(address, "learner-01", LESSON, time.monotonic() + 180)
        back.log_in()
        assert "A note of learner-01" in json.dumps(back.open_lesson())
        outputs, _ = back.run("import helpers, os; print(helpers.__path__[0], os.getcwd())")
        home = folder.resolve() / "learners" / "learner-01"
        assert outputs[0]["text"].split() == [str(home / "helpers"), str(home / "notebooks")]
        for name in ("../learner-01", "learner 1", "Ärger"):
            stranger = load_test.Learner(address, name, LESSON, time.monotonic() + 180)
            with pytest.raises(load_test.Lost, match="not let in"):
                stranger.log_in()
        page = requests.get(f"{address}/hub/login", timeout=20).text
        assert "Choose a name for today" in page
