"""The file that the ILSVRC classification test server takes.

One line an image, in the alphabetical order of the file names; on each line five class numbers, the
likeliest first, separated by spaces. Classes are numbered from 1 in the order of the development
kit (ILSVRC2012_ID), which is not the order of the wnids that labels elsewhere follow.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bn_inception.data import SUFFIXES, FolderSource, PackedNames
from bn_inception.errors import UserError
from bn_inception.paper.results import IMAGENET_CLASSES
from bn_inception.record import UNLABELLED

GUESSES = 5
"""Class numbers a line."""

_DEVKIT = (
    "give devkit=FILE, a text file with one wnid a line in the order of ILSVRC2012_ID (from the "
    "development kit's meta.mat; see bn-inception submission --help)"
)


def unlabelled_images(folder: str | Path, classes: Sequence[str]) -> FolderSource:
    """The images that lie in `folder` itself, by file name; every label is `UNLABELLED`.

    Args:
        folder: of images, such as ILSVRC2012_img_test.
        classes: names of the network's outputs.

    Raises:
        UserError: no such folder, or none of its files is an image.
    """
    folder = Path(folder).expanduser()
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if entry.name.lower().endswith(SUFFIXES)
                and not entry.name.startswith(".")
                and entry.is_file()
            )
    except OSError as error:
        raise UserError(f"images: {folder} cannot be listed ({error.strerror})") from error
    if not names:
        raise UserError(
            f"images: {folder} holds no images ({', '.join(SUFFIXES[:3])}, ...); give the folder "
            "they lie in"
        )
    labels = np.full(len(names), UNLABELLED, np.int64)
    return FolderSource(str(folder), tuple(classes), PackedNames(map(os.fsencode, names)), labels)


def read_devkit(path: str | Path | None) -> list[str]:
    """Read the development kit's class order: one wnid a line, line 1 being ILSVRC2012_ID 1.

    What follows the wnid on its line is ignored. The kit's list may go on after its last class of
    the classification task (number 1000) with inner nodes of the hierarchy.

    Raises:
        UserError: not given, unreadable, empty, a wnid twice, or the order of the wnids themselves.
    """
    if path is None:
        raise UserError(f"devkit: not given, and class numbers are not in wnid order; {_DEVKIT}")
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"devkit: {path} cannot be read as text ({error}); {_DEVKIT}") from error
    wnids = [line.split()[0] for line in lines if line.strip()]
    if not wnids:
        raise UserError(f"devkit: {path} is empty; {_DEVKIT}")
    first_line: dict[str, int] = {}
    for number, wnid in enumerate(wnids, 1):
        if wnid in first_line:
            raise UserError(
                f"devkit: {path} names {wnid} as class {first_line[wnid]} and {number}; {_DEVKIT}"
            )
        first_line[wnid] = number
    ordered = wnids[:IMAGENET_CLASSES]
    if len(ordered) == IMAGENET_CLASSES and ordered == sorted(ordered):
        raise UserError(
            f"devkit: {path} is in the order of the wnids, the kit's is another (its class 1 is "
            f"n02119789, the kit fox); {_DEVKIT}"
        )
    return wnids


def class_numbers(classes: Sequence[str], devkit: Sequence[str]) -> NDArray[np.int64]:
    """The kit's number (from 1) of each of the network's outputs, int64 (classes,).

    Args:
        classes: wnids by output.
        devkit: wnids by number, see `read_devkit`.

    Raises:
        UserError: a class is not in the kit's list, or more than one output has its name.
    """
    if len(set(classes)) != len(classes):
        twice = next(name for name in classes if list(classes).count(name) > 1)
        raise UserError(f"classes: the network has two outputs called {twice}")
    numbers = {wnid: number for number, wnid in enumerate(devkit, 1)}
    unknown = [name for name in classes if name not in numbers]
    if unknown:
        raise UserError(
            f"devkit: does not name {len(unknown)} of the network's {len(classes)} classes, the "
            f"first is {unknown[0]}; {_DEVKIT}"
        )
    return np.array([numbers[name] for name in classes], np.int64)


def submission(probabilities: NDArray[np.floating], numbers: NDArray[np.int64]) -> str:
    """The file's text: of every image the numbers of its five likeliest classes.

    Args:
        probabilities: (N, classes). Of equal ones the lower output comes first: an image that could
            not be read, whose row is zero, still gets a line.
        numbers: the kit's number of every output, (classes,).

    Raises:
        UserError: fewer than five classes.
    """
    classes = probabilities.shape[1]
    if classes < GUESSES:
        raise UserError(
            f"submission: the network has {classes} classes, a line needs {GUESSES}; use a network "
            "of more"
        )
    likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :GUESSES]
    return "".join(" ".join(map(str, row)) + "\n" for row in numbers[likeliest].tolist())


def check_submission(text: str, images: int, classes: int = IMAGENET_CLASSES) -> None:
    """Check a submission's form.

    Args:
        text: the file's content.
        images: lines it must have (the ILSVRC 2012 test set: 100,000).
        classes: the highest class number.

    Raises:
        UserError: the first line that is not five different numbers of 1 to `classes`, or another
            number of lines.
    """
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        words = line.split(" ")
        fits = len(words) == GUESSES and all(
            word.isascii() and word.isdigit() and 1 <= int(word) <= classes for word in words
        )
        if not fits or len(set(map(int, words))) != GUESSES:
            raise UserError(
                f"submission: line {number} is {line[:60]!r}; expected {GUESSES} different class "
                f"numbers of 1 to {classes}, separated by single spaces"
            )
    if len(lines) != images:
        raise UserError(f"submission: {len(lines)} lines for {images} images; expected one each")
    if not text.endswith("\n"):
        raise UserError("submission: the last line does not end; end it with a newline")
