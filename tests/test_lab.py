"""A chapter in a real JupyterLab: opened in a browser, run, its figures and directives seen, its sliders moved."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CHAPTER = "12_data_or_network"
NOTE = "Rendered by the MyST extension"
IDLE = ".jp-Notebook-ExecutionIndicator[data-status='idle']"
SAID = """before => {
    const said = document.querySelector('.widget-interact .jp-OutputArea-output pre')?.innerText ?? '';
    return said.includes('of the variance') && said !== before;
}"""
PATIENCE = 900_000  # milliseconds; seconds are enough on a machine that does nothing else


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Copy the chapter, at the sizes of the tests, and put a note before it."""
    notebook = json.loads((ROOT / "notebooks" / f"{CHAPTER}.ipynb").read_text(encoding="utf-8"))
    quick = yaml.safe_load((ROOT / "notebooks" / "parameters.yml").read_text(encoding="utf-8"))["quick"][CHAPTER]
    (cell,) = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", ())]
    cell["source"] = "".join(cell["source"]) + "".join(f"\n{name} = {value!r}" for name, value in quick.items())
    note = {"cell_type": "markdown", "id": "note", "metadata": {}, "source": f"```{{note}}\n{NOTE}.\n```"}
    notebook["cells"].insert(0, note)
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "results").symlink_to(ROOT / "notebooks" / "results")
    (folder / "notebooks" / f"{CHAPTER}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def lab(folder, chromium):  # noqa: ARG001 - skipped where there is none
    """Start JupyterLab with nobody's settings, for this machine only; give its address."""
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')  # cells out of sight are there
    jupyter = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    places = {name: str(folder / name.lower()) for name in (*jupyter, "IPYTHONDIR")}
    environment = os.environ | places | {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"),
        *("--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", "--IdentityProvider.token="),
        *("--log-level=ERROR", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
    ]
    with (folder / "server.log").open("w") as log, subprocess.Popen(command, env=environment, stderr=log) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/api", server, folder / "server.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()


def wait_for(address, server, log, seconds=600):
    """Wait until the server answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                answer.read()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not start: {log.read_text()[-2000:]}")


def saved(path, seconds=PATIENCE / 1000):
    """Wait until every code cell in the file has run, the folded ones too; return these cells."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # half written
            content = {"cells": []}
        cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
        if cells and all(cell["execution_count"] for cell in cells):
            return cells
        time.sleep(0.5)
    return pytest.fail("the notebook was not saved with all of its cells run")


def move(page, sliders):
    """Move the first slider by a step, from the keyboard."""
    sliders.locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowLeft")


@pytest.mark.browser
def test_a_chapter_runs_in_jupyterlab(lab, folder, chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.goto(f"{lab}/lab/tree/notebooks/{CHAPTER}.ipynb")
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        page.locator(IDLE).first.wait_for()  # the kernel is there

        note = page.locator(".jp-MarkdownCell aside", has_text=NOTE)  # without the extension: a block of code
        note.first.wait_for()

        page.locator(".lm-MenuBar-item", has_text="Run").first.click()
        page.locator("li[data-command='runmenu:run-all']").click()
        ended = """() => document.querySelector("[data-mime-type='application/vnd.jupyter.error']") ||
            [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt:not(.jp-Placeholder-prompt)')]
            .every(prompt => /^\\[\\d+\\]:$/.test(prompt.textContent.trim()))"""  # folded cells have no number
        page.wait_for_function(ended, polling=200)
        page.locator(IDLE).first.wait_for()
        assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
        assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0

        page.locator(".lm-MenuBar-item", has_text="File").first.click()
        page.locator("li[data-command='docmanager:save']").click()
        cells = saved(folder / "notebooks" / f"{CHAPTER}.ipynb")
        assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]

        drawn = sum("plt.show()" in "".join(cell["source"]) for cell in cells)
        figures = page.locator(".jp-OutputArea-output img")
        figures.nth(drawn - 1).wait_for(state="attached")
        assert figures.evaluate_all("images => Promise.all(images.map(image => image.decode())).then(() => true)")
        figures.first.scroll_into_view_if_needed()
        assert figures.first.bounding_box()["width"] > 100

        sliders = page.locator(".widget-interact")
        choose, before = sliders.locator("select"), ""
        for change in (lambda: None, lambda: choose.select_option(index=1), lambda: move(page, sliders)):
            change()
            sliders.get_by_role("button", name="Divide").click()
            page.wait_for_function(SAID, arg=before, polling=200)
            before = sliders.locator(".jp-OutputArea-output pre").inner_text()
        browser.close()
