"""What a learner sees and does, in the words of the course map and of JupyterLab."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

Found = TypeVar("Found")


def wait(browser: Chrome, until: Callable[[Chrome], Found], seconds: float = 60) -> Found:
    # What the page has just replaced is looked for again.
    ignored = [StaleElementReferenceException]
    return WebDriverWait(browser, seconds, poll_frequency=0.2, ignored_exceptions=ignored).until(until)


# The text that stands out less from its ground than WCAG 2 asks for (4.5 to 1, large text 3 to 1).
FAINT = """
const parse = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => [r, g, b]
  .map((v) => v / 255)
  .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
function ground(element) {
  for (let place = element; place; place = place.parentElement) {
    for (const style of [getComputedStyle(place), getComputedStyle(place, "::after")]) {
      const colour = parse(style.backgroundColor);
      if (colour.length === 3) return colour;
    }
  }
  return [255, 255, 255];
}
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const faint = [];
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("script, style")) continue;
  const style = getComputedStyle(element);
  const [one, other] = [light(parse(style.color)), light(ground(element))];
  const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
  if (contrast < (large ? 3 : 4.5)) faint.push([walker.currentNode.data.trim(), contrast]);
}
return faint;
"""


class MapPage:
    """The course map."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    def open(self, url: str) -> "MapPage":
        self.browser.get(url)
        wait(self.browser, lambda browser: browser.find_elements(By.ID, "points"))
        return self

    def look(self, width: int = 1280, height: int = 1000, scheme: str = "light") -> "MapPage":
        """Take the shape of a device: its size in CSS pixels, and whether its user prefers light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        return self

    def speak(self, language: str) -> None:
        """Switch the course to a language."""
        for button in self.browser.find_elements(By.CSS_SELECTOR, f"header button[value={language}]"):
            button.click()
        wait(self.browser, lambda browser: browser.find_elements(By.CSS_SELECTOR, f"html[lang={language}]"))

    @property
    def is_dark(self) -> bool:
        script = "return getComputedStyle(document.body).backgroundColor"
        red, green, blue = (int(part) for part in re.findall(r"\d+", self.browser.execute_script(script))[:3])
        return red + green + blue < 3 * 128

    @property
    def width_needed(self) -> int:
        return int(self.browser.execute_script("return document.documentElement.scrollWidth"))

    def too_faint(self) -> list[list[object]]:
        return list(self.browser.execute_script(FAINT))

    def press_tab(self) -> None:
        ActionChains(self.browser).send_keys(Keys.TAB).perform()

    @property
    def points(self) -> str:
        return self.browser.find_element(By.ID, "points").text

    def task(self, unit: str, task: str) -> str:
        return str(self.browser.find_element(By.ID, f"task-{unit}-{task}").get_attribute("class"))

    def unit_points(self, unit: str) -> float:
        bar = self.browser.find_element(By.CSS_SELECTOR, f"#unit-{unit} .score [role=progressbar]")
        return float(str(bar.get_attribute("aria-valuenow")))

    def open_unit(self, unit: str) -> "NotebookPage":
        """Click on a unit; JupyterLab opens in a tab of its own."""
        self.browser.find_element(By.CSS_SELECTOR, f"#unit-{unit} h3 a").click()
        wait(self.browser, lambda browser: len(browser.window_handles) == 2)
        self.browser.switch_to.window(self.browser.window_handles[1])
        return NotebookPage(self.browser)


class NotebookPage:
    """A notebook in JupyterLab, used with the keyboard."""

    ACTIVE = ".jp-Notebook .jp-Cell.jp-mod-active"

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser
        wait(browser, lambda _: browser.find_elements(By.CSS_SELECTOR, self.ACTIVE), 90)
        self.wait_for_kernel()

    def back_to_the_map(self) -> MapPage:
        """Click on the course's name in JupyterLab; its tab is the one that shows the map already."""
        self.browser.find_element(By.CSS_SELECTOR, "#kicourse-map-link").click()
        assert len(self.browser.window_handles) == 2
        self.browser.switch_to.window(self.browser.window_handles[0])
        return MapPage(self.browser)

    def go_on(self) -> None:
        """Come back from the map, and click on the cell that was worked on."""
        self.browser.switch_to.window(self.browser.window_handles[1])
        self.browser.find_element(By.CSS_SELECTOR, f"{self.ACTIVE} .jp-InputPrompt").click()

    def wait_for_kernel(self, seconds: float = 120) -> None:
        """Wait until the status bar says that the kernel is there, and has nothing to do."""
        wait(self.browser, lambda browser: "| Idle" in browser.find_element(By.ID, "jp-main-statusbar").text, seconds)

    @property
    def code(self) -> str:
        """The code of the cell that has the focus; read in one go, since JupyterLab draws cells anew at any time."""
        lines = "Array.from(document.querySelectorAll(arguments[0] + ' .cm-line'), (line) => line.textContent)"
        return str(self.browser.execute_script(f"return {lines}.join('\\n')", self.ACTIVE))

    def press(self, *keys: str) -> None:
        ActionChains(self.browser).send_keys(*keys).perform()

    def run(self) -> None:
        """Run the cell and go on to the next one."""
        cell = self.browser.find_element(By.CSS_SELECTOR, self.ACTIVE)
        place, is_code = (
            cell.get_attribute("data-windowed-list-index"),
            "jp-CodeCell" in str(cell.get_attribute("class")),
        )
        before = self.prompt(place)
        ActionChains(self.browser).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
        if is_code:
            wait(self.browser, lambda _: self.prompt(place) not in (before, "[*]:", "[ ]:"), 120)

    def prompt(self, place: str | None) -> str:
        """Return what stands before a cell, such as "[3]:"; a cell out of sight has nothing."""
        cell = f".jp-Notebook .jp-Cell[data-windowed-list-index='{place}'] .jp-InputPrompt"
        return "".join(found.text for found in self.browser.find_elements(By.CSS_SELECTOR, cell)).strip()

    def run_until(self, call: str) -> None:
        """Run cell after cell until the one that makes this call has the focus."""
        for _ in range(200):
            if call in self.code:
                return
            self.run()
        raise AssertionError(f"no cell calls {call}")

    def go_up_to(self, code: str) -> None:
        for _ in range(200):
            if code in self.code:
                return
            self.press("k")
        raise AssertionError(f"no cell above holds {code}")

    def write(self, code: str) -> None:
        """Replace the cell's code, as a learner who pastes an answer."""
        self.press(Keys.ENTER)
        ActionChains(self.browser).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).perform()
        self.browser.execute_script("document.execCommand('insertText', false, arguments[0])", code)
        wait(self.browser, lambda _: self.code.strip() == code.strip())

    def verdict(self) -> str:
        """Run the check cell that has the focus, stay there, and return what its output says."""
        self.press(Keys.ESCAPE)
        ActionChains(self.browser).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
        self.wait_for_kernel()
        output = f"{self.ACTIVE} .jp-OutputArea .kicourse"
        return wait(self.browser, lambda browser: browser.find_element(By.CSS_SELECTOR, output).text)


def reference(notebook: Path, task: str) -> str:
    """Return the source of a task's cell."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == task:
            return "".join(cell["source"])
    raise AssertionError(f"{notebook} has no task {task}")
