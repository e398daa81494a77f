"""The built site in a real browser, without a network: clean, light, accessible, and alive where it should be."""

from __future__ import annotations

import functools
import json
import os
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCREENSHOTS = ROOT / "_build" / "screenshots"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
WEIGHT, DATA = 1_500_000, 500_000  # bytes
PATIENCE = float(os.environ.get("BROWSER_PATIENCE", "1"))  # more for a machine that is busy with something else
EXPLORERS = {
    "galaxy": "notebooks/05_recovering_accelerations",
    "errors": "notebooks/07_what_buys_accuracy",
    "shares": "notebooks/12_data_or_network",
}
pytestmark = [pytest.mark.site, pytest.mark.browser]


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address(site):
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def axe():
    import axe_playwright_python

    return next(Path(axe_playwright_python.__file__).parent.rglob("axe.min.js")).read_text(encoding="utf-8")


@pytest.fixture
def visit(browser, address):
    """Open a page of the site and wait for its formulas; at the end, nothing may have gone wrong in any of them."""
    contexts, problems = [], []

    def visit(name, viewport=DESK, **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        context.set_default_timeout(30_000 * PATIENCE)
        view = context.new_page()
        if options.get("java_script_enabled", True):  # where scripts are off, theirs are requests that fail
            listen(view, address, problems)
        view.goto(name if ":" in name else f"{address}/{name}.html", wait_until="load")
        if options.get("java_script_enabled", True) and view.locator("span.math, div.math").count():
            view.wait_for_function("() => window.MathJax?.startup?.promise", polling=200)
            view.evaluate("() => MathJax.startup.promise")
        return view

    yield visit
    for context in contexts:
        context.close()
    assert not problems


def listen(view, address, problems):
    """Write down whatever goes wrong while `view` is open, and whatever it asks of another address."""

    def console(message):
        if message.type in {"error", "warning"}:
            problems.append(message.text)

    def request(asked):
        if not asked.url.startswith((address, "data:", "blob:", "file:")):
            problems.append(f"not local: {asked.url}")

    def response(answer):
        if answer.status >= 400:
            problems.append(f"{answer.status}: {answer.url}")

    view.on("console", console)
    view.on("request", request)
    view.on("response", response)
    view.on("pageerror", lambda error: problems.append(str(error)))
    view.on("requestfailed", lambda asked: problems.append(f"failed: {asked.url}"))


def violations(view, where="html", **options):
    """What axe-core finds serious, critical or out of order, with the first places."""
    fixed = {"resultTypes": ["violations"], "preload": False}  # style sheets are there: nothing is to be fetched
    found = view.evaluate("([where, options]) => axe.run(where, options)", [where, fixed | options])
    order = {"heading-order", "page-has-heading-one", "empty-heading"}
    return [
        f"{rule['id']} ({len(rule['nodes'])} x): {[node['html'][:160] for node in rule['nodes'][:3]]}"
        for rule in found["violations"]
        if rule["impact"] in {"serious", "critical"} or rule["id"] in order
    ]


def settle(view):
    """Wait until nothing moves: the theme lets the side bars slide, and the text becomes narrower for it."""
    frames = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    view.evaluate(frames)
    view.evaluate("() => Promise.all(document.getAnimations().map(a => a.finished.catch(() => null)))")
    view.evaluate(frames)


def photograph(view, name, what):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    view.screenshot(path=SCREENSHOTS / f"{Path(name).name}-{what}.png")


def test_the_page_is_clean_light_and_accessible(visit, axe, page_name):
    view = visit(page_name, PHONE, color_scheme="light")
    view.wait_for_load_state("networkidle")
    sizes = "() => performance.getEntriesByType('resource').map(e => [e.name.split('/').pop(), e.decodedBodySize])"
    loaded = view.evaluate(sizes)
    page = view.evaluate("() => performance.getEntriesByType('navigation')[0].decodedBodySize")
    assert page + sum(size for _, size in loaded) <= WEIGHT, sorted(loaded, key=lambda entry: -entry[1])[:8]

    assert view.locator("mjx-merror").count() == 0
    assert view.locator("mjx-container").count() >= view.locator("span.math, div.math").count()
    assert view.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    view.evaluate("() => document.querySelectorAll('img').forEach(i => { i.loading = 'eager'; })")
    view.wait_for_function("() => [...document.images].every(i => i.complete)", polling=200)
    assert view.evaluate("() => [...document.images].filter(i => !i.naturalWidth).map(i => i.src)") == []

    view.evaluate(axe)
    assert violations(view, runOnly=["scrollable-region-focusable"]) == []
    photograph(view, page_name, "phone")
    view.set_viewport_size(DESK)
    settle(view)
    assert violations(view) == []
    photograph(view, page_name, "light")
    view.emulate_media(color_scheme="dark")
    view.wait_for_function("() => document.documentElement.dataset.theme === 'dark'", polling=200)
    settle(view)
    assert violations(view, runOnly=["color-contrast", "link-in-text-block"]) == []
    tiles = (
        "() => [...document.querySelectorAll('main div.cell_output img, main div.cell_output .text_html')]"
        ".map(i => getComputedStyle(i).backgroundColor).filter(c => c !== 'rgba(0, 0, 0, 0)')"
    )
    assert view.evaluate(tiles) == []
    filters = "() => [...document.querySelectorAll('.tag_colour-map img')].map(i => getComputedStyle(i).filter)"
    assert set(view.evaluate(filters)) <= {"none"}  # colours that are numbers stay as they are
    photograph(view, page_name, "dark")

    view.emulate_media(media="print", color_scheme="light")
    bars = (
        "() => [...document.querySelectorAll('body *')].filter(e => e.checkVisibility()"
        " && ['fixed', 'sticky'].includes(getComputedStyle(e).position)).map(e => e.outerHTML.slice(0, 120))"
    )
    assert view.evaluate(bars) == []
    hidden = ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .prev-next-footer, .copybtn, .explorer"
    assert view.evaluate("s => [...document.querySelectorAll(s)].filter(e => e.checkVisibility()).length", hidden) == 0
    photograph(view, page_name, "print")


def test_the_theme_switch_goes_through_light_and_dark(visit):
    view = visit("book/notation", color_scheme="light")
    seen = set()
    for _ in range(3):
        view.locator("button.theme-switch-button:visible").click()
        seen.add(view.evaluate("() => document.documentElement.dataset.mode"))
    assert seen == {"light", "dark", "auto"}


def test_search_finds_a_word(visit):
    view = visit(EXPLORERS["galaxy"])
    assert not view.evaluate("() => Search.hasIndex()")  # loaded with the first search
    view.locator("button.search-button__button:visible, button.search-button:visible").first.click()
    view.locator("#pst-search-dialog input").press_sequentially("Huber")
    found = view.locator("#search-results a", has_text="Recovering accelerations").first
    found.wait_for()
    found.click()
    view.wait_for_url("**/05_recovering_accelerations.html*")


def test_folded_solutions_open(visit):
    view = visit("notebooks/01_stars_and_gravity")
    solution = view.locator("div.solution.dropdown, .admonition.solution.toggle").first
    text = solution.locator("p").nth(1)
    assert not text.is_visible()
    solution.locator("button.toggle-button").click()
    text.wait_for(state="visible")


def test_a_quiz_answers_and_opens_its_answer(visit):
    view = visit("notebooks/05_recovering_accelerations")
    quiz = view.locator(".admonition.quiz").first
    radios, check, says = (quiz.locator(part) for part in ("input[type=radio]", "button", ".quiz-says"))
    radios.first.wait_for()
    right = int(re.match(r"\d+", quiz.locator("details strong").first.text_content())[0])
    assert check.is_disabled()
    wrong = right % radios.count() + 1
    radios.nth(wrong - 1).check()
    check.click()
    assert says.text_content().startswith("Not this one")
    assert not quiz.locator("details").evaluate("d => d.open")
    radios.nth(wrong - 1).focus()
    for _ in range((right - wrong) % radios.count()):
        view.keyboard.press("ArrowDown")
    check.focus()
    view.keyboard.press("Enter")
    assert says.text_content() == "Right."
    assert quiz.locator("details").evaluate("d => d.open")


def explorer(view, name):
    """Bring an explorer into view; return it, its data, and what it says."""
    box = view.locator(f".explorer[data-name={name}]")
    text = box.locator("script").text_content()
    assert len(text) <= DATA
    box.evaluate("box => box.parentElement.scrollIntoView()")
    box.locator(".says").wait_for()
    return box, json.loads(text), lambda: box.locator(".says").text_content()


def short(value):
    """Write a number as d3's format ".3~g" does, for those that occur here."""
    return f"{value:.3g}"


def galaxy_says(data, i, j):
    error = (data["error"][i][j][0] ** 2 + data["error"][i][j][1] ** 2) ** 0.5
    where = f"At {short(data['radii'][i])} scale radii, {data['angles'][j]}°"
    return f"{where}: true acceleration {short(data['pull'][i])}", f"error in the plane {100 * error:.2f} %"


def test_a_point_is_moved_through_the_galaxy_by_keys_mouse_and_touch(visit):
    view = visit(EXPLORERS["galaxy"], has_touch=True)
    box, data, says = explorer(view, "galaxy")
    i, j, n = len(data["radii"]) // 2, 0, len(data["angles"])
    assert all(part in says() for part in galaxy_says(data, i, j))

    box.get_by_label("Distance from the centre").press("ArrowRight")
    assert all(part in says() for part in galaxy_says(data, i + 1, j))
    plane = box.locator(".plane")
    plane.press("ArrowLeft")
    plane.press("ArrowDown")
    assert all(part in says() for part in galaxy_says(data, i, j + 1))

    middle = plane.locator("svg").bounding_box()
    x, y = middle["x"] + middle["width"] / 2, middle["y"] + middle["height"] / 2
    view.mouse.move(x + 5, y)
    view.mouse.down()
    view.mouse.move(x, y - 0.48 * middle["height"], steps=3)  # to the top edge
    view.mouse.up()
    assert all(part in says() for part in galaxy_says(data, len(data["radii"]) - 1, n // 4))
    view.touchscreen.tap(x - 0.48 * middle["width"], y)
    assert all(part in says() for part in galaxy_says(data, len(data["radii"]) - 1, n // 2))
    photograph(view, EXPLORERS["galaxy"], "explorer")


def test_the_readers_own_numbers_give_the_measured_error(visit):
    view = visit(EXPLORERS["errors"])
    box, data, says = explorer(view, "errors")
    stars, noise, members = (box.locator("input[type=number]").nth(k) for k in range(3))
    for i, k in ((0, 0), (1, 2)):
        stars.fill(str(data["n_stars"][i]))
        noise.fill(str(100 * data["noise"][1]))
        members.fill(str(data["members"][k]))
        median, p90 = data["median"][i][1][k], data["p90"][i][1][k]
        assert f"median error {100 * median:.2f} %, one point in ten worse than {100 * p90:.2f} %" in says()
    before = says()
    box.get_by_label("Stars", exact=True).press("ArrowRight")
    assert says() != before
    photograph(view, EXPLORERS["errors"], "explorer")
    stars.fill("1000000000")
    assert "outside what was measured" in says()


def test_shares_follow_the_cell(visit):
    view = visit(EXPLORERS["shares"])
    box, data, says = explorer(view, "shares")
    options = box.locator("select option").all_inner_texts()
    assert len(options) == len(set(options)) == len(data["cells"])  # no choice without data
    for k, cell in enumerate(data["cells"]):
        box.locator("select").select_option(options[k])
        assert f"data {100 * cell['share'][0]:.0f} %" in says()
    photograph(view, EXPLORERS["shares"], "explorer")


@pytest.mark.parametrize("name", EXPLORERS)
def test_an_explorer_is_accessible_in_dark_and_no_wider_than_a_phone(visit, axe, name):
    view = visit(EXPLORERS[name], PHONE, color_scheme="dark")
    explorer(view, name)
    view.evaluate(axe)
    assert violations(view, where=".explorer") == []
    assert view.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    photograph(view, EXPLORERS[name], "explorer-phone")


def test_a_file_opened_without_a_server_has_its_explorer(visit, site):
    view = visit((site / f"{EXPLORERS['galaxy']}.html").as_uri())
    explorer(view, "galaxy")


def test_without_scripts_figures_and_answers_stay_and_nothing_else_shows(visit):
    view = visit(EXPLORERS["galaxy"], java_script_enabled=False)
    assert not view.locator(".explorer").is_visible()
    assert view.locator("#fig-05-point img").is_visible()
    quiz = view.locator(".admonition.quiz").first
    assert quiz.locator("ol li").count() >= 2
    quiz.locator("summary").click()
    assert quiz.locator("details strong").first.is_visible()
