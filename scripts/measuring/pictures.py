"""Pictures of pages by Chromium, made so that the same page gives the same pixels."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shutil
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

WIDTH, HEIGHT = 1280, 900
STILL = "time { display: none !important } * { caret-color: transparent !important }"
"""Style that hides what differs between two moments."""


def photograph(app: Any, paths: Iterable[str], folder: Path) -> Iterator[tuple[str, str]]:
    """Write a picture of each page of an application.

    Args:
        app: The web application.
        paths: Of pages.
        folder: Gets a PNG for each page.

    Yields:
        The path, and a hash of the picture's size and pixels.
    """
    from PIL import Image
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    with serving(app) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, timezone_id="UTC", color_scheme="light", bypass_csp=True
        )
        page.route(re.compile("/events"), lambda route: route.abort())
        for path in paths:
            page.goto(f"{address}{path}", wait_until="load")
            taken = page.screenshot(full_page=True, animations="disabled", style=STILL)
            name = re.sub(r"\W+", "-", path).strip("-") or "overview"
            (folder / f"{name}.png").write_bytes(taken)
            with Image.open(io.BytesIO(taken)) as image:
                pixels = hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
                yield path, f"{name}.png {image.width}x{image.height} {pixels}"
        browser.close()


def share_that_differs(a: Path, b: Path) -> float:
    """Return the share of pixels that differ between two pictures; 1 where their sizes do."""
    import numpy as np
    from PIL import Image

    with Image.open(a) as first, Image.open(b) as second:
        if first.size != second.size:
            return 1.0
        pixels = [np.asarray(image.convert("RGB")) for image in (first, second)]
    return float((pixels[0] != pixels[1]).any(axis=2).mean())


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an application on a free port of this machine; its address."""
    import uvicorn

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
