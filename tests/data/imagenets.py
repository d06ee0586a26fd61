"""A small ImageNet in the forms that it is downloaded in, and what `prepare` makes of it."""

import io
import tarfile
from pathlib import Path

import pytest

from bn_inception.data.intake.prepare import PrepareConfig, Prepared, prepare
from bn_inception.errors import UserError

WNIDS = ("n01440764", "n01443537", "n15075141")


def silent(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total


def made(source: Path, target: Path, **settings: object) -> list[Prepared]:
    config = PrepareConfig(str(source), str(target), **{"shard_size": 4, "workers": 0, **settings})
    return prepare(config, lambda line: None, silent)


def shards_of(source: Path, target: Path) -> Path:
    made(source, target)
    return target


def refused(source: Path, target: Path, **settings: object) -> str:
    with pytest.raises(UserError) as caught:
        made(source, target, **settings)
    text = str(caught.value)
    assert "\n" not in text
    return text


def content(target: Path) -> dict[str, bytes]:
    """Every file but the lock."""
    return {
        str(path.relative_to(target)): path.read_bytes()
        for path in sorted(target.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def tar_of(files: dict[str, bytes] | list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items() if isinstance(files, dict) else files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def validation(images: Path) -> dict[str, tuple[str, bytes]]:
    """File name -> (wnid, bytes), in the order of the files' numbers."""
    paths = sorted((images / "val").glob("*/*"), key=lambda path: path.name)
    return {path.name: (path.parent.name, path.read_bytes()) for path in paths}
