"""`report.html` in a headless Chromium, and TensorBoard on run folders; skipped without one."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from report.conftest import write_evaluation

from bn_inception.cli.main import dispatch
from bn_inception.record.metrics import TrainRecord, ValidationRecord
from bn_inception.record.recorder import Recorder
from bn_inception.record.run_folder import RunFolder
from bn_inception.record.summary import RunStatus, Summary

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
PROGRAMS = [shutil.which(name) for name in ("chromium", "chromedriver")]
if None in PROGRAMS:
    pytest.skip("needs chromium and chromium-driver", allow_module_level=True)

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    # Nothing but this machine is there to be asked.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=1280,1400",
)
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "tensorboard.sh"
# Recipe: accuracy in the end, steps.
RUNS = {"bn_x30": (0.37, 700), "bn_x5": (0.34, 600), "inception": (0.30, 3000)}
NAMES = [f"{recipe}-cpu-tiny_imagenet-seed0" for recipe in RUNS]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A Chromium of its own for these tests."""
    options = webdriver.ChromeOptions()
    options.binary_location, driver_path = PROGRAMS
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver_path)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Runs as training leaves them, through the recorder, with curves of a plausible shape."""
    root = tmp_path_factory.mktemp("browser") / "outputs"
    for name, (recipe, (maximum, steps)) in zip(NAMES, RUNS.items(), strict=True):
        with RunFolder(root, name) as folder:
            folder.create()
            recorder = Recorder(
                folder,
                Summary(recipe, "cpu", 0, data="tiny_imagenet", classes=100, parameters=678_960),
                batch=32,
                targets=[0.1, 0.2],
                hyperparameters={"recipe": recipe, "learning_rate": 0.0075},
            )
            recorder.start()
            recorder.training_batch(np.full((32, 32, 32, 3), 99, np.uint8))
            for step in range(100, steps + 1, 100):
                top1 = round(maximum * (1 - np.exp(-4 * step / steps)) * 10_000) / 10_000
                recorder.train(TrainRecord(step, step, 4.6 - 4 * top1, 0.0075, 100.0, top1))
                validation = ValidationRecord(step, step, 4.7 - 4 * top1, top1, 2 * top1, 5000)
                recorder.validation(validation)
            recorder.finish(RunStatus.finished, step=steps)
    return root


@pytest.fixture(scope="module")
def page(outputs, tmp_path_factory):
    folder = outputs / NAMES[0] / "evaluation"
    for crops, name, top5 in ((1, "single", 0.30), (144, "144", 0.28)):
        curve = [[n, 0.37 + n / 9999, 0.7] for n in (1, 12, 72, crops)]
        about = {"count": 5000, "accuracy_by_crops": curve}
        write_evaluation(folder / f"{name}-population.json", name, top5, **about)
    report = tmp_path_factory.mktemp("report")
    assert dispatch(["compare", *map(str, outputs.iterdir()), f"output={report}"]) == 0
    return (report / "report.html").as_uri()


def test_the_page_opens_without_a_network(browser, page):
    browser.get_log("performance")
    browser.get(page)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [entry["request"]["url"] for entry in asked] == [page]
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert len(browser.find_elements("tag name", "h2")) == 6
    conclusion = browser.find_element("class name", "conclusion")
    assert len(conclusion.find_elements("tag name", "p")) == 3
    assert conclusion.location["y"] < browser.find_element("tag name", "table").location["y"]
    for drawing in browser.find_elements("tag name", "svg"):
        assert drawing.size["width"] > 400 and drawing.size["height"] > 200
        assert len(drawing.find_elements("tag name", "path")) > 20
    verdicts = [verdict.text for verdict in browser.find_elements("class name", "verdict")]
    # The runs have no config.yaml, so that nobody knows what was run.
    assert len(verdicts) == 9 and set(verdicts) == {"holds", "not tested"}
    # What each is judged by is folded away.
    assert not browser.find_elements("css selector", "details > dl")[-1].is_displayed()


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_width_makes_the_page_scroll_sideways(browser, page, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.get(page)
        for details in browser.find_elements("css selector", "details > summary"):
            browser.execute_script("arguments[0].parentNode.open = true", details)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        # Every cell of a recipe can be seen without scrolling, on a phone below its name.
        for cell in browser.find_elements("css selector", "section:first-of-type tbody td"):
            if cell.is_displayed():
                assert cell.location["x"] + cell.size["width"] <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


# TensorBoard's page is built of shadow roots, which a plain search does not enter.
TEXT = """
const texts = [];
(function walk(node) {
  if (node.nodeType === Node.TEXT_NODE) texts.push(node.textContent.trim());
  if (node.shadowRoot) walk(node.shadowRoot);
  for (const child of node.childNodes || []) {
    if (!['STYLE', 'SCRIPT'].includes(child.nodeName)) walk(child);
  }
})(document.body);
return texts.join('\\n');
"""


@pytest.mark.timeout(300)
def test_tensorboard_shows_the_curves_best_and_first_mini_batch_of_all_runs(
    browser, outputs, tmp_path
):
    log = tmp_path / "log"
    command = [SCRIPT, outputs, "--host", "127.0.0.1", "--port", "0", "--load_fast", "false"]
    environment = {**os.environ, "PYTHON": sys.executable}
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        while "http://127.0.0.1:" not in (text := log.read_text()):
            assert server.poll() is None, text
            time.sleep(0.2)
        address = "http://127.0.0.1:" + text.split("http://127.0.0.1:")[1].split("/")[0]
        for plugin, tag in (("scalars", "accuracy/validation_top1"), ("images", "training_batch")):
            found = {}
            while [name for name in sorted(found) if tag in found[name]] != NAMES:
                time.sleep(0.3)
                found = json.load(urlopen(f"{address}/data/plugin/{plugin}/tags"))
        for plugin, words in (
            ("custom_scalars", ["validation accuracy, top-1", "learning rate", *NAMES]),
            ("hparams", ["maximum top-1", "steps to 10 %", "steps to 20 %", "0.363"]),
        ):
            browser.get(f"{address}/#{plugin}")
            text = ""
            while not all(word in text for word in words):
                time.sleep(0.3)
                text = browser.execute_script(TEXT)
        # What the chart is drawn from: of every run its curve.
        curve = f"{address}/data/plugin/custom_scalars/scalars?tag=accuracy/validation_top1$&run="
        for name in NAMES:
            (points,) = json.load(urlopen(curve + name))["tag_to_events"].values()
            assert len(points) >= 3
    finally:
        server.terminate()
        server.wait(30)
