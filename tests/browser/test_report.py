"""`report.html` in a browser."""

import json

import pytest

from bn_inception.cli.main import dispatch


@pytest.fixture(scope="module")
def page(outputs, tmp_path_factory):
    folder = outputs / "bn_x30-cpu-tiny_imagenet-seed0" / "evaluation"
    folder.mkdir()
    for name, top1, top5 in (("single", 0.63, 0.30), ("144", 0.61, 0.28)):
        evaluation = {
            "crops": name,
            "statistics": "population",
            "models": 1,
            "count": 5000,
            "top1_error": top1,
            "top5_error": top5,
            "top1_interval": [top1 - 0.013, top1 + 0.013],
            "top5_interval": [top5 - 0.012, top5 + 0.012],
        }
        (folder / f"{name}-population.json").write_text(json.dumps(evaluation))
    report = tmp_path_factory.mktemp("report")
    assert (
        dispatch(["compare", *map(str, sorted(outputs.glob("*-cpu-*"))), f"output={report}"]) == 0
    )
    return report / "report.html"


def requests(browser):
    """Addresses the browser has asked for since this was last called."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def test_the_page_opens_without_a_network(browser, page, artifacts):
    browser.set_window_size(1280, 1400)
    requests(browser)
    browser.get(page.as_uri())
    assert requests(browser) == [page.as_uri()]
    faults = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not faults
    height = browser.execute_script("return document.documentElement.scrollHeight")
    browser.set_window_size(1280, height + 200)
    browser.save_screenshot(str(artifacts / "report.png"))

    headings = [heading.text for heading in browser.find_elements("tag name", "h2")]
    assert headings == [
        "Steps to accuracy (Figure 3)",
        "Validation accuracy by steps (Figure 2)",
        "Errors by crops and models (Figure 4)",
        "The paper's statements",
        "Runs",
    ]
    conclusion = browser.find_element("class name", "conclusion")
    assert len(conclusion.find_elements("tag name", "p")) == 3
    assert conclusion.location["y"] < browser.find_element("tag name", "table").location["y"]
    for drawing in browser.find_elements("tag name", "svg"):
        assert drawing.size["width"] > 400 and drawing.size["height"] > 200
        assert len(drawing.find_elements("tag name", "path")) > 20
    verdicts = [verdict.text for verdict in browser.find_elements("class name", "verdict")]
    assert len(verdicts) == 9
    # The runs have no config.yaml, so that nobody knows what was run.
    assert {"holds", "not tested"} == set(verdicts)
    # What each is judged by is folded away, and there after a click.
    statement = browser.find_elements("css selector", "details > dl")[-1]
    assert not statement.is_displayed()


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_width_makes_the_page_scroll_sideways(browser, page, artifacts, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.get(page.as_uri())
        for details in browser.find_elements("css selector", "details > summary"):
            browser.execute_script("arguments[0].parentNode.open = true", details)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        # Every cell of a recipe can be seen without scrolling, on a phone below its name.
        for cell in browser.find_elements("css selector", "section:first-of-type tbody td"):
            if cell.is_displayed():
                assert cell.location["x"] + cell.size["width"] <= width
        browser.save_screenshot(str(artifacts / f"report-{width}.png"))
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
