"""Take the picture of README.md: the end of the first notebook. In tests/: python -m browser.pictures."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from selenium.webdriver.common.by import By

from helpers.lab import Lab, chromium, jupyterlab
from helpers.waiting import until

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
PICTURE = NOTEBOOKS / "live_stream.png"
SECONDS = 20  # of the stream at another rate, so that the chart shows a change


def take(home: Path) -> bytes:
    """Run the first notebook, change the rate and return the picture of what the last cell shows."""
    root = home / "root"
    root.mkdir()
    shutil.copy(NOTEBOOKS / "01_live_stream.ipynb", root)
    with jupyterlab(root, home) as address, chromium(home) as browser:
        lab = Lab(browser, address.format("01_live_stream.ipynb"))
        browser.execute_script("window.jupyterapp.commands.execute('application:toggle-left-area')")
        lab.run_all()
        lab.ask("setattr(server, 'rate', 50.0)")
        first = int(lab.ask("frame.appended"))
        until(lambda: int(lab.ask("frame.appended")) > first + 50 * SECONDS, within=2 * SECONDS)
        output = browser.find_elements(By.CSS_SELECTOR, ".jp-Cell-outputArea")[-1]
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", output)
        until(lambda: "50" in lab.shown(".ls-tile-value").split())
        return output.screenshot_as_png


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="logistream-picture-") as folder:
        picture = Image.open(io.BytesIO(take(Path(folder))))
    picture.convert("RGB").quantize(128).save(PICTURE, optimize=True)  # a third of the size, looks the same
    print(f"{PICTURE}: {picture.width} × {picture.height} pixels, {PICTURE.stat().st_size / 1000:.0f} kB")
