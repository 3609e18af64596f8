"""A real Chromium in front of a real `kicourse lab`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from tests.browser import driver
from tests.workspace.lab_process import Lab


@pytest.fixture(scope="session")
def chromium() -> str:
    found = driver.chromium()
    if found is None:
        pytest.skip("needs Chromium: install the Debian packages chromium and chromium-driver")
    return found


@pytest.fixture(scope="session")
def lab(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("desk") / "work", settings=tmp_path_factory.mktemp("settings"))
    yield lab
    lab.end()


@pytest.fixture
def browser(chromium: str, tmp_path: Path) -> Iterator[Chrome]:
    browser = driver.start(chromium, tmp_path / "browser")
    yield browser
    browser.quit()
