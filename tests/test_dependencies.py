"""pyproject.toml, the lock and environment.yml say the same, and the lock is whole."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import course

ROOT = Path(__file__).resolve().parent.parent
# conda-forge splits these, and the plain name brings a desktop toolkit along.
CONDA_NAMES = {"matplotlib": "matplotlib-base", "seaborn": "seaborn-base"}


@pytest.fixture
def project():
    return (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.fixture
def lock():
    return (ROOT / "requirements.txt").read_text(encoding="utf-8")


@pytest.fixture(params=["site", "lite"])
def group(request):
    """A group of pyproject.toml that has a lock of its own: its requirements and that lock."""
    lock = {"site": "site/requirements.txt", "lite": "site/lite.txt"}[request.param]
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [Requirement(line) for line in groups["dependency-groups"][request.param]]
    return wanted, (ROOT / lock).read_text(encoding="utf-8")


@pytest.fixture
def conda():
    return (ROOT / "environment.yml").read_text(encoding="utf-8")


# Each check takes the text of files and returns what is wrong with them, a line each, so that the
# last tests can show that a broken file does not pass.


def direct_dependencies(project, *, extras):
    """The requirements of pyproject.toml, with those of its extras or without."""
    table = tomllib.loads(project)["project"]
    lines = list(table["dependencies"])
    if extras:
        lines += [line for group in table["optional-dependencies"].values() for line in group]
    return [Requirement(line) for line in lines]


def locked_entries(lock):
    """Each entry of the lock: its requirement and the text of its hashes and comments."""
    entries = re.findall(r"^(\w.*?)(?: \\)?\n((?:[ #].*\n?)*)", lock, re.MULTILINE)
    return [(Requirement(head), rest) for head, rest in entries]


def faults_of_lock(lock):
    """An entry is one version with a hash, and nothing says where it is to come from."""
    faults = [
        f"an address: {line}"
        for line in lock.splitlines()
        if re.search(r"://|--[a-z-]*index|--find-links|file:| @ ", line)
    ]
    for locked, rest in locked_entries(lock):
        if not re.fullmatch(r"==[^*,]+", str(locked.specifier)):
            faults.append(f"{locked.name} is not locked to one version")
        hashes = re.findall(r"--hash=(\S+)", rest)
        if not hashes or not all(re.fullmatch("sha256:[0-9a-f]{64}", text) for text in hashes):
            faults.append(f"{locked.name} has no sound hash")
    return faults


def faults_of_ranges(project, lock):
    """What pyproject.toml asks for is locked, within the range it gives."""
    return faults_of_wanted(direct_dependencies(project, extras=True), lock)


def faults_of_wanted(requirements, lock):
    locked = {canonicalize_name(entry.name): entry for entry, _ in locked_entries(lock)}
    faults = []
    for wanted in requirements:
        entry = locked.get(canonicalize_name(wanted.name))
        if entry is None:
            faults.append(f"{wanted.name} is not in the lock")
            continue
        version = str(entry.specifier).removeprefix("==")
        if not wanted.specifier.contains(version, prereleases=True):
            faults.append(f"{wanted.name} is locked at {version}, not {wanted.specifier}")
    return faults


def faults_of_conda(project, conda):
    """environment.yml asks for the same names in the same ranges, and for a Python that serves."""
    entries = [text for text in yaml.safe_load(conda)["dependencies"] if isinstance(text, str)]
    packages = [text for text in entries if not re.match(r"(python|pip)\b", text)]
    given = {entry.name: entry.specifier for entry in map(Requirement, packages)}
    wanted = {
        CONDA_NAMES.get(entry.name, entry.name): entry.specifier
        for entry in direct_dependencies(project, extras=False)
    }
    faults = [f"{name} is missing" for name in sorted(wanted.keys() - given.keys())]
    faults += [f"{name} is not wanted" for name in sorted(given.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & given.keys()):
        if wanted[name] != given[name]:
            faults.append(f"{name} is asked for as {given[name]}, not {wanted[name]}")
    return faults + faults_of_python(project, entries)


def faults_of_python(project, entries):
    """Binder reads one minor version, which pyproject.toml and course.py must both take."""
    pins = [text.removeprefix("python=") for text in entries if text.startswith("python=")]
    if len(pins) != 1 or not re.fullmatch(r"3\.\d+", pins[0]):
        return [f"python is pinned to {pins}, not to one minor version"]
    minor = tuple(map(int, pins[0].split(".")))
    asked = tomllib.loads(project)["project"]["requires-python"]
    faults = []
    if asked != f">={course.OLDEST[0]}.{course.OLDEST[1]}":
        faults.append(f"requires-python is {asked}; course.py begins at {course.OLDEST}")
    if not course.OLDEST <= minor < course.TOO_NEW:
        faults.append(f"python {pins[0]} is not one that course.py takes")
    return faults


def faults_of_closure(lock):
    """What a locked package needs on this machine is locked too."""
    entries = [entry for entry, _ in locked_entries(lock)]
    entries = [entry for entry in entries if entry.marker is None or entry.marker.evaluate()]
    names = {canonicalize_name(entry.name) for entry in entries}
    faults = []
    for entry in entries:
        try:
            needs = [Requirement(line) for line in requires(entry.name) or []]
        except PackageNotFoundError:
            faults.append(f"{entry.name} is locked and not installed")
            continue
        faults += [
            f"{entry.name} needs {need.name}, which is not in the lock"
            for need in needs
            if need.marker is None or need.marker.evaluate({"extra": ""})
            if canonicalize_name(need.name) not in names
        ]
    return faults


def test_the_lock_is_sound(lock):
    assert len(locked_entries(lock)) > 100
    assert faults_of_lock(lock) == []


def test_the_site_s_locks_are_sound_and_hold_what_is_asked_for(group):
    wanted, lock = group
    assert faults_of_lock(lock) == []
    assert faults_of_wanted(wanted, lock) == []


def test_building_the_site_changes_no_package_of_the_course(lock):
    # Its packages go into the same environment.
    course_s, site_s = (
        {entry.name: entry.specifier for entry, _ in locked_entries(text)}
        for text in (lock, (ROOT / "site" / "requirements.txt").read_text(encoding="utf-8"))
    )
    shared = course_s.keys() & site_s.keys()
    assert len(shared) > 20
    assert {name: site_s[name] for name in shared} == {name: course_s[name] for name in shared}


def test_the_lock_holds_what_the_project_asks_for(project, lock):
    assert faults_of_ranges(project, lock) == []


def test_the_lock_holds_what_its_packages_need(lock):
    assert faults_of_closure(lock) == []


def test_conda_s_environment_agrees_with_the_project(project, conda):
    assert faults_of_conda(project, conda) == []


def test_conda_s_environment_brings_the_course_s_own_package(conda):
    # Binder recognises this spelling, and then copies the course before it installs.
    assert yaml.safe_load(conda)["dependencies"][-1] == {"pip": ["-e ."]}


@pytest.mark.parametrize(
    "pattern, replacement, fault",
    [
        (r"(?m)^numpy==\S+", "numpy>=2.4", "numpy is not locked to one version"),
        (r"(numpy==\S+ \\\n)(    --hash.*\n)+", r"\1", "numpy has no sound hash"),
        (r"--hash=sha256:[0-9a-f]{64}", "--hash=md5:0", "has no sound hash"),
        (r"\A", "--index-url mirror\n", "an address"),
        (r"\A", "one @ file:///wheels/one.whl\n", "an address"),
    ],
)
def test_a_broken_lock_is_seen(lock, pattern, replacement, fault):
    broken = re.sub(pattern, replacement, lock, count=1)
    assert broken != lock
    assert any(fault in text for text in faults_of_lock(broken))


@pytest.mark.parametrize(
    "pattern, replacement, fault",
    [
        (r'"numpy>=2.4,<2.5"', '"numpy>=9"', "numpy is locked at"),
        (
            r'"numpy>=2.4,<2.5"',
            '"numpy>=2.4,<2.5", "unheard-of>=1"',
            "unheard-of is not in the lock",
        ),
        (r'"pytest>=9,<10"', '"pytest>=10"', "pytest is locked at"),
    ],
)
def test_a_range_that_the_lock_misses_is_seen(project, lock, pattern, replacement, fault):
    broken = project.replace(pattern, replacement)
    assert broken != project
    assert any(fault in text for text in faults_of_ranges(broken, lock))


def test_a_missing_need_is_seen(lock):
    broken = re.sub(r"(?m)^patsy==.*\n(    .*\n)*", "", lock)
    assert "statsmodels needs patsy, which is not in the lock" in faults_of_closure(broken)


@pytest.mark.parametrize(
    "given, replacement, fault",
    [
        ("  - scipy>=1.17,<1.18\n", "", "scipy is missing"),
        ("scipy>=1.17,<1.18", "scipy>=1.16,<1.18", "scipy is asked for as"),
        ("  - pip\n", "  - pip\n  - polars>=1\n", "polars is not wanted"),
        ("matplotlib-base", "matplotlib", "matplotlib-base is missing"),
        ("python=3.13", "python>=3.11", "python is pinned to []"),
        ("python=3.13", "python=3.10", "not one that course.py takes"),
    ],
)
def test_a_conda_environment_that_differs_is_seen(project, conda, given, replacement, fault):
    broken = conda.replace(given, replacement)
    assert broken != conda
    assert any(fault in text for text in faults_of_conda(project, broken))
