# SPDX-License-Identifier: Apache-2.0
"""The report in a real browser. Needs Debian's chromium and chromium-driver, and the package selenium."""

import json
import shutil
import time

import cv2
import numpy as np
import pytest

from lipsync_bench.report import write_report
from tests.lipsync_bench.report.report_fixture import METHODS, clip_ids, copy_results, make_results, set_values

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver is not installed")

OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
    *("--autoplay-policy=no-user-gesture-required", "--mute-audio"),
)
PAGES = ("index.html", "plots.html", "papers.html", "clips.html", "failures.html", "manifest.html", "guide.html")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("results") / "demo", videos=True)


@pytest.fixture(scope="module")
def site(results, tmp_path_factory):
    return write_report(results, tmp_path_factory.mktemp("site") / "report").parent


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(autouse=True)
def _default_screen(request):
    yield
    if "browser" in request.fixturenames:
        driver = request.getfixturevalue("browser")
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def clip_page(site, which=5):
    title = f"<title>{clip_ids(12)[which]} "
    return next(path for path in (site / "clips").iterdir() if title in path.read_text(encoding="utf-8"))


def pages(site):
    return [*(site / name for name in PAGES), clip_page(site)]


def heads(browser, text):
    return next(h for h in browser.find_elements(By.CSS_SELECTOR, "table.board th") if h.text.startswith(text))


def values(browser, column):
    script = """return Array.from(document.querySelector('table.board').tBodies[0].rows,
        row => Number(row.cells[arguments[0]].dataset.value))"""
    return browser.execute_script(script, column)


@pytest.mark.parametrize("how", ["click", "enter"])
def test_a_click_and_the_enter_key_sort_and_the_reference_stays_last(browser, site, how):
    browser.get((site / "index.html").as_uri())
    head = heads(browser, "LMD")
    column = head.get_property("cellIndex")
    button = head.find_element(By.TAG_NAME, "button")
    assert head.get_attribute("aria-sort") is None
    for direction in ("ascending", "descending"):
        if how == "click":
            browser.execute_script("arguments[0].click()", button)
        else:
            button.send_keys(Keys.ENTER)
        assert head.get_attribute("aria-sort") == direction
        found = values(browser, column)
        assert found == sorted(found, reverse=direction == "descending")
        assert len(set(found)) == 4
    table = head.find_element(By.XPATH, "ancestor::table")
    assert len(table.find_elements(By.CSS_SELECTOR, "th[aria-sort]")) == 1
    reference = browser.find_element(By.CSS_SELECTOR, "table.board tbody.reference")
    assert "ground_truth" in reference.text.replace("\n", "")


def test_the_list_of_clips_changes_its_metric_and_sorts_by_any_method(browser, site):
    browser.get((site / "clips.html").as_uri())
    section = browser.find_element(By.CSS_SELECTOR, ".clip-list")
    Select(section.find_element(By.CSS_SELECTOR, ".controls select")).select_by_value("lmd")
    assert section.find_element(By.CSS_SELECTOR, ".metric-name").text.startswith("LMD")
    button = section.find_elements(By.CSS_SELECTOR, "table.values th.num button")[1]
    browser.execute_script("arguments[0].click()", button)
    script = """const t = document.querySelector('.clip-list table.values');
        return Array.from(t.tBodies[0].rows, r => r.cells[2].dataset.value)"""
    found = browser.execute_script(script)
    numbers = [float(value) for value in found if value]
    assert numbers == sorted(numbers)
    assert len(numbers) == 10
    assert found[-2:] == ["", ""]  # the two failed clips come last


def state(browser):
    return browser.execute_script(
        "return Array.from(document.querySelectorAll('video'), v => [v.currentTime, v.paused, v.muted, v.readyState])"
    )


def test_videos_play_together_step_by_frames_with_one_audio_at_a_time(browser, site):
    browser.get(clip_page(site).as_uri())
    WebDriverWait(browser, 5).until(lambda _: len(state(browser)) == 3 and all(s[3] >= 2 for s in state(browser)))
    assert browser.find_elements(By.CSS_SELECTOR, "figure .failed") == []  # H.264 is played
    assert [muted for *_, muted, _ in state(browser)] == [False, True, True]
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.SPACE)
    time.sleep(1.0)
    times = [now for now, *_ in state(browser)]
    assert min(times) > 0.3
    assert max(times) - min(times) < 0.1
    body.send_keys(Keys.SPACE)
    assert all(paused for _, paused, *_ in state(browser))
    before = state(browser)[0][0]
    body.send_keys(Keys.ARROW_RIGHT)
    WebDriverWait(browser, 5).until(lambda _: state(browser)[0][0] != before)
    times = [now for now, *_ in state(browser)]
    assert {int(now * 25) for now in times} == {int(before * 25 + 0.01) + 1}
    body.send_keys(Keys.ARROW_LEFT)
    assert {int(now * 25) for now, *_ in state(browser)} == {int(before * 25 + 0.01)}
    Select(browser.find_elements(By.CSS_SELECTOR, ".master select")[1]).select_by_index(2)
    assert [muted for *_, muted, _ in state(browser)] == [True, True, False]
    body.send_keys("m")
    assert all(muted for *_, muted, _ in state(browser))
    body.send_keys("m")
    assert [muted for *_, muted, _ in state(browser)] == [True, True, False]


def choose(browser, option):
    """Choose an option of the first group's controls by its value."""
    selects = map(Select, browser.find_elements(By.CSS_SELECTOR, ".master select"))
    next(s for s in selects if option in [o.get_attribute("value") for o in s.options]).select_by_value(option)


def test_all_players_show_the_mouth_or_the_whole_frame(browser, site):
    browser.get(clip_page(site).as_uri())
    WebDriverWait(browser, 5).until(lambda _: all(s[3] >= 1 for s in state(browser)))
    script = """return [...document.querySelectorAll('.view')].map((view) => {
        const out = view.getBoundingClientRect(), video = view.firstChild.getBoundingClientRect();
        const sides = [out.left - video.left, out.top - video.top, out.width, out.height];
        return sides.map((side) => side * 160 / video.width)})"""
    whole = browser.execute_script(script)
    choose(browser, "mouth")
    assert np.allclose(browser.execute_script(script), [[60, 85, 45, 35]] * 3, atol=0.5)
    choose(browser, "frame")
    assert np.allclose(browser.execute_script(script), whole, atol=0.5)
    assert np.allclose(whole, [[0, 0, 160, 160]] * 3, atol=0.5)


def test_the_difference_to_the_reference_is_amplified_and_of_the_same_frame(browser, site):
    browser.get(clip_page(site).as_uri())
    WebDriverWait(browser, 5).until(lambda _: all(s[3] >= 2 for s in state(browser)))
    choose(browser, "difference")
    canvases = browser.find_elements(By.TAG_NAME, "canvas")
    assert len(canvases) == 2  # not of the reference itself
    for _ in range(3):
        browser.find_element(By.TAG_NAME, "body").send_keys(Keys.ARROW_RIGHT)
    WebDriverWait(browser, 5).until(lambda _: [c.get_attribute("data-frame") for c in canvases] == ["3", "3"])
    picture = cv2.imdecode(np.frombuffer(canvases[1].screenshot_as_png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    picture = cv2.resize(picture, (160, 160), interpolation=cv2.INTER_AREA).astype(int)
    assert picture[20, 20].min() > 240  # 40 levels, times 8
    assert (abs(picture[80, 26] - (0, 0, 255)) < 40).all()  # the squares differ in blue alone
    choose(browser, "video")
    assert not any(canvas.is_displayed() for canvas in canvases)


def test_results_without_landmarks_have_no_choice_of_parts_and_say_so(browser, site):
    browser.get(clip_page(site, 6).as_uri())
    assert "whole frames only" in browser.find_element(By.CSS_SELECTOR, ".players .note").text
    assert "mouth" not in browser.find_element(By.CSS_SELECTOR, ".master").text
    assert "difference to the reference, × 8" in browser.find_element(By.CSS_SELECTOR, ".master").text


def test_at_the_end_the_players_start_again_or_stop(browser, site):
    browser.get(clip_page(site).as_uri())
    WebDriverWait(browser, 5).until(lambda _: all(s[3] >= 2 for s in state(browser)))
    seek = "const s = document.querySelector('.seek input'); s.value = 1.7; s.dispatchEvent(new Event('input'))"
    play = browser.find_element(By.CSS_SELECTOR, ".play")
    browser.execute_script(seek)
    assert all(abs(now - 1.7) < 0.05 for now, *_ in state(browser))
    play.click()
    WebDriverWait(browser, 5).until(lambda _: all(0 < now < 1.5 for now, *_ in state(browser)))
    play.click()
    browser.find_element(By.CSS_SELECTOR, ".master input[type=checkbox]").click()
    browser.execute_script(seek)
    play.click()
    WebDriverWait(browser, 5).until(lambda _: play.text == "Play")
    assert all(paused for _, paused, *_ in state(browser))


def test_axes_and_metrics_of_plots_can_be_chosen(browser, site):
    browser.get((site / "plots.html").as_uri())
    figure = browser.find_element(By.CSS_SELECTOR, ".chooser")
    Select(figure.find_elements(By.TAG_NAME, "select")[1]).select_by_value("lmd")
    drawing = figure.find_element(By.CSS_SELECTOR, "svg")
    assert drawing.get_attribute("aria-label") == "LMD (px)\u00a0↓ against PSNR (dB)\u00a0↑ of 4 methods"
    assert len(drawing.find_elements(By.CSS_SELECTOR, "g path")) == 4
    box = browser.find_element(By.CSS_SELECTOR, ".switch")
    Select(box.find_element(By.TAG_NAME, "select")).select_by_index(2)
    shown = [f.get_attribute("data-name") for f in box.find_elements(By.TAG_NAME, "figure") if f.is_displayed()]
    assert shown == ["PSNR mouth (dB)\u00a0↑"]


def test_names_of_points_that_lie_together_do_not_cover_each_other(browser, results, tmp_path):
    folder = copy_results(results, tmp_path / "even")
    set_values(folder, [method for method in METHODS if method != "ground_truth"], psnr=30.0, lmd=2.0)
    browser.get((write_report(folder, tmp_path / "report").parent / "plots.html").as_uri())
    figure = browser.find_element(By.CSS_SELECTOR, ".chooser")
    Select(figure.find_elements(By.TAG_NAME, "select")[1]).select_by_value("lmd")
    boxes = browser.execute_script(
        """const texts = [...arguments[0].querySelectorAll('svg text')];
        const names = texts.filter((t) => arguments[1].includes(t.textContent));
        return names.map((t) => t.getBBox()).map((b) => [b.x, b.y, b.x + b.width, b.y + b.height])""",
        figure,
        list(METHODS),
    )
    assert len(boxes) == 4
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert left > 82  # the plot's sides
        assert right < 660
        for x1, y1, x2, y2 in boxes[i + 1 :]:
            # A line's box is higher than its letters.
            assert right <= x1 or x2 <= left or bottom <= y1 + 2 or y2 <= top + 2


def test_a_phone_does_not_scroll_sideways_and_first_columns_stay(browser, site):
    screen = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    for page in pages(site):
        browser.get(page.as_uri())
        width, window = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert (width, window) == (360, 360), page.name
    browser.get((site / "index.html").as_uri())
    before, after, moved = browser.execute_script(
        """const box = document.querySelector('.scroll'), cell = box.querySelector('tbody th');
        const before = cell.getBoundingClientRect().left;
        box.scrollLeft = 500;
        return [before, cell.getBoundingClientRect().left, box.scrollLeft]"""
    )
    assert moved == 500
    assert before == after


def test_dark_and_light_are_the_readers_choice(browser, site):
    grounds = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get((site / "plots.html").as_uri())
        script = """const s = getComputedStyle(document.body);
            const text = document.querySelector('.switch svg text, .switch svg g');
            return [s.backgroundColor, s.color, getComputedStyle(text).color]"""
        grounds[scheme] = browser.execute_script(script)
    light, dark = (sum(map(int, grounds[s][0][4:-1].split(","))) for s in ("light", "dark"))
    assert light > 700
    assert dark < 120
    for ground, ink, drawn in grounds.values():
        assert ink == drawn != ground


def test_without_scripts_everything_is_shown(browser, site):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get((site / "plots.html").as_uri())
    figures = browser.find_elements(By.CSS_SELECTOR, ".switch figure, .chooser svg")
    assert len(figures) > 12
    assert all(figure.is_displayed() for figure in figures)
    browser.get(clip_page(site).as_uri())
    videos = browser.find_elements(By.TAG_NAME, "video")
    assert len(videos) == 3
    assert all(video.get_attribute("controls") for video in videos)
    browser.get((site / "index.html").as_uri())
    assert browser.find_elements(By.TAG_NAME, "button") == []


def test_the_skip_link_is_first_and_seen_when_it_has_the_focus(browser, site):
    browser.get((site / "index.html").as_uri())
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    link = browser.switch_to.active_element
    assert link.text == "Skip to the content"
    assert browser.execute_script("return arguments[0].getBoundingClientRect().left", link) >= 0
    assert browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", link) != "none"


def test_no_page_writes_errors_or_asks_a_network(browser, site):
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    for page in pages(site):
        browser.get(page.as_uri())
        time.sleep(0.2)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert len(asked) > len(PAGES)
    assert [url for url in asked if not url.startswith(("file:///", "data:"))] == []  # data: the player's own icons
