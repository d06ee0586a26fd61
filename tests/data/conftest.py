"""Small image folders made on the spot."""

from pathlib import Path

import pytest
from samples import WNIDS, MakeFolder, encoded, photo, tar_of

from bn_inception.data.intake import archives


@pytest.fixture
def image_folder(tmp_path: Path) -> MakeFolder:
    """Makes ROOT/train/<class>/* and ROOT/val/<class>/*; counts may differ by class."""

    def make(train: dict[str, int], val: dict[str, int] | None = None) -> Path:
        root, seed = tmp_path / "images", 0
        for split, counts in (("train", train), ("val", val or dict.fromkeys(train, 1))):
            for name, count in counts.items():
                folder = root / split / name
                folder.mkdir(parents=True)
                for number in range(count):
                    seed += 1
                    (folder / f"{name}_{number}.JPEG").write_bytes(encoded(photo(seed)))
        return root

    return make


@pytest.fixture
def images(image_folder: MakeFolder) -> Path:
    """A small ImageNet: its layout and its way of naming."""
    counts = [{wnid: least + label for label, wnid in enumerate(WNIDS)} for least in (4, 2)]
    root = image_folder(*counts)
    for label, wnid in enumerate(WNIDS):
        for own, path in enumerate(sorted((root / "train" / wnid).iterdir())):
            path.rename(path.with_name(f"{wnid}_{own * 37}.JPEG"))  # _111 comes before _37
        for own, path in enumerate(sorted((root / "val" / wnid).iterdir())):
            path.rename(path.with_name(f"ILSVRC2012_val_{own * 3 + label + 1:08d}.JPEG"))
    return root


@pytest.fixture
def held_out(images: Path) -> dict[str, tuple[str, bytes]]:
    """File name -> (wnid, bytes) of the held-out images, in the order of the files' numbers."""
    paths = sorted((images / "val").glob("*/*"), key=lambda path: path.name)
    return {path.name: (path.parent.name, path.read_bytes()) for path in paths}


@pytest.fixture
def downloads(images: Path, held_out: dict[str, tuple[str, bytes]], tmp_path: Path) -> Path:
    """The same images as the archives that ImageNet is downloaded as."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    classes = {}
    for wnid in (WNIDS[2], WNIDS[0], WNIDS[1]):  # in no order, and neither are their members
        files = sorted((images / "train" / wnid).iterdir(), reverse=True)
        classes[f"{wnid}.tar"] = tar_of({path.name: path.read_bytes() for path in files})
    (folder / archives.TRAIN_TAR).write_bytes(tar_of(classes))
    shuffled = sorted(held_out, key=lambda name: name[::-1])
    (folder / archives.VAL_TAR).write_bytes(
        tar_of({f"./{name}": held_out[name][1] for name in shuffled})
    )
    lines = "".join(f"{wnid}\n" for wnid, _ in held_out.values())
    (folder / "val_classes.txt").write_text(lines)
    return folder
