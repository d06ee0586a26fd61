"""Fixtures that every layer's tests share."""

from pathlib import Path

import pytest
from hypothesis import settings
from small_runs import write_images

# Hypothesis's 200 ms an example fail on a machine that is busy with other work, not on a fault.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photographs, where there is one."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs real photographs in {SHARED_DATA.name}/, which is absent")
    return SHARED_DATA


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small set, read only."""
    return write_images(tmp_path_factory.mktemp("images"))
