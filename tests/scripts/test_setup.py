"""`scripts/setup.sh` on machines that lack something: one line says what, and what to do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def python_that(tmp_path: Path, body: str) -> str:
    """A stand-in for python3, as a shell script."""
    path = tmp_path / "python"
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)
    return str(path)


def set_up(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPTS / "setup.sh", tmp_path / "scripts")
    return subprocess.run(
        ["bash", str(tmp_path / "scripts" / "setup.sh")],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


CREATES_A_VENV = """
[ "$1 $2" = "-m venv" ] && { mkdir -p "$3/bin"; cp "$PIP" "$3/bin/python"; }
[ "$1" = --version ] && echo "Python 3.12.0"
exit 0
"""


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('[[ "$*" == *version_info* ]] && exit 1; echo Python 3.9.2', "3.9.2: too old"),
        ('[[ "$*" == *ensurepip* ]] && exit 1; exit 0', "apt-get install python3-venv"),
        ('[[ "$*" == "-m venv"* ]] && exit 1; exit 0', ".venv could not be created"),
    ],
)
def test_what_python_lacks_is_named(tmp_path: Path, body: str, says: str) -> None:
    result = set_up(tmp_path, PYTHON=python_that(tmp_path, body))
    assert result.returncode == 1
    assert says in result.stderr
    assert not (tmp_path / ".venv" / ".installed").exists()


def test_no_python_at_all(tmp_path: Path) -> None:
    result = set_up(tmp_path, PYTHON="python-that-is-nowhere")
    assert result.returncode == 1
    assert "python-that-is-nowhere: not found; install Python 3.11" in result.stderr


@pytest.mark.parametrize(
    ("pip_says", "says"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: No matching distribution found for torch", "cannot reach a package registry"),
        ("something else", "its last lines are above"),
    ],
)
def test_what_stops_pip_is_named(tmp_path: Path, pip_says: str, says: str) -> None:
    pip = tmp_path / "pip"
    pip.write_text(f"#!/usr/bin/env bash\necho '{pip_says}' >&2\nexit 1\n")
    pip.chmod(0o755)
    result = set_up(tmp_path, PYTHON=python_that(tmp_path, CREATES_A_VENV), PIP=str(pip))
    assert result.returncode == 1
    assert pip_says in result.stderr and says in result.stderr
    assert not (tmp_path / ".venv" / ".installed").exists()


def test_a_disk_that_is_too_small_is_found_before_anything_is_downloaded(tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    commands.mkdir()
    df = commands / "df"
    df.write_text("#!/usr/bin/env bash\necho 'Filesystem'\necho 'disk 9 9 3145728 1% /'\n")
    df.chmod(0o755)
    result = set_up(
        tmp_path,
        PYTHON=python_that(tmp_path, CREATES_A_VENV),
        PATH=f"{commands}:{os.environ['PATH']}",
    )
    assert result.returncode == 1
    assert "3 GiB free here, 8 GiB needed" in result.stderr
    assert not (tmp_path / ".venv").exists()
