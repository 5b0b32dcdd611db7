"""Take the pictures of README.md: the ends of two notebooks. In tests/: python -m browser.pictures."""

from __future__ import annotations

import io
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from selenium.webdriver.common.by import By

from helpers.lab import Lab, chromium, jupyterlab, until

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SECONDS = 20  # of the stream at another rate, so that the chart shows a change


@contextmanager
def finished(name: str) -> Iterator[Lab]:
    """Give a notebook in a wide page, after all its cells have run."""
    with tempfile.TemporaryDirectory(prefix="logistream-picture-") as folder:
        root = Path(folder) / "root"
        root.mkdir()
        shutil.copy(NOTEBOOKS / name, root)
        with jupyterlab(root, Path(folder)) as address, chromium(Path(folder)) as browser:
            lab = Lab(browser, address.format(name))
            browser.execute_script("window.jupyterapp.commands.execute('application:toggle-left-area')")
            lab.run_all(within=180)
            yield lab


def last_output(lab: Lab) -> bytes:
    """Return a picture of what the last cell shows."""
    output = lab.browser.find_elements(By.CSS_SELECTOR, ".jp-Cell-outputArea")[-1]
    lab.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", output)
    return output.screenshot_as_png


def live_stream() -> bytes:
    """Return the Workbench, some time after the rate was changed."""
    with finished("01_live_stream.ipynb") as lab:
        lab.ask("setattr(server, 'rate', 50.0)")
        first = int(lab.ask("frame.appended"))
        until(lambda: int(lab.ask("frame.appended")) > first + 50 * SECONDS, within=2 * SECONDS)
        until(lambda: "50" in lab.shown(".ls-tile-value").split())
        return last_output(lab)


def break_the_connection() -> bytes:
    """Return the buttons and the chart, after each button was pressed once."""
    with finished("04_break_the_connection.ipynb") as lab:
        until(lambda: bool(lab.browser.find_elements(By.CSS_SELECTOR, "img[alt='live plot']")))
        return last_output(lab)


def save(picture: bytes, path: Path) -> None:
    """Write a picture with few colours: a third of the size, and it looks the same."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(128).save(path, optimize=True)
    print(f"{path}: {image.width} × {image.height} pixels, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    save(live_stream(), NOTEBOOKS / "live_stream.png")
    save(break_the_connection(), NOTEBOOKS / "break_the_connection.png")
