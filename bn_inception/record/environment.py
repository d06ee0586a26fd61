"""`environment.json`: what a run was made with, without saying on whose machine."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
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
    """Describe the code, the software, the machine and the data of this process, JSON-able.

    There is no user name, host name or absolute path in it. None stands for what is not known or
    not installed. `gpus` are names of the devices in use, such as "NVIDIA H100".
    """
    # Containers and schedulers often allow fewer cores than the machine has.
    allowed = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if allowed else os.cpu_count()
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
        "cpu": {"model": _cpu_model(), "cores": cores},
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
    program, others = arguments[:1], arguments[1:]
    return [*(Path(path).name for path in program), *map(_without_paths, others)]


def _without_paths(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if argument.startswith(_PATH):
        return without_folders(argument)
    if value.startswith(_PATH):
        # Whole, whatever characters are in it.
        return f"{key}{equals}{without_folders(value)}"
    return _INNER_PATH.sub(lambda match: f"{match[1]}.../{Path(match[0]).name}", argument)


def without_folders(text: str) -> str:
    """An absolute or home path shortened to `.../` and its last part; any other text as it is."""
    return f".../{Path(text).name}" if text.startswith(_PATH) else text


def git_state(checkout: Path) -> dict[str, str | bool | None]:
    """The commit of the package's checkout, and whether code or configs differ from it.

    Both are None where the package is installed elsewhere (a wheel), without git or commit.
    """
    # GIT_DIR and its kin, set inside a hook, would point at another repository.
    environment = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(checkout), *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=30, env=environment, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # An environment inside some other checkout is not that checkout's code.
    own = git("ls-files", "--error-unmatch", "bn_inception/errors.py") is not None
    commit = git("rev-parse", "--verify", "HEAD") if own else None
    changes = git("status", "--porcelain", "--", "bn_inception", "configs") if commit else None
    return {"commit": commit, "dirty": None if changes is None else changes != ""}


def _cpu_model() -> str | None:
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if match := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
            return match[1].strip()
    return platform.processor() or None
