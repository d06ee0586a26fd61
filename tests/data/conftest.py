"""Small image folders made on the spot, and the shared photographs where there are any."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pictures import encoded, photo

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes ROOT/train/<class>/* and ROOT/val/<class>/*; counts may differ by class."""

    def make(train: dict[str, int], val: dict[str, int] | None = None) -> Path:
        root = tmp_path / "images"
        seed = 0
        for split, counts in (("train", train), ("val", val or dict.fromkeys(train, 1))):
            for name, count in counts.items():
                folder = root / split / name
                folder.mkdir(parents=True)
                for number in range(count):
                    seed += 1
                    (folder / f"{name}_{number}.JPEG").write_bytes(encoded(photo(seed)))
        return root

    return make


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared photographs in {SHARED.name}/, which are not here")
    return SHARED
