"""The settings of a data set."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from bn_inception.data.pixels.backend import Backend
from bn_inception.errors import UserError, require_at_least
from bn_inception.files import expanded, is_url
from bn_inception.quoting import shell_command


class DataKind(Enum):
    """What kind of data set lies at the root."""

    folder = "folder"  # ImageNet's layout
    imagenet = "imagenet"  # the same, with ImageNet's counts checked
    tiny_imagenet = "tiny_imagenet"  # the same, or that set's original layout
    shards = "shards"  # what `bn-inception prepare` makes
    synthetic = "synthetic"  # drawn by this package into `cache`


class OnError(Enum):
    """What happens at an unreadable image: the run ends, or the next image takes its place."""

    fail = "fail"
    skip = "skip"


@dataclass
class DataConfig:
    """Which images, and how many processes read them."""

    kind: DataKind = DataKind.synthetic
    root: str | None = None  # folder that holds train/ and val/, or the shards; or the shards' URL
    cache: str = "~/.cache/bn-inception"  # for the synthetic images, and for shards from a URL
    first_classes: int | None = None  # only the first N classes in label order; null for all
    # processes that read images; 0 reads in the main process; null chooses by cores
    workers: int | None = None
    on_error: OnError = OnError.fail
    backend: Backend = Backend.fast

    def __post_init__(self) -> None:
        if self.root is not None:
            _refuse_secrets(self.root)
        if self.kind is DataKind.synthetic and self.root is not None:
            raise UserError(
                f"data.root: {self.root!r} is not read by data=synthetic; "
                "choose data=folder, data=imagenet, data=tiny_imagenet or data=shards, or leave "
                "data.root out"
            )
        require_at_least("data.first_classes", self.first_classes, 2, "; null: all")
        why = "; 0 starts no extra process, null fits their number to the cores"
        require_at_least("data.workers", self.workers, 0, why)


def audit_command(config: DataConfig) -> str | None:
    """The command that audits a run's data set; None where there is nothing to audit."""
    if config.root is None or is_url(config.root):
        return None
    words = ["bn-inception", "audit", f"data={config.kind.value}", f"data.root={config.root}"]
    if config.first_classes is not None:
        words.append(f"data.first_classes={config.first_classes}")
    return shell_command(words)


def audit_record(config: DataConfig, fingerprint: str) -> Path:
    """Where the last audit of these images in this folder is kept, for runs to look."""
    where = os.fsencode(f"{Path(config.root or '').resolve()}\0{fingerprint}")
    name = hashlib.sha256(where).hexdigest()[:16]
    return expanded(config.cache) / "audits" / f"{name}.json"


def _refuse_secrets(root: str) -> None:
    """Refuse a URL with credentials, because the run's record holds it; do not print them."""
    hosts = re.findall(r"://([^/?#]*)", root)  # chained URLs have several
    if any("@" in host or not re.fullmatch(r"[^:]*(:\d*)?|\[.*\](:\d*)?", host) for host in hosts):
        what = "credentials (USER:PASSWORD@)"
    elif hosts and re.search(r"[?#]", root):
        what = "a query (?...) or a fragment (#...)"
    else:
        return
    raise UserError(
        f"data.root: a URL with {what} is refused, because it would stand in the run's record; "
        "give scheme://HOST/PATH alone, and credentials where the storage's package looks for "
        "them: environment variables or its own configuration file"
    )


def refuse_unread(config: DataConfig, command: str, remedies: Mapping[str, str]) -> None:
    """Refuse settings that a command does not read, unless they are the default; with a remedy."""
    default = DataConfig()
    for key, remedy in remedies.items():
        value = getattr(config, key)
        if value != getattr(default, key):
            shown = value.value if isinstance(value, Enum) else value
            raise UserError(f"data.{key}: {shown} is not read by {command}; {remedy}")
