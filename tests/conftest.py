"""Fixtures that every layer's tests share."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings
from processes import run_ranks
from small_runs import write_images

# Hypothesis's 200 ms an example fail on a machine that is busy with other work, not on a fault.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

# Started under nohup, a process and all its children ignore what a lost terminal sends.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real photographs, where there is one."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs real photographs in {SHARED_DATA.name}/, which is absent")
    return SHARED_DATA


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """The small set, read only."""
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test marked `own_process` in a fork of this process.

    torch.compile and DistributedDataParallel start threads for gradients, after which torch refuses
    to compute any in a fork: and tests of several processes fork.
    """
    if pyfuncitem.get_closest_marker("own_process") is None:
        return None
    names = pyfuncitem._fixtureinfo.argnames
    given = {name: pyfuncitem.funcargs[name] for name in names}

    def act(rank):
        pyfuncitem.obj(**given)

    (said,) = run_ranks(1, act)
    if said is not None:
        pytest.fail(f"{said}; its traceback stands above", pytrace=False)
    return True
