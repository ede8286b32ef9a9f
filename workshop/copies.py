"""Which files make up the course, and how a learner gets a copy without losing one of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import course

# What a learner in a classroom opens. course.py stays behind: in a copy it would install anew.
FOR_LEARNERS = ("notebooks", "helpers", "data", "README.md", "LICENSE", "CITATION.cff")
# Made on this machine, or of nobody's concern elsewhere; for a course that came without git.
LEFT_OUT = {"_site", "classroom", "dist", "wheels", "start.sh", "start.bat"}
HIDDEN_BUT_OURS = {".ci", ".gitattributes", ".github", ".gitignore"}


def course_files(root):
    """The course's own files, as paths relative to root, in order."""
    if (root / ".git").exists() and course.works("git"):
        done = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True)
        if done.returncode == 0:
            names = done.stdout.decode("utf-8").split("\0")
            return sorted(Path(name) for name in names if name and (root / name).is_file())
    return sorted(walk(root, root))


def walk(root, folder):
    """All files below a folder but those that are not the course's."""
    for path in folder.iterdir():
        hidden = path.name.startswith(".") and path.name not in HIDDEN_BUT_OURS
        if hidden or path.name == "__pycache__" or (folder == root and path.name in LEFT_OUT):
            continue
        if path.is_dir():
            yield from walk(root, path)
        else:
            yield path.relative_to(root)


def refuse_answers(root, files):
    """Exercises that someone has begun to answer are not handed to learners."""
    answered = [
        path
        for path in files
        if path.parts[:2] == ("notebooks", "exercises")
        if path.suffix == ".ipynb" and course.is_answered(root / path)
    ]
    if answered:
        names = " ".join(path.as_posix() for path in answered)
        raise course.Trouble(
            "These exercises hold answers, which learners would get. Keep a copy and start them "
            f"afresh: python3 course.py render --force {names}"
        )


def learners_files(root):
    """Those of the course's files that a learner in a classroom gets."""
    return [path for path in course_files(root) if path.parts[0] in FOR_LEARNERS]


def make_template(root, template):
    """Put what learners get into the folder `template`, in place of what was there."""
    files = learners_files(root)
    refuse_answers(root, files)
    draft = template.with_name(f"{template.name}.draft")
    for stale in (draft, template):
        shutil.rmtree(stale, ignore_errors=True)
    for path in files:
        (draft / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / path, draft / path)
    draft.rename(template)


def give_copy(source, home):
    """Copy to `home` what learners get and is not there yet; returns how many files.

    A file that is there is never touched, so edits stay, whatever has changed in the course; a
    file that was renamed or deleted comes back as it was. Each file appears in one step: a copy
    that is cut off leaves no half of one.
    """
    given = 0
    for path in learners_files(source):
        target = home / path
        if target.exists() or target.is_symlink():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.draft")
        shutil.copy2(source / path, draft)
        os.replace(draft, target)
        given += 1
    return given


if __name__ == "__main__":
    # On Kubernetes: `python copies.py FROM TO`, in each learner's container as it starts.
    print(give_copy(Path(sys.argv[1]), Path(sys.argv[2])), "files given")
