"""The learner's way through the desk, in a real browser: the map, a notebook, a check, the map again."""

from pathlib import Path

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By

from kicourse.checks import load
from kicourse.syllabus import course
from tests.workspace.lab_process import Lab

from .map_page import MapPage, reference, wait

UNIT, TASK = "first_call", "ask"


@pytest.fixture
def page(browser: Chrome, lab: Lab) -> MapPage:
    return MapPage(browser).open(lab.url)


def test_a_task_failed_then_solved_moves_the_map(page: MapPage, lab: Lab, browser: Chrome) -> None:
    check = load(UNIT)[TASK]
    answer = reference(course().unit(UNIT).solution("en"), TASK)
    assert page.task(UNIT, TASK) == "not_started"

    notebook = page.open_unit(UNIT)
    notebook.run_until(f"check.{TASK}(")
    assert "not started" in notebook.verdict()

    notebook.go_up_to("NotImplementedError")
    notebook.write(f"def {TASK}(*arguments, **options):\n    return None")
    notebook.run()
    notebook.run_until(f"check.{TASK}(")
    assert f"0/{check.points:g}" in notebook.verdict()
    notebook.back_to_the_map()
    wait(browser, lambda _: page.task(UNIT, TASK) == "failed")

    notebook.go_on()
    notebook.go_up_to("return None")
    notebook.write(answer)
    notebook.run()
    notebook.run_until(f"check.{TASK}(")
    assert f"{check.points:g}/{check.points:g}" in notebook.verdict()
    browser.switch_to.window(browser.window_handles[0])
    wait(browser, lambda _: page.task(UNIT, TASK) == "passed")  # the page was not loaded again
    assert page.unit_points(UNIT) == check.points


@pytest.mark.parametrize(("language", "word"), [("en", "points"), ("de", "Punkten")])
def test_the_map_is_readable_on_every_device(page: MapPage, language: str, word: str) -> None:
    page.speak(language)
    for scheme, dark in (("light", False), ("dark", True)):
        for width in (320, 375, 768, 1280):
            page.look(width, scheme=scheme)
            assert page.is_dark == dark
            assert page.width_needed <= width
            assert page.too_faint() == []
    assert word in page.points
    page.speak("en")


def test_every_control_and_every_bar_has_a_name(page: MapPage) -> None:
    page.speak("en")
    bars = page.browser.find_elements(By.CSS_SELECTOR, "[role=progressbar]")
    assert len(bars) == 1 + len(course().finished) + sum(len(load(unit.slug)) for unit in course().finished)
    controls = page.browser.find_elements(By.CSS_SELECTOR, "a, button")
    assert [one.get_attribute("outerHTML") for one in (*bars, *controls) if not one.accessible_name] == []


def test_the_keyboard_alone_opens_a_notebook(page: MapPage, browser: Chrome) -> None:
    for _ in range(40):
        page.press_tab()
        focused = browser.switch_to.active_element
        if "lab/tree/maintenance" in str(focused.get_attribute("href")):
            break
    focused.send_keys(Keys.ENTER)
    wait(browser, lambda _: len(browser.window_handles) == 2)
    browser.switch_to.window(browser.window_handles[1])
    wait(browser, lambda _: "/lab/tree/maintenance.ipynb" in browser.current_url)


def test_one_path_at_a_time(page: MapPage, browser: Chrome) -> None:
    browser.find_element(By.ID, "route-core").click()
    wait(browser, lambda _: "path=core" in browser.current_url)
    shown = [unit.get_attribute("id") for unit in browser.find_elements(By.CSS_SELECTOR, "li.unit")]
    order = [unit.slug for unit in course().units if unit.slug in course().core_path]
    assert shown == [f"unit-{slug}" for slug in order]


@pytest.mark.long
def test_a_map_whose_course_has_ended_says_so(chromium: str, tmp_path: Path, browser: Chrome) -> None:
    lab = Lab(tmp_path / "work", settings=tmp_path, OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    MapPage(browser).open(lab.url)
    notice = browser.find_element(By.ID, "stopped")
    assert not notice.is_displayed()
    lab.end()
    wait(browser, lambda _: notice.is_displayed())
    assert "kicourse lab" in notice.text
