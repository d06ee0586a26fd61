"""`environment.json`: what a run was made with, without saying on whose machine."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from bn_inception.errors import UserError
from bn_inception.fields import read_object
from bn_inception.files import write_json, write_text
from bn_inception.record.run_folder import RunFolder

_PACKAGES = ("bn_inception", "torch", "torchvision", "numpy", "pillow")

_PATH = ("/", "~", "file:/")
# A path begins the argument, or the value after `=`, a quote, a bracket or a comma.
_INNER_PATH = re.compile(r"(^|[=,\[{:'\"\s])(?:file://)?(?:~[^/\s]*/|/)[^,\]}'\"]*")


def describe(data_fingerprint: str, *, gpus: Sequence[str] = ()) -> dict[str, Any]:
    """Describe the code, the software, the machine and the data of this process.

    Args:
        data_fingerprint: of the data set trained on.
        gpus: names of the devices in use, such as "NVIDIA H100".

    Returns:
        A JSON-able dict without a user name, host name or absolute path; None stands for what is
        not known or not installed.
    """
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "command": command_line(sys.argv),
        "git": git_state(Path(__file__).resolve().parents[2]),
        "versions": versions,
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": {"model": _cpu_model(), "cores": _usable_cores()},
        "gpus": list(gpus),
        "data_fingerprint": data_fingerprint,
    }


def write_environment(
    folder: RunFolder,
    config_text: str,
    environment: Mapping[str, Any],
    resumed_at: int | None = None,
    changed: Mapping[str, tuple[Any, Any]] | None = None,
) -> None:
    """Write `config.yaml` and `environment.json`.

    Where the run was resumed, at step `resumed_at`, the latter keeps the environment that it was
    started in, and this one is appended to the list `resumed`. Settings that are others from here
    on, (before, after) by key, are appended to the list `changes`.
    """
    if resumed_at is None:
        write_text(folder.config, config_text)
        write_json(folder.environment, environment)
        return
    first = read_environment(folder.environment)
    first["resumed"] = [*first.get("resumed", []), {"step": resumed_at, **environment}]
    if changed:
        change = {"step": resumed_at, "changed": {k: list(v) for k, v in changed.items()}}
        first["changes"] = [*first.get("changes", []), change]
    write_json(folder.environment, first)
    if changed:
        write_text(folder.config, config_text)


def read_environment(path: Path) -> dict[str, Any]:
    """Read `environment.json`; UserError where it is not what `write_environment` writes."""
    remedy = "restore it from a copy, or start again under another run.name"
    values = read_object(path, remedy).values
    for key in ("resumed", "changes"):
        if not isinstance(values.get(key, []), list):
            raise UserError(f"{path}: {key!r} is no list; {remedy}")
    return dict(values)


def command_line(arguments: Sequence[str]) -> list[str]:
    """The arguments, with every absolute or home path replaced by `.../` and its last part."""
    shortened = [Path(argument).name for argument in arguments[:1]]
    for argument in arguments[1:]:
        key, equals, value = argument.partition("=")
        if argument.startswith(_PATH):
            argument = without_folders(argument)
        elif value.startswith(_PATH):
            # Whole, whatever characters are in it.
            argument = f"{key}{equals}{without_folders(value)}"
        else:
            argument = _INNER_PATH.sub(_last_part, argument)
        shortened.append(argument)
    return shortened


def _last_part(match: re.Match[str]) -> str:
    return f"{match[1]}.../{Path(match[0]).name}"


def without_folders(text: str) -> str:
    """An absolute or home path shortened to `.../` and its last part; any other text as it is."""
    if not text.startswith(_PATH):
        return text
    return f".../{Path(text).name}"


def git_state(checkout: Path) -> dict[str, str | bool | None]:
    """The commit of the package's checkout, and whether code or configs differ from it.

    Both are None where the package is installed elsewhere (a wheel), where git is missing, and
    before the first commit.
    """
    unknown: dict[str, str | bool | None] = {"commit": None, "dirty": None}
    # An environment inside some other checkout is not that checkout's code.
    tracked = _git(checkout, "ls-files", "--error-unmatch", "bn_inception/errors.py")
    commit = _git(checkout, "rev-parse", "--verify", "HEAD")
    if tracked is None or commit is None:
        return unknown
    changes = _git(checkout, "status", "--porcelain", "--", "bn_inception", "configs")
    return {"commit": commit, "dirty": None if changes is None else changes != ""}


def _git(folder: Path, *arguments: str) -> str | None:
    # GIT_DIR and its kin, set inside a hook, would point at another repository.
    environment = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _cpu_model() -> str | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or None
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or None


def _usable_cores() -> int | None:
    # Containers and schedulers often allow fewer cores than the machine has.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()
