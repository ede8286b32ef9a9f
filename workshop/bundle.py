"""Make the offline bundle: `python3 course.py bundle` runs this with the course's packages.

The bundle is the course, the packages of its lock as wheels, and a start script, in one zip. A
wheel is taken only with a checksum that the lock names, when it is fetched and again when it is
packed. Wheels are kept in dist/wheels, so that an interrupted run goes on where it was, and the
zip replaces an older one only when it is whole.
"""

import argparse
import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import copies

import course

NAME = "beyond-parallel-lines"
CACHE = course.ROOT / "dist" / "wheels"
STARTERS = ("start.sh", "start.bat")
AT_A_TIME = 8


# ── Which machines ──────────────────────────────────────────────────────────────────────────────

# A name here: what Python's `platform` module says there, the values that markers in the lock ask
# for, and the tags of wheels that run on any such machine that is not very old.
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
MACOS = {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"}
WINDOWS = {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"}


def manylinux(machine):
    """Tags of wheels for glibc 2.28, which is of 2018, and before."""
    old = ["manylinux2014"] + ["manylinux2010", "manylinux1"] * (machine == "x86_64")
    return [f"{name}_{machine}" for name in [*(f"manylinux_2_{n}" for n in range(28, 4, -1)), *old]]


PLATFORMS = {
    "linux-x86_64": (LINUX, "x86_64", manylinux("x86_64")),
    "linux-aarch64": (LINUX, "aarch64", manylinux("aarch64")),
    "macos-arm64": (MACOS, "arm64", ["macosx_12_0_arm64"]),
    "macos-x86_64": (MACOS, "x86_64", ["macosx_12_0_x86_64"]),
    "windows-x86_64": (WINDOWS, "AMD64", ["win_amd64"]),
    "windows-arm64": (WINDOWS, "ARM64", ["win_arm64"]),
}
PYTHONS = [f"3.{minor}" for minor in range(course.OLDEST[1], course.TOO_NEW[1])]


def this_platform():
    """The name of this machine's platform; None where no bundle can be made for it."""
    here = platform.system(), platform.machine()
    for name, (system, machine, _) in PLATFORMS.items():
        if here == (system["platform_system"], machine):
            return name
    return None


def marker_values(name, python):
    """What the lock's markers are compared with on that platform and Python."""
    system, machine, _ = PLATFORMS[name]
    return {
        **system,
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_version": f"{python}.0",
        "extra": "",
    }


# ── The lock ────────────────────────────────────────────────────────────────────────────────────


def entries(lock, values):
    """The lock's entries that a machine needs: dicts of name, version, hashes and text to install.

    pip, fetching for another machine, would still compare markers with this one; so they are
    compared here and left out of the text.
    """
    found = []
    for block in re.findall(r"^\w.*\n(?:[ #].*\n)*", lock, re.MULTILINE):
        wanted = Requirement(block.splitlines()[0].rstrip(" \\"))
        if wanted.marker and not wanted.marker.evaluate(values):
            continue
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", block)
        version = str(wanted.specifier).removeprefix("==")
        options = "".join(f" --hash=sha256:{digest}" for digest in hashes)
        found.append(
            {
                "name": canonicalize_name(wanted.name),
                "version": version,
                "hashes": set(hashes),
                "text": f"{wanted.name}=={version}{options}\n",
            }
        )
    return found


def wheels_there(folder, wanted):
    """{name: path} of the wanted entries whose wheel lies in the folder, whole and unchanged."""
    by_name = {(entry["name"], entry["version"]): entry for entry in wanted}
    there = {}
    for path in sorted(folder.glob("*.whl")):
        name, version, *_ = parse_wheel_filename(path.name)
        entry = by_name.get((name, str(version)))
        if entry is None:
            continue
        if hashlib.sha256(path.read_bytes()).hexdigest() in entry["hashes"]:
            there[name] = path
        else:
            path.unlink()
    return there


# ── Fetching ────────────────────────────────────────────────────────────────────────────────────


def pip():
    """A pip that can fetch for other machines: that of the Python below .venv, or a fresh one."""
    python = course.base_python()
    probe = [python, "-m", "pip", "--version"]
    if subprocess.run(probe, capture_output=True).returncode == 0:
        return [python, "-m", "pip"]
    folder = course.ROOT / "dist" / "pip-venv"
    make = [python, "-m", "venv", "--clear", str(folder)]
    if not course.has_module("ensurepip"):
        make = ["uv", "venv", "--quiet", "--seed", "--clear", "--python", python, str(folder)]
        if not course.works("uv"):
            raise course.Trouble(
                "Fetching for other machines needs pip. Install pip or uv and run this again."
            )
    output = course.run_installers(0, make)
    if output:
        raise course.Trouble(course.explain(output))
    return [str(folder / ("Scripts/python.exe" if course.WINDOWS else "bin/python")), "-m", "pip"]


def fetch(name, python, lock):
    """The paths of all wheels that the platform and Python need, fetched unless they are there."""
    folder = CACHE / f"{name}-{python}"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = entries(lock, marker_values(name, python))
    there = wheels_there(folder, wanted)
    missing = [entry for entry in wanted if entry["name"] not in there]
    line = course.LiveLine(every=10)
    fetcher = pip() if missing else []
    for start in range(0, len(missing), AT_A_TIME):
        done = len(wanted) - len(missing) + start
        line.show(f"  {name}, Python {python}: {done} of {len(wanted)} packages")
        fetch_some(fetcher, missing[start : start + AT_A_TIME], name, python, folder)
    line.clear()
    if missing:
        there = wheels_there(folder, wanted)
    lost = [entry["name"] for entry in wanted if entry["name"] not in there]
    if lost:
        raise course.Trouble(f"These packages did not arrive: {', '.join(lost)}. Run this again.")
    print(course.mark(True), f"{name}, Python {python}: {len(there)} packages", flush=True)
    return list(there.values())


def fetch_some(fetcher, some, name, python, folder):
    """Let pip fetch a few entries into the folder, for that platform and Python."""
    command = [*fetcher, "download", "--no-input", "--disable-pip-version-check", "--no-deps"]
    command += ["--dest", str(folder), "--implementation", "cp", "--python-version", python]
    command += [part for tag in PLATFORMS[name][2] for part in ("--platform", tag)]
    with tempfile.TemporaryDirectory() as passing:
        lock = Path(passing, "some.txt")
        lock.write_text("".join(entry["text"] for entry in some), encoding="utf-8")
        done = subprocess.run(
            [*command, *course.lock_options(lock)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=course.course_environment(installing=True),
        )
    if done.returncode:
        if re.search("no matching distribution", done.stdout, re.IGNORECASE):
            found = re.findall(r"requirement (\S+)", done.stdout)
            if not re.search(course.NO_NETWORK, done.stdout, re.IGNORECASE):
                raise course.Trouble(
                    f"There is no package of {(found or ['one'])[-1]} for {name} and Python "
                    f"{python}. Leave that platform out, or ask for another Python."
                )
        raise course.Trouble(course.explain(done.stdout))


# ── The zip ─────────────────────────────────────────────────────────────────────────────────────


def write_zip(target, files, wheels, machines):
    """Write the zip whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.draft")
    line = course.LiveLine(every=10)
    try:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name in STARTERS:
                bundle.write(course.ROOT / "workshop" / name, f"{NAME}/{name}")
            for path in files:
                bundle.write(course.ROOT / path, f"{NAME}/{path.as_posix()}")
            bundle.writestr(f"{NAME}/wheels/{course.MACHINES}", "".join(machines))
            for number, path in enumerate(wheels, 1):
                line.show(f"  packing {number} of {len(wheels)} packages")
                # A wheel is compressed already.
                bundle.write(path, f"{NAME}/wheels/{path.name}", zipfile.ZIP_STORED)
        os.replace(draft, target)
    finally:
        line.clear()
        draft.unlink(missing_ok=True)


def build(platforms, pythons, target):
    """Fetch what is missing and write the bundle."""
    files = copies.course_files(course.ROOT)
    copies.refuse_answers(course.ROOT, files)
    lock = course.LOCK.read_text(encoding="utf-8")
    wheels, machines = {}, []
    for name in platforms:
        system, machine, _ = PLATFORMS[name]
        for python in pythons:
            wheels.update((path.name, path) for path in fetch(name, python, lock))
            machines.append(f"python{python} {system['platform_system']} {machine}\n")
    write_zip(target, files, [wheels[name] for name in sorted(wheels)], machines)
    size = target.stat().st_size / 1e6
    print(course.mark(True), f"{course.shown(target)}: {len(wheels)} packages, {size:.0f} MB")


def parsed(arguments):
    here = f"3.{sys.version_info[1]}"
    parser = argparse.ArgumentParser(prog="course.py bundle", description=course.bundle.__doc__)
    parser.add_argument(
        "--platform",
        nargs="+",
        choices=[*PLATFORMS, "all"],
        help="the learners' machines; this machine's kind without it",
    )
    parser.add_argument(
        "--python", nargs="+", choices=PYTHONS, default=[here], help=f"their Pythons; {here}"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=course.ROOT / "dist" / f"{NAME}-bundle.zip",
        help="the file to write",
    )
    options = parser.parse_args(arguments)
    if options.platform is None:
        options.platform = [this_platform()]
    if "all" in options.platform:
        options.platform = list(PLATFORMS)
    if None in options.platform:
        raise course.Trouble(
            f"No bundle can be made for {platform.system()} {platform.machine()}. Name the "
            f"learners' machines: --platform {' '.join(PLATFORMS)}."
        )
    return options


def main(arguments):
    try:
        options = parsed(arguments)
        build(
            list(dict.fromkeys(options.platform)),
            list(dict.fromkeys(options.python)),
            options.out.resolve(),
        )
    except course.Trouble as trouble:
        print(trouble, file=sys.stderr)
    except OSError as error:
        print(course.plain(error), file=sys.stderr)
    except KeyboardInterrupt:
        print("Stopped. What was fetched is kept; the same command goes on there.", file=sys.stderr)
        return 130
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
