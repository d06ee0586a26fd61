import numpy as np
import pytest
from PIL import Image

from bn_inception.data import DataConfig, DataKind, FolderSource, open_sources

SHAPES = [(20, 26), (26, 20), (24, 24), (1, 1), (90, 2), (33, 47)]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """Six images of 3 classes in six shapes: a JPEG, a palette PNG, one with an EXIF turn, PNGs."""
    root = tmp_path_factory.mktemp("shapes")
    generator = np.random.default_rng(1)
    turn = Image.Exif()
    for split in ("train", "val"):
        for number, (width, height) in enumerate(SHAPES):
            folder = root / split / f"n{number % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            coarse = (height // 5 + 1, width // 5 + 1, 3)
            image = Image.fromarray(generator.integers(0, 256, coarse, np.uint8))
            image = image.resize((width, height), Image.Resampling.BICUBIC)
            if number == 1:
                image = image.quantize(16)
            turn[0x0112] = 6 if number == 5 else 1
            image.save(folder / f"{number}.{'png' if number else 'jpg'}", exif=turn)
    return open_sources(DataConfig(DataKind.folder, str(root))).validation
