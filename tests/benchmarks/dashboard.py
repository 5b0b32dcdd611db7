"""What a live dashboard costs: bytes to the browser, and time of kernel and page.

Run it with `python tests/benchmarks/dashboard.py [--rate 1000] [--seconds 10]`. It needs Chromium and its
driver. Each contender runs in a JupyterLab of its own, fed by a server and a frame in the same kernel; the
first line is the cost of those two alone. The line of plotly's FigureWidget is left out without plotly.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.lab import Lab, chromium, jupyterlab
from helpers.waiting import until

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

SOURCE = """
import time, logistream as ls
server = ls.StreamServer(rate={rate}, port=0, history="2min").start()
frame = ls.RollingFrame(rows=200_000, window="5min")
follower = frame.follow(server.websocket_url, start="earliest")
"""
PLOTLY = """
import threading, numpy as np, plotly.graph_objects as go
from plotly.subplots import make_subplots
figure = go.FigureWidget(make_subplots(rows=3, cols=1))
for row in (1, 2, 3):
    figure.add_scatter(row=row, col=1)
display(figure)
def draw():
    while True:
        rows = frame.df
        if len(rows):
            cells = rows.groupby(rows["event_time"].dt.floor("250ms"))
            lines = [cells["Late_delivery_risk"].mean(), cells.size() * 4, cells["Sales"].sum()]
            with figure.batch_update():
                for trace, line in zip(figure.data, lines):
                    trace.x, trace.y = line.index[-480:].to_numpy(), line.to_numpy()[-480:]
        time.sleep(0.15)
threading.Thread(target=draw, daemon=True).start()
"""
CONTENDERS = {
    "server and frame alone": "pass",
    "Workbench": "display(ls.Workbench(frame))",
    "Workbench, its server given": "w = ls.Workbench(server)\ndisplay(w)",
    "Workbench in four views": "w = ls.Workbench(frame)\nfor _ in range(4):\n    display(w)",
    "plotly FigureWidget": PLOTLY,
}


def notebook(path: Path, *cells: str) -> None:
    """Write a notebook of code cells."""
    code: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "id": f"c{i}",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": c,
        }
        for i, c in enumerate(cells)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.write_text(
        json.dumps({"cells": code, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})
    )


def received_bytes(browser: Chrome) -> int:
    """Return the bytes that came over WebSockets since this was asked last."""
    total = 0
    for entry in browser.get_log("performance"):  # type: ignore[no-untyped-call]
        event = json.loads(entry["message"])["message"]
        if event["method"] == "Network.webSocketFrameReceived":
            frame = event["params"]["response"]
            length = len(frame["payloadData"])
            total += length if frame["opcode"] == 1 else length * 3 // 4  # binary comes as base64
    return total


def busy_seconds(browser: Chrome) -> float:
    """Return how long the page's main thread has worked."""
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


def measure(browser: Chrome, address: str, name: str, seconds: float) -> dict[str, Any]:
    """Return the costs of one contender per second."""
    lab = Lab(browser, address)
    lab.run_all()
    browser.execute_cdp_cmd("Performance.enable", {})
    if name.startswith("Workbench"):
        until(lambda: browser.execute_script("return document.querySelector('.ls-board canvas') !== null"))
        browser.execute_script("document.querySelector('.ls-board').scrollIntoView()")
    time.sleep(6)  # the first messages bring the whole
    frames = (
        "return [...document.querySelectorAll('.ls-board')].map((node) => node.session.frames)[0] ?? null"
    )
    late = (
        "const session = document.querySelector('.ls-board')?.session;"
        "return session ? session.nowAt() - session.now : null"
    )
    received_bytes(browser)
    clock, kernel = time.monotonic(), float(lab.ask("time.process_time()"))
    page, drawn = busy_seconds(browser), browser.execute_script(frames)
    lags = []
    while time.monotonic() - clock < seconds:
        time.sleep(0.25)
        lags.append(browser.execute_script(late))
    passed = time.monotonic() - clock
    return {
        "bytes": received_bytes(browser) / passed,
        "kernel": (float(lab.ask("time.process_time()")) - kernel) / passed,
        "page": (busy_seconds(browser) - page) / passed,
        "frames": None if drawn is None else (browser.execute_script(frames) - drawn) / passed,
        "late": None if lags[0] is None else max(lags),
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    print(f"{options.rate:g} events/s, {options.seconds:g} s each")
    print("contender\tkB/s to the page\tkernel, % of a core\tpage, % of a core\tdrawn per s\tlate at most, s")
    for name, code in CONTENDERS.items():
        if "plotly" in name and importlib.util.find_spec("plotly") is None:
            print(f"{name}\tnot installed")
            continue
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "root"
            root.mkdir()
            notebook(root / "live.ipynb", SOURCE.format(rate=options.rate), code)
            with jupyterlab(root, Path(folder)) as address, chromium(Path(folder)) as browser:
                found = measure(browser, address.format("live.ipynb"), name, options.seconds)
        frames = "" if found["frames"] is None else f"{found['frames']:.0f}"
        late = "" if found["late"] is None else f"{found['late']:.2f}"
        print(
            f"{name}\t{found['bytes'] / 1000:.1f}\t{100 * found['kernel']:.0f}\t{100 * found['page']:.0f}"
            f"\t{frames}\t{late}",
            flush=True,
        )


if __name__ == "__main__":
    main()
