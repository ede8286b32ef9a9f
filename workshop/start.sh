#!/bin/sh
# Opens the course: sh start.sh
cd "$(dirname "$0")" || exit 1
# The Python that the packages in the folder wheels are for, if it is here.
for python in $(cut -d ' ' -f 1 wheels/machines.txt 2>/dev/null) python3; do
    "$python" --version >/dev/null 2>&1 && exec "$python" course.py lab "$@"
done
echo "There is no Python here. Install Python 3.11 to 3.14 and run this again." >&2
exit 1
