"""The run folder, `outputs/<run.name>/`: its name, its layout, its one writer, what is refused."""

import errno
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bn_inception.errors import UserError
from bn_inception.files import expanded, first_line, is_left_over, locked, refusing, sync_folder

_logger = logging.getLogger(__name__)

NOT_COMPUTED = ("machine.", "probe.", "data.root", "data.cache", "data.workers", "data.on_error")
"""Keys, or their beginnings, that say where and how a run is made, and nothing of what it is."""
SAME_RUN = ("train.", "run.name", "run.root", "run.resume", *NOT_COMPUTED)
"""Keys, or their beginnings, that change neither the network nor the order of its images: a run may
continue with others."""
_NAMED = ("run.seed", "recipe.name", "scale.name", "data.kind")
_APART = ("machine=", "milestones=", "hydra.")
LONGEST = 80
_LOCK = ".lock"
# 255 bytes are the limit of a file name on common file systems.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")


def suffix(words: Iterable[str]) -> str:
    """What follows a run's usual name, such as `-dropout0.4`: so that a changed run is another one.

    The same whatever the order of the words, and whatever is changed when a run continues. Where it
    would be longer than LONGEST, a hash stands for it. `words` are the `key=value` that were given.
    """
    said = {}
    for word in words:
        if not word.startswith((*SAME_RUN, *_NAMED, *_APART)):
            key, _, value = word.partition("=")
            said[key] = f"{key.rpartition('.')[2] if '.' in key else ''}{value}"
    parts = [re.sub(r"[^A-Za-z0-9_.+]+", "-", said[key]).strip("-.") for key in sorted(said)]
    text = "-".join(part for part in parts if part)
    if len(text) > LONGEST:
        text = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"-{text}" if text else ""


def refuse_links(folder: Path) -> None:
    """Refuse a run folder that holds a link out of it, or what is neither a file nor a folder.

    A folder that somebody sent may link to any file of this machine. It may itself be a link.
    """

    def unless_missing(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise UserError(f"{folder}: cannot be read ({first_line(error)})") from error

    root = os.path.realpath(folder)
    for place, folders, files in os.walk(folder, onerror=unless_missing):
        for path in (Path(place, name) for name in sorted(folders + files)):
            if path.is_symlink():
                if os.path.commonpath([root, os.path.realpath(path)]) != root:
                    raise UserError(
                        f"{path}: a link that leads out of the run folder; put what it leads to in "
                        "its place, or leave it out"
                    )
            elif not path.is_dir() and not path.is_file():
                raise UserError(f"{path}: neither a file nor a folder; remove it")


class RunFolder(ExitStack):
    """One run's files, and the exclusive right to write them.

    ```
    <root>/<name>/
        config.yaml        the composed configuration
        environment.json   code, versions, machine, data
        metrics.jsonl      the record, one JSON object a line
        summary.json       what the run has come to
        train.log          what was said meanwhile, for people
        tensorboard/       a mirror of the metrics
        checkpoints/
    ```

    Nothing is touched until `create` or `open_for_resume`; both take a lock that lasts until
    `close` or the end of the process, whichever way it ends.

    A name that is no plain folder name is a UserError.
    """

    def __init__(self, root: str | Path, name: str) -> None:
        super().__init__()
        if not _NAME.fullmatch(name):
            raise UserError(
                f"run.name: {name!r} is not a folder name; use up to 200 letters, digits and "
                "_ . + -, beginning with a letter, a digit or _"
            )
        self.name = name
        self.path = expanded(str(root)) / name
        self.config = self.path / "config.yaml"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.log = self.path / "train.log"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"

    def has_run(self) -> bool:
        """Whether the folder holds any file of a run.

        Empty folders, the lock and what a killed process had not finished writing do not count.
        """
        return any(
            not is_left_over(name) and (name != _LOCK or Path(folder) != self.path)
            for folder, _, names in os.walk(self.path)
            for name in names
        )

    def create(self) -> None:
        """Make the folder for a new run and lock it; one that holds a run is left unchanged."""
        # Somebody else's folder gets no lock file; where there is one, it says if a run goes on.
        taken = self.has_run()
        with self._opening("cannot be created", "choose another run.root or run.name"):
            made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in made:
                sync_folder(folder.parent)  # or a power cut takes the run, with all it has synced
            if not taken or (self.path / _LOCK).exists():
                self._take_lock()
            # Another process may have made a whole run between the look and the lock.
            if taken or self.has_run():
                raise UserError(
                    f"{self.path}: holds a run already; continue it with run.resume=must, "
                    "choose another run.name, or delete the folder"
                )
            self._prepare()

    def open_for_resume(self) -> None:
        """Lock the folder of an earlier run, to continue it."""
        if not self.has_run():
            raise UserError(
                f"{self.path}: no run to resume here; check run.root and run.name, "
                "or start one with run.resume=never"
            )
        refuse_links(self.path)
        with self._opening("cannot be written", "make it writable to resume"):
            self._take_lock()
            self._prepare()

    @contextmanager
    def _opening(self, what: str, remedy: str) -> Iterator[None]:
        try:
            with refusing(f"{self.path}: {what}", remedy):
                yield
        except UserError:
            self.close()
            raise

    def _prepare(self) -> None:
        for file in self.path.rglob(".*.tmp"):
            if is_left_over(file.name):
                file.unlink(missing_ok=True)
        self.tensorboard.mkdir(exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)

    def _take_lock(self) -> None:
        try:
            self.enter_context(locked(self.path / _LOCK, wait=False))
        except BlockingIOError:
            raise UserError(
                f"{self.path}: another process is writing this run; "
                "wait for it or stop it, or choose another run.name"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            # Some cluster file systems are mounted without locks; training must work there.
            _logger.warning("%s: no file locks here; never start this run twice", self.path)
