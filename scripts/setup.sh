#!/usr/bin/env bash
# Creates .venv and installs bn-inception into it, with everything its tests need. Prints what it does;
# when something is missing, one line says what and what to do.
#   scripts/setup.sh            PYTHON=python3.12 scripts/setup.sh
set -u
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
needed_gib=8 # torch with its CUDA libraries is 5.4 GiB, its downloads come beside it

fail() {
    echo "setup: $1" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "$python: not found; install Python 3.11 or newer, or set PYTHON"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version): too old; install Python 3.11 or newer, or set PYTHON=python3.12"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python has no venv module; install it (Debian and Ubuntu: apt-get install python3-venv)"

if ! [ -x .venv/bin/bn-inception ]; then
    free_gib=$(($(df -Pk . | awk 'NR == 2 { print $4 }') / 1024 / 1024))
    [ "$free_gib" -ge "$needed_gib" ] ||
        fail "$free_gib GiB free here, $needed_gib GiB needed for torch; make room and start again"
fi

echo "setup: creating .venv with $("$python" --version)"
"$python" -m venv .venv || fail ".venv could not be created; delete the folder and start again"
echo "setup: installing bn-inception and its dependencies (torch is large: some minutes)"
log=$(mktemp)
if ! .venv/bin/python -m pip install --disable-pip-version-check --quiet \
    -c constraints.txt -e '.[dev,remote]' >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    if grep -q 'No space left on device' "$log"; then
        fail "the disk is full; make room ($needed_gib GiB) and start again"
    elif grep -qE 'NewConnectionError|ConnectTimeout|Name or service not known|No matching distribution' "$log"; then
        fail "pip cannot reach a package registry that has these versions; check the network or pip's settings"
    fi
    fail "pip could not install; its last lines are above, all of them in $log"
fi
rm -f "$log"
touch .venv/.installed
echo "setup: done; .venv/bin/bn-inception --help shows the commands"
