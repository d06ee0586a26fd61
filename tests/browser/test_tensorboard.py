"""TensorBoard in a browser, on run folders."""

import io
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

RUNS = (
    "bn_baseline",
    "bn_x30",
    "bn_x5",
    "bn_x5_sigmoid",
    "inception",
    "inception_x5",
)
NAMES = [f"{recipe}-cpu-tiny_imagenet-seed0" for recipe in RUNS]
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "tensorboard.sh"


@pytest.fixture(scope="module")
def address(outputs, tmp_path_factory):
    """TensorBoard's own server, on this machine's loopback, at a free port."""
    log = tmp_path_factory.mktemp("tensorboard") / "log"
    command = [
        str(SCRIPT),
        str(outputs),
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--load_fast",
        "false",
    ]
    environment = {**os.environ, "PYTHON": sys.executable}
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file, text=True, env=environment)
    try:
        deadline = time.monotonic() + 90
        while "http://127.0.0.1:" not in (text := log.read_text()):
            assert server.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.2)
        found = "http://127.0.0.1:" + text.split("http://127.0.0.1:")[1].split("/")[0]
        while sorted(get(found, "/data/runs")) != NAMES:
            assert time.monotonic() < deadline
            time.sleep(0.3)
        yield found
    finally:
        server.terminate()
        server.wait(30)


def get(address, path):
    try:
        with urllib.request.urlopen(address + path, timeout=10) as answer:
            return json.load(answer)
    except urllib.error.URLError:
        return []


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
return texts.filter(Boolean).join('\\n');
"""


def wait_for(browser, *words):
    """Wait until the page shows all of `words`; return all it shows."""
    deadline = time.monotonic() + 120
    while True:
        text = browser.execute_script(TEXT)
        missing = [word for word in words if word not in text]
        if not missing:
            return text
        assert time.monotonic() < deadline, f"{missing} not in:\n{text[:3000]}"
        time.sleep(0.3)


def shown(browser, artifacts, name):
    time.sleep(1.5)  # charts are drawn after their titles
    browser.save_screenshot(str(artifacts / f"tensorboard-{name}.png"))


def test_the_hparams_page_has_the_metrics(browser, address, artifacts):
    browser.get(f"{address}/#hparams")
    wait_for(browser, "accuracy/maximum_top1", "steps_to/10%", "steps_to/20%", "learning_rate")
    wait_for(browser, "bn_x5_sigmoid", "inception_x5")
    shown(browser, artifacts, "hparams")


def test_the_images_page_has_the_first_mini_batch(browser, address, artifacts):
    browser.get(f"{address}/#images")
    wait_for(browser, "training_batch", *NAMES)
    shown(browser, artifacts, "images")
    (entry,) = get(
        address,
        f"/data/plugin/images/images?run={quote(NAMES[0], safe='')}&tag=training_batch&sample=0",
    )
    assert entry["step"] == 0
    path = f"/data/plugin/images/individualImage?{entry['query']}"
    with urllib.request.urlopen(address + path) as answer:
        image = Image.open(io.BytesIO(answer.read()))
    # 32 images of 32 pixels: six rows of six, the last one short.
    assert (image.format, image.size) == ("PNG", (6 * 34 - 2, 6 * 34 - 2))
