"""A headless Chromium, and runs for it to look at; skipped where there is none."""

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from bn_inception.record import (
    Divergence,
    Recorder,
    RunFolder,
    RunStatus,
    Summary,
    TrainRecord,
    ValidationRecord,
)

ARTIFACTS = Path(__file__).resolve().parents[1] / "artifacts"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Nothing but this machine is there to be asked.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture(scope="session")
def artifacts():
    """Where screenshots are kept."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A Chromium of its own for this test session."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="needs selenium: pip install -e .[dev]"
    )
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    for name, path in programs.items():
        if path is None:
            pytest.skip(f"needs {name}: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.add_argument("--window-size=1280,1400")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=programs["chromedriver"])
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(60)
    yield driver
    with contextlib.suppress(Exception):
        driver.quit()


CURVES = {
    "inception": (0.0015, 0.30, 3000),
    "bn_baseline": (0.0015, 0.32, 1600),
    "bn_x5": (0.0075, 0.34, 600),
    "bn_x30": (0.045, 0.37, 700),
    "bn_x5_sigmoid": (0.0075, 0.25, 900),
}


@pytest.fixture(scope="session")
def outputs(tmp_path_factory):
    """Runs of Figure 3's recipes as training leaves them, with curves of a plausible shape."""
    root = tmp_path_factory.mktemp("browser") / "outputs"
    generator = np.random.default_rng(0)
    for recipe, (rate, maximum, steps) in CURVES.items():
        write_run(
            root, recipe, rate, lambda x, m=maximum: m * (1 - np.exp(-4 * x)), steps, generator
        )
    write_run(
        root, "inception_x5", 0.0075, lambda x: 0.01, 600, generator, diverged=Divergence(350, "4c")
    )
    return root


def write_run(root, recipe, rate, curve, steps, generator, diverged=None):
    """One run through the recorder itself, evaluated every 100 steps."""
    with RunFolder(root, f"{recipe}-cpu-tiny_imagenet-seed0") as folder:
        folder.create()
        recorder = Recorder(
            folder,
            Summary(recipe, "cpu", 0, data="tiny_imagenet", classes=100, parameters=678_960),
            batch=32,
            targets=[0.1, 0.2],
            hyperparameters={"recipe": recipe, "learning_rate": rate},
        )
        recorder.start()
        hues = generator.integers(0, 256, (32, 1, 1, 3))
        pixels = (hues + np.arange(32)[None, :, None, None] * 4).clip(0, 255)
        recorder.training_batch(np.broadcast_to(pixels, (32, 32, 32, 3)).astype(np.uint8))
        end = steps if diverged is None else diverged.step - 1
        for step in range(100, end + 1, 100):
            top1 = round(float(curve(step / steps)) * 10_000) / 10_000
            falling = rate * 0.96 ** (step / 100)
            recorder.train(TrainRecord(step, step, 4.6 - 4 * top1, falling, 100.0, top1))
            top5 = min(1, 2 * top1)
            recorder.validation(ValidationRecord(step, step, 4.7 - 4 * top1, top1, top5, 5000))
        status = RunStatus.finished if diverged is None else RunStatus.diverged
        recorder.finish(
            status, step=steps if diverged is None else diverged.step, diverged=diverged
        )
