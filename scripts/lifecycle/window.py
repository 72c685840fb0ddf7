"""Browser windows of people who are logged in through Airflow's own form; what is awaited in them has a name.

Nothing here sleeps for a fixed time: a window waits until something is to be seen, and says what it waited for if it
never comes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import TYPE_CHECKING

from playwright.sync_api import Error, sync_playwright
from stack.failures import LifecycleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Locator, Page
    from stack.launcher import Access

PATIENCE_SECONDS = 90.0
"""Of everything that is awaited; on two busy cores a page takes seconds, a verdict some more."""

ANEW_SECONDS = 8.0
WIDTH, HEIGHT = 1280, 900


class Window:
    """One person's window.

    Args:
        page: The browser's page.
        who: The person's name in Airflow.
        url: Of Airflow.
        folder: Where pictures go.
    """

    def __init__(self, page: Page, who: str, url: str, folder: Path) -> None:
        self.page, self.who, self.url, self.folder = page, who, url, folder

    def go(self, path: str) -> None:
        """Open a page of Ease.ml by its own address, without Airflow's frame around it."""
        self.go_airflow(f"/easeml{path}")

    def go_airflow(self, path: str) -> None:
        """Open a page of Airflow."""
        with self._naming(f"the page {path}"):
            answer = self.page.goto(f"{self.url}{path}", wait_until="load")
        if answer is not None and answer.status >= 400:
            message = f"{self.who} got status {answer.status} for {path}"
            raise LifecycleError(message)

    def await_seen(self, selector: str, what: str, *, seconds: float = PATIENCE_SECONDS) -> Locator:
        """Wait until something is to be seen.

        Args:
            selector: Playwright's words for it.
            what: People's words for it.
            seconds: How long at most.

        Raises:
            LifecycleError: It did not appear in time.
        """
        found = self.page.locator(selector).first
        with self._naming(what, seconds):
            found.wait_for(timeout=1000 * seconds)
        return found

    def await_anew(self, selector: str, what: str, *, seconds: float = PATIENCE_SECONDS) -> None:
        """The same, loading the page again now and then: for what may happen just before the page hears of news."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.await_seen(selector, what, seconds=ANEW_SECONDS)
                return
            except LifecycleError:
                if time.monotonic() > deadline:
                    raise
            self.page.reload(wait_until="load")

    def press(self, selector: str, what: str) -> None:
        """Press a button or follow a link, as soon as that is possible."""
        with self._naming(what):
            self.page.locator(selector).first.click()

    def fill(self, values: dict[str, str]) -> None:
        """Type into fields: their ids and what they shall hold."""
        for field, text in values.items():
            with self._naming(f"the field {field}"):
                self.page.fill(f"#{field}", text)

    def text(self, selector: str, what: str = "") -> str:
        """The words of the first part that fits, on one line, as soon as there is one; ``what`` is it for people."""
        return " ".join(self.await_seen(selector, what or selector).inner_text().split())

    def texts(self, selector: str) -> list[str]:
        """The words of each part that fits, on one line each; none where nothing fits now."""
        with self._naming(selector):
            return [" ".join(text.split()) for text in self.page.locator(selector).all_inner_texts()]

    def mark(self) -> None:
        """Leave a mark in the page that does not survive loading it again."""
        self.page.evaluate("window.markOfTheStory = true")

    def require_mark(self) -> None:
        """Raise LifecycleError if the page was loaded again since ``mark``."""
        if not self.page.evaluate("window.markOfTheStory === true"):
            message = f"the page {self.page.url} was loaded again, where news should have come by themselves"
            raise LifecycleError(message)

    def picture(self, name: str) -> Path:
        """Keep a picture of the whole page."""
        path = self.folder / f"{name}.png"
        with self._naming(f"a picture of {self.page.url}"):
            self.page.evaluate("window.scrollTo(0, 0)")  # else the page's bar stands in the middle of the picture
            self.page.screenshot(path=path, full_page=True)
        return path

    @contextlib.contextmanager
    def _naming(self, what: str, seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
        try:
            yield
        except Error as error:
            reason = str(error).partition("\n")[0]
            message = f"{self.who} waited up to {seconds:.0f} s at {self.page.url} for {what}: {reason}"
            raise LifecycleError(message) from error


class Windows:
    """The windows of all people, one each, opened when they are first needed.

    Args:
        browser: Chromium.
        access: How to get into Airflow.
        folder: Where pictures go.
    """

    def __init__(self, browser: Browser, access: Access, folder: Path) -> None:
        self._browser, self._access, self._folder = browser, access, folder
        self._opened: dict[str, Window] = {}

    def of(self, who: str) -> Window:
        """The window of a user of Airflow."""
        if who not in self._opened:
            self._opened[who] = self._logged_in(who)
        return self._opened[who]

    def pictures_of_all(self, name: str) -> list[Path]:
        """Take a picture of each page after a failure; pages that cannot be pictured are left out."""
        kept = []
        for who, window in self._opened.items():
            with contextlib.suppress(LifecycleError):
                kept.append(window.picture(f"{name}-{who}"))
        return kept

    def _logged_in(self, who: str) -> Window:
        url = self._access.url
        context = self._browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        context.set_default_timeout(1000 * PATIENCE_SECONDS)
        window = Window(context.new_page(), who, url, self._folder)
        window.go_airflow("/")
        window.await_seen("input[name=username]", "Airflow's form to log in")
        window.page.fill("input[name=username]", who)
        window.page.fill("input[name=password]", self._access.keys.passwords[who])
        window.page.keyboard.press("Enter")
        with window._naming("Airflow's first page"):
            window.page.wait_for_url(f"{url}/")
        return window


@contextlib.contextmanager
def chromium(*, is_shown: bool) -> Iterator[Browser]:
    """Debian's Chromium.

    Args:
        is_shown: On the display; else without one.

    Raises:
        LifecycleError: There is none, or it does not start.
    """
    path = shutil.which("chromium")
    if path is None:
        message = "there is no chromium on this machine; as root: apt-get install chromium"
        raise LifecycleError(message)
    # Root's Chromium cannot use its own sandbox; it sees no page but ours.
    options = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=options, headless=not is_shown)
        except Error as error:
            message = f"{path} does not start{' on this display' if is_shown else ''}: {str(error).strip()}"
            raise LifecycleError(message) from error
        try:
            yield browser
        finally:
            browser.close()
