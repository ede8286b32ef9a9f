"""The entry point: packages kept whole, arguments passed on, notebooks rendered, answers safe."""

import ast
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

import course

HERE = Path(__file__).resolve().parent
CODE, TEXT = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty course in a folder with a space and letters beyond ASCII."""
    root = tmp_path / "Été course"
    root.mkdir()
    (root / "requirements.txt").write_text("one==1.0 \\\n    --hash=sha256:00\n", encoding="utf-8")
    monkeypatch.setattr(course, "ROOT", root)
    monkeypatch.setattr(course, "VENV", root / ".venv")
    monkeypatch.setattr(course, "SPARE", root / ".venv.old")
    monkeypatch.setattr(course, "LOCK", root / "requirements.txt")
    monkeypatch.setattr(course, "NOTEBOOKS", root / "notebooks")
    monkeypatch.setattr(course, "FIRST_NOTEBOOK", root / "notebooks" / "00-start-here.ipynb")
    return root


@pytest.fixture
def installs(folder, monkeypatch):
    """Replace the install by one that takes no time; a list with an entry for each."""
    done = []

    def install():
        course.venv_python().parent.mkdir(parents=True)
        course.venv_python().write_text(f"install {len(done)}")
        done.append(course.read_stamp(course.VENV))

    monkeypatch.setattr(course, "install_packages", install)
    return done


@pytest.fixture
def ran(folder, monkeypatch):
    """Record what would run in .venv, with the packages taken for installed."""
    lines = []
    monkeypatch.setattr(course, "ensure_packages", lambda: None)
    monkeypatch.setattr(course, "run_in_venv", lambda *line, **settings: lines.append(line) or 0)
    return lines


def notebook(path, *cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
    return path


def tagged(cell, *tags):
    cell.metadata["tags"] = list(tags)
    return cell


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ── The packages ────────────────────────────────────────────────────────────────────────────────


def test_packages_are_installed_once(installs):
    assert course.environment_state() == "missing"
    course.ensure_packages()
    course.ensure_packages()
    # While the install ran, the folder said that it was unfinished.
    assert installs == [course.UNFINISHED]
    assert course.environment_state() == "ready"


def test_a_changed_lock_installs_again(folder, installs):
    course.ensure_packages()
    course.LOCK.write_text("one==2.0 \\\n    --hash=sha256:11\n", encoding="utf-8")
    assert course.environment_state() == "stale"
    course.ensure_packages()
    assert len(installs) == 2
    assert names(folder) == [".venv", "requirements.txt"]


@pytest.mark.parametrize("part", ["python3", sys.platform])
def test_another_python_or_system_installs_again(installs, part):
    course.ensure_packages()
    stamp = course.VENV / course.STAMP
    stamp.write_text(stamp.read_text().replace(part, "other"))
    assert course.environment_state() == "stale"


def test_a_python_that_was_removed_installs_again(installs):
    course.ensure_packages()
    course.venv_python().unlink()
    assert course.environment_state() == "stale"


@pytest.mark.parametrize("cut", [course.Trouble("no network"), KeyboardInterrupt(), SystemExit(1)])
def test_a_failed_install_leaves_nothing(folder, installs, monkeypatch, cut):
    def install():
        (course.VENV / "half").mkdir()
        raise cut

    monkeypatch.setattr(course, "install_packages", install)
    with pytest.raises(type(cut)):
        course.ensure_packages()
    assert names(folder) == ["requirements.txt"]


def test_a_failed_renewal_brings_the_old_packages_back(folder, installs, monkeypatch):
    course.ensure_packages()
    course.LOCK.write_text("changed", encoding="utf-8")

    def install():
        raise course.Trouble("no network")

    monkeypatch.setattr(course, "install_packages", install)
    with pytest.raises(course.Trouble):
        course.ensure_packages()
    assert course.venv_python().read_text() == "install 0"
    assert course.environment_state() == "stale"
    assert names(folder) == [".venv", "requirements.txt"]


def cut_off(folder):
    """What a killed install leaves: no time to tidy up, and no touch of the stamp since."""
    (folder / "half").mkdir(parents=True)
    stamp = folder / course.STAMP
    stamp.write_text(course.UNFINISHED)
    os.utime(stamp, (time.time() - 60,) * 2)


def test_a_killed_install_heals(installs):
    cut_off(course.VENV)
    course.ensure_packages()
    assert len(installs) == 1
    assert not (course.VENV / "half").exists()


def test_a_killed_renewal_still_has_the_old_packages(folder, installs, monkeypatch):
    course.ensure_packages()
    course.VENV.rename(course.SPARE)
    cut_off(course.VENV)

    def install():
        raise course.Trouble("no network")

    monkeypatch.setattr(course, "install_packages", install)
    with pytest.raises(course.Trouble):
        course.ensure_packages()
    assert course.environment_state() == "ready"


def test_a_run_waits_for_the_install_of_another(installs, monkeypatch, capsys):
    cut_off(course.VENV)
    os.utime(course.VENV / course.STAMP)

    def finish(seconds):
        shutil.rmtree(course.VENV)
        course.venv_python().parent.mkdir(parents=True)
        course.venv_python().touch()
        (course.VENV / course.STAMP).write_text(course.wanted_stamp())

    monkeypatch.setattr(time, "sleep", finish)
    course.ensure_packages()
    assert installs == []
    assert "waiting" in capsys.readouterr().out


def test_an_environment_of_the_learner_is_left_alone(installs):
    (course.VENV / "theirs").mkdir(parents=True)
    with pytest.raises(course.Trouble, match="not made by course.py"):
        course.ensure_packages()
    assert (course.VENV / "theirs").exists()


def test_too_little_disk_is_said_before_anything_is_made(folder, installs, monkeypatch):
    monkeypatch.setattr(course, "INSTALL_GB", 1e9)
    with pytest.raises(course.Trouble, match="Free some"):
        course.ensure_packages()
    assert names(folder) == ["requirements.txt"]


def test_without_an_installer_the_mend_is_named(folder, monkeypatch):
    monkeypatch.setattr(course, "works", lambda command: False)
    monkeypatch.setattr(course, "has_module", lambda name: False)
    with pytest.raises(course.Trouble, match="python3-venv"):
        course.ensure_packages()
    assert names(folder) == ["requirements.txt"]


def test_when_uv_fails_pip_is_tried(folder, monkeypatch, capsys):
    tried = []
    monkeypatch.setattr(course, "works", lambda command: True)
    monkeypatch.setattr(course, "finish_environment", lambda: None)
    monkeypatch.setattr(course, "install_with_uv", lambda start: tried.append("uv") or "no such")
    monkeypatch.setattr(course, "install_with_pip", lambda start: tried.append("pip"))
    course.ensure_packages()
    assert tried == ["uv", "pip"]
    assert "uv could not do it (no such)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "output, said",
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("failed to create file: Permission denied (os error 13)", "folder of your own"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "damaged"),
        ("SSLError: [SSL: CERTIFICATE_VERIFY_FAILED]", "certificate"),
        (
            "NewConnectionError: Temporary failure in name resolution\n"
            "ERROR: No matching distribution found for one==1.0",
            "no network",
        ),
        ("client error (Connect): dns error", "no network"),
        ("ERROR: No matching distribution found for one==1.0", "64-bit"),
        ("something new\n", "could not be installed: something new"),
    ],
)
def test_an_installer_s_failure_is_told_in_one_line(output, said):
    assert said in course.explain(output)
    assert "\n" not in course.explain(output)


def test_an_installer_s_children_run_without_the_learner_s_settings(monkeypatch):
    foreign = {"PYTHONPATH": "x", "MPLBACKEND": "TkAgg", "UV_SYSTEM_PYTHON": "1", "PIP_USER": "1"}
    for name, value in {**foreign, "LEFT": "alone"}.items():
        monkeypatch.setenv(name, value)
    env = course.course_environment(installing=True)
    assert not {"PYTHONPATH", "MPLBACKEND", "UV_SYSTEM_PYTHON"} & set(env)
    assert env["PIP_USER"] == "0"
    assert env["UV_PYTHON_DOWNLOADS"] == "never"
    assert env["LEFT"] == "alone"
    assert env["PATH"].startswith(str(course.venv_python().parent))


def test_helpers_are_found_wherever_the_course_lies(folder, monkeypatch):
    course.site_packages().mkdir(parents=True)
    course.finish_environment()
    line = (course.site_packages() / "course.pth").read_bytes()
    assert line.isascii()
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "prefix", str(course.VENV))
    exec(line)
    assert sys.path == [str(folder)]


def test_a_command_s_output_and_code_come_back(folder):
    code, output = course.run_quietly(
        [sys.executable, "-c", "print('é'); raise SystemExit(3)"], time.monotonic()
    )
    assert code == 3
    assert output.strip()


# ── Old and new Pythons ─────────────────────────────────────────────────────────────────────────


def old_pythons():
    roots = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in range(6, 11):
        found = [shutil.which(f"python3.{minor}"), *roots.glob(f"3.{minor}.*/bin/python")]
        for path in filter(None, found):
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                subprocess.run([path, "-c", ""], check=True, capture_output=True)
                yield str(path)
                break


OLD_PYTHONS = list(old_pythons())


def test_an_old_python_can_parse_the_file():
    ast.parse((HERE.parent / "course.py").read_text(encoding="utf-8"), feature_version=(3, 7))


@pytest.mark.skipif(not OLD_PYTHONS, reason="no old Python on this machine")
def test_an_old_python_says_so_in_one_line():
    # Without a PATH no newer Python is found, and looking for one takes no time.
    env = {**os.environ, "PATH": ""}
    for python in OLD_PYTHONS:
        done = subprocess.run(
            [python, "course.py", "lab"],
            cwd=HERE.parent,
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("This course needs Python 3.11 to 3.14, and this is Python 3")
        assert len(done.stderr.splitlines()) == 1
        assert done.stdout == ""


def test_a_python_that_is_too_new_is_refused(monkeypatch):
    monkeypatch.setattr(course, "TOO_NEW", sys.version_info[:2])
    monkeypatch.setattr(course, "works", lambda name: name == "python3.11")
    monkeypatch.setattr(sys, "argv", ["course.py", "lab"])
    if sys.version_info[:2] > (3, 11):
        with pytest.raises(course.Trouble, match="Run python3.11 course.py lab instead"):
            course.check_python()
    monkeypatch.setattr(course, "works", lambda name: False)
    with pytest.raises(course.Trouble, match="Install Python"):
        course.check_python()


# ── The command line ────────────────────────────────────────────────────────────────────────────


def test_usage_names_every_command(capsys):
    assert course.main([]) == course.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in course.COMMANDS)
    assert all(f"  python3 course.py {name} " in course.__doc__ for name in course.COMMANDS)
    assert set(course.COMMANDS) >= {"lab", "test", "render", "bundle", "classroom", "doctor"}


def test_an_unknown_command_is_one_line(capsys):
    assert course.main(["labb"]) == 1
    assert capsys.readouterr().err == (
        f"There is no command labb. There are: {', '.join(course.COMMANDS)}.\n"
    )


@pytest.mark.parametrize(
    "error, said",
    [
        (PermissionError(13, "Permission denied", "x"), "may not be written (x)"),
        (OSError(28, "No space left on device", "x"), "disk is full (x)"),
        (FileNotFoundError(2, "No such file or directory", "x"), "No such file or directory (x)."),
    ],
)
def test_an_error_of_the_system_is_one_line(monkeypatch, capsys, error, said):
    def fail(arguments):
        raise error

    monkeypatch.setitem(course.COMMANDS, "lab", fail)
    assert course.main(["lab"]) == 1
    assert said in capsys.readouterr().err


def test_ticks_have_a_stand_in(monkeypatch):
    with open(os.devnull, "w", encoding="ascii") as narrow:
        monkeypatch.setattr(sys, "stdout", narrow)
        marks = course.mark(True), course.mark(False)
        monkeypatch.undo()
    assert marks == ("ok  ", "FAIL")


# ── lab and test ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def not_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)


def test_lab_opens_the_first_notebook_and_passes_the_rest_on(ran, not_root):
    notebook(course.FIRST_NOTEBOOK)
    course.main(["lab", "--no-browser"])
    course.main(["lab", "notebooks/04.ipynb"])
    first, second = ran
    assert first[-2:] == (str(course.FIRST_NOTEBOOK), "--no-browser")
    assert str(course.FIRST_NOTEBOOK) not in second
    assert second[-1] == "notebooks/04.ipynb"


@pytest.mark.parametrize(
    "line, port",
    [
        ("--port 8899", 8899),
        ("--no-browser --port=8899", 8899),
        ("--ServerApp.port=9000 --no-browser", 9000),
        ("--no-browser", None),
        ("--port-retries=5", None),
    ],
)
def test_an_asked_port_is_seen(line, port):
    assert course.asked_port(line.split()) == port


def test_a_taken_port_is_one_line(ran, not_root, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert course.main(["lab", "--port", str(port)]) == 1
    assert capsys.readouterr().err.startswith(f"Port {port} is taken.")
    assert ran == []
    assert course.main(["lab", "--port", str(port)]) == 0


def test_root_is_told_what_to_add(ran, monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    assert course.main(["lab"]) == 1
    assert "--allow-root" in capsys.readouterr().err
    assert course.main(["lab", "--allow-root"]) == 0


def test_test_runs_all_or_what_was_asked(folder, ran):
    (folder / "tests").mkdir()
    course.main(["test"])
    (folder / "notebooks").mkdir()
    course.main(["test", "-k", "engine"])
    course.main(["test", "tests"])
    assert ran[0][-1] == "tests"
    assert ran[1][-4:] == ("-k", "engine", "tests", "notebooks")
    assert ran[2][-1] == "tests"
    assert "notebooks" not in {*ran[0], *ran[2]}


def test_the_code_passes_ruff():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "."],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


# ── Exercises from solutions ────────────────────────────────────────────────────────────────────


def test_a_stub_keeps_the_names_that_later_cells_use():
    source = "helper = 1\nslope, spread = 2.0, 3.0\nif slope:\n    note = 'x'\n"
    assert course.stub(source, ["print(spread, slope)", "%time note"]) == (
        "# Your answer here\nslope = ...\nspread = ...\nnote = ..."
    )
    assert course.stub(source, []) == "# Your answer here"


def test_a_stub_keeps_the_head_of_a_function():
    source = "def icc(tau2, sigma2=1.0):\n    'Share of the groups.'\n    return tau2 / sigma2\n"
    assert course.stub(source, ["icc(1)"]) == (
        '# Your answer here\ndef icc(tau2, sigma2=1.0):\n    """Share of the groups."""\n    ...'
    )


def test_only_the_tag_makes_a_solution():
    cells = [
        CODE("given = 1"),
        tagged(CODE("answer = given + 1"), "solution", "wide"),
        tagged(TEXT("Because of the tilt."), "solution"),
        CODE("answer"),
    ]
    made = course.exercise_from(nbformat.v4.new_notebook(cells=cells))
    assert [cell.source for cell in made.cells] == [
        "given = 1",
        "# Your answer here\nanswer = ...",
        "*Your answer here.*",
        "answer",
    ]
    assert made.cells[1].metadata["tags"] == ["answer", "wide"]


# ── render ──────────────────────────────────────────────────────────────────────────────────────


def test_streams_join_and_live_widgets_go():
    def text(name, words):
        return {"output_type": "stream", "name": name, "text": words}

    figure = {"output_type": "display_data", "data": {"image/png": ""}, "metadata": {}}
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "new in each run"}}
    widget = {"output_type": "display_data", "data": view, "metadata": {}}
    outputs = [text("stderr", "w"), text("stdout", "a"), text("stdout", "b"), figure]
    outputs += [widget, text("stdout", "c")]
    assert course.settled(outputs) == [
        text("stdout", "ab"),
        text("stderr", "w"),
        figure,
        text("stdout", "c"),
    ]


def test_rendering_twice_changes_nothing(folder, capsys):
    figure = "import matplotlib.pyplot as plt\nplt.plot([0, 1])\nplt.show()"
    slider = "import ipywidgets\nipywidgets.interact(lambda x: x, x=(0, 3))\n1"
    lesson = notebook(
        folder / "notebooks" / "01-line.ipynb",
        TEXT("# Línea"),
        CODE(figure),
        CODE(slider),
        CODE(""),
    )
    solved = tagged(CODE("answer = 2"), "solution")
    notebook(folder / "notebooks" / "solutions" / "01-line.ipynb", solved, CODE("print(answer)"))
    exercise = folder / "notebooks" / "exercises" / "01-line.ipynb"

    assert course.main(["--inside", "render"]) == 0
    once = {path: path.read_bytes() for path in folder.rglob("*.ipynb")}
    assert course.main(["--inside", "render", "01"]) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*.ipynb")} == once
    assert capsys.readouterr().out.count("unchanged") == 3

    made = json.loads(once[lesson])
    assert made["metadata"] == {
        "kernelspec": {
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    assert [cell["id"] for cell in made["cells"]] == ["cell-01", "cell-02", "cell-03", "cell-04"]
    assert [cell.get("execution_count") for cell in made["cells"]] == [None, 1, 2, None]
    assert "widget-view" not in once[lesson].decode()
    assert "Ellipsis" in once[exercise].decode()
    assert "answer = 2" not in once[exercise].decode()


def test_a_failing_cell_is_named_and_its_notebook_left_as_it_was(folder, capsys):
    lessons = folder / "notebooks"
    bad = notebook(lessons / "01-bad.ipynb", TEXT("# Bad"), CODE("x = 1\nx / 0"), CODE("print(1)"))
    # A learner who saves while the notebook runs must not lose what was saved.
    saved = notebook(lessons / "02-saved.ipynb", CODE("open('02-saved.ipynb', 'a').write(' ')"))
    fine = notebook(lessons / "03-fine.ipynb", CODE("print('fine')"))
    before = bad.read_bytes()
    assert course.main(["--inside", "render"]) == 1
    said = capsys.readouterr().out
    assert "notebooks/01-bad.ipynb, cell 2 (x = 1): ZeroDivisionError: division by zero" in said
    assert "02-saved.ipynb was saved by another program" in said
    assert bad.read_bytes() == before
    assert "outputs" in saved.read_text() and saved.read_text().endswith(" ")
    assert '"fine\\n"' in fine.read_text()
    assert names(lessons) == ["01-bad.ipynb", "02-saved.ipynb", "03-fine.ipynb"]


def test_answers_are_not_overwritten(folder, monkeypatch, capsys):
    monkeypatch.setattr(course, "execute", lambda *ignored: None)
    solved = tagged(CODE("answer = 2"), "solution")
    notebook(folder / "notebooks" / "solutions" / "01-line.ipynb", solved, CODE("print(answer)"))
    exercise = folder / "notebooks" / "exercises" / "01-line.ipynb"
    assert course.main(["--inside", "render"]) == 0
    assert not course.is_answered(exercise)

    answered = nbformat.read(exercise, as_version=4)
    answered.cells[0].source = "answer = 3"
    nbformat.write(answered, exercise)
    assert course.main(["--inside", "render"]) == 1
    assert "--force notebooks/exercises/01-line.ipynb" in capsys.readouterr().out
    assert "answer = 3" in exercise.read_text()

    assert course.main(["--inside", "render", "--force", str(exercise)]) == 0
    assert "answer = ..." in exercise.read_text()


def test_an_exercise_that_cannot_be_read_counts_as_answered(folder):
    path = folder / "x.ipynb"
    assert not course.is_answered(path)
    path.write_text("not JSON")
    assert course.is_answered(path)
    path.write_text("{}")
    assert course.is_answered(path)


def test_a_name_that_fits_no_notebook_is_one_line(folder, capsys):
    assert course.main(["--inside", "render", "99"]) == 1
    assert "No notebook is named 99" in capsys.readouterr().err


def test_what_is_no_notebook_is_said(folder, capsys):
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "01-x.ipynb").write_text("torn")
    assert course.main(["--inside", "render"]) == 1
    assert "notebooks/01-x.ipynb is not a notebook" in capsys.readouterr().out


# ── doctor ──────────────────────────────────────────────────────────────────────────────────────


def test_doctor_installs_nothing(folder, monkeypatch, capsys):
    monkeypatch.setattr(course, "check_network", lambda: (True, "network: packages can be fetched"))
    assert course.main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "python3 course.py lab installs them" in said
    assert said.splitlines()[-1].startswith("This machine is not ready")
    assert names(folder) == ["requirements.txt"]


def test_doctor_ends_with_a_verdict(ran, monkeypatch, capsys):
    monkeypatch.setattr(course, "environment_state", lambda: "ready")
    monkeypatch.setattr(Path, "exists", lambda path: True)
    assert course.main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "This machine is ready for the course."


def test_doctor_tries_a_kernel_a_figure_and_a_widget():
    found = {}
    assert course.check_kernel(found)[0]
    assert course.check_figure(found)[0]
    assert course.check_widget(found)[0]


@pytest.fixture
def inside(folder, monkeypatch):
    """A ready machine whose checks inside give what is put here."""
    answer = {"text": json.dumps([[[True, "kernel: starts"]], {"numpy": "2.4.6"}])}
    monkeypatch.setattr(course, "environment_state", lambda: "ready")
    monkeypatch.setattr(course, "can_look_inside", lambda state: True)

    def run(command, **more):
        done = subprocess.CompletedProcess(command, 0)
        done.stdout = answer["text"].encode("utf-8")
        return done

    monkeypatch.setattr(subprocess, "run", run)
    return answer


def test_the_line_for_the_teacher_names_machine_and_versions(inside, capsys):
    assert course.main(["doctor", "--workshop"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    parts = line.split(" | ")
    assert parts[0] == "workshop: ok"
    assert parts[1].startswith("course ")
    assert parts[2] == f"Python {course.platform.python_version()}"
    assert course.platform.machine() in parts[3]
    assert parts[4].endswith(" GB free")
    assert parts[5] == "numpy 2.4.6"


@pytest.mark.parametrize(
    "text, failed",
    [
        (json.dumps([[[False, "data: Ada/hsb.csv is damaged"], [True, "x: y"]], {}]), "data"),
        ("Traceback", "packages"),
    ],
)
def test_the_line_for_the_teacher_says_what_fails_and_nothing_of_the_person(
    inside, folder, monkeypatch, capsys, text, failed
):
    inside["text"] = text
    monkeypatch.setattr(course, "check_disk", lambda: (False, f"disk: {folder} is full"))
    assert course.main(["doctor", "--workshop"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"workshop: FAILED (disk, {failed}) | ")
    assert str(folder) not in line and "Ada" not in line
    assert course.platform.node() not in line


def test_before_the_install_the_line_says_so(folder, monkeypatch, capsys):
    monkeypatch.setattr(course, "check_network", lambda: (False, "network: none"))
    assert course.main(["doctor", "--workshop"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("workshop: FAILED (packages, network) | ")
    assert line.endswith(" | no packages")


def test_doctor_s_checks_inside_can_be_read_by_a_program(monkeypatch, capsys):
    monkeypatch.setattr(course, "inside_checks", lambda: [lambda: (True, "data: fine")])
    assert course.main(["--inside", "doctor", "--json"]) == 0
    checks, versions = json.loads(capsys.readouterr().out)
    assert checks == [[True, "data: fine"]]
    assert set(versions) == {"jupyterlab", "numpy", "statsmodels"}


def test_doctor_takes_nothing_else(capsys):
    assert course.main(["doctor", "--quick"]) == 1
    assert "--workshop or nothing" in capsys.readouterr().err


def test_a_check_that_breaks_is_a_failed_check(capsys):
    def check():
        raise ValueError("data/hsb.csv is damaged")

    assert course.report([check]) == 1
    assert "ValueError: data/hsb.csv is damaged" in capsys.readouterr().out


def test_the_lock_s_versions_are_compared(folder):
    fine, text = course.check_versions()
    assert not fine
    assert "one is missing" in text


# ── site ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def site_installs(folder, monkeypatch):
    """Record what would be installed to build the site."""
    course.VENV.mkdir()
    course.SITE_LOCK.parent.mkdir(exist_ok=True)
    lines = []
    monkeypatch.setattr(course, "run_installers", lambda start, *made: lines.extend(made))
    return lines


@pytest.fixture(autouse=True)
def site_locks(tmp_path, monkeypatch):
    for name in ("SITE_LOCK", "LITE_LOCK"):
        lock = tmp_path / "locks" / f"{name}.txt"
        lock.parent.mkdir(exist_ok=True)
        lock.write_text("one==1.0 \\\n    --hash=sha256:00\n", encoding="utf-8")
        monkeypatch.setattr(course, name, lock)
    monkeypatch.setattr(course, "LITE_VENV", tmp_path / "lite-venv")


@pytest.mark.parametrize("uv", [True, False])
def test_what_builds_the_site_is_installed_once_and_again_for_another_lock(
    site_installs, monkeypatch, uv
):
    monkeypatch.setattr(course, "works", lambda command: uv)
    course.ensure_site_packages()
    course.ensure_site_packages()
    assert len(site_installs) == 1
    assert "--require-hashes" in site_installs[0]
    course.SITE_LOCK.write_text("other", encoding="utf-8")
    course.ensure_site_packages()
    assert len(site_installs) == 2


@pytest.mark.parametrize(
    "output, said",
    [("No module named pip", "Install uv"), ("Temporary failure in name resolution", "no network")],
)
def test_a_failed_install_for_the_site_is_one_line(site_installs, monkeypatch, output, said):
    monkeypatch.setattr(course, "run_installers", lambda *ignored: output)
    with pytest.raises(course.Trouble, match=said):
        course.ensure_site_packages()
    assert not (course.VENV / course.SITE_STAMP).exists()


def test_a_site_that_does_not_build_is_not_shown(ran, monkeypatch):
    monkeypatch.setattr(course, "ensure_site_packages", lambda: None)
    shown = []
    monkeypatch.setattr(course, "serve", lambda *where: shown.append(where))
    assert course.main(["site", "--serve", "--port", "8123", "--out", "here"]) == 0
    assert shown == [("here", 8123)]
    monkeypatch.setattr(course, "run_in_venv", lambda *line, **settings: 1)
    assert course.main(["site", "--serve", "--links"]) == 1
    assert len(shown) == 1


def test_runs_of_the_whole_course_note_nobody_s_progress(folder, monkeypatch):
    settings = []
    monkeypatch.setattr(course, "ensure_packages", lambda: None)
    monkeypatch.setattr(course, "ensure_site_packages", lambda: None)
    monkeypatch.setattr(course, "run_in_venv", lambda *line, **given: settings.append(given) or 0)
    for command in ("test", "render", "site"):
        course.main([command])
    assert [given["COURSE_PROGRESS"] for given in settings] == ["off"] * 3
