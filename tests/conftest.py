"""Shared by all tests: where things are, and that nothing is skipped in CI."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy import stats

import dfaccel as da
from dfaccel.coordinates import coordinate_map
from dfaccel.flows.ensemble import FlowEnsemble

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """Root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def site(root: Path) -> Path:
    """Built site (quick profile); tests that need it are skipped, by name, where it is not built."""
    folder = root / "_build" / "site-quick"
    if not (folder / "index.html").is_file():
        pytest.skip("the site is not built: make test builds it")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a browser; tests that need one are skipped, by name, where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    path = os.environ.get("CHROMIUM") or next((found for name in names if (found := shutil.which(name))), None)
    return path or pytest.skip("there is no Chromium or Chrome on this machine")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `page_name` once for each page of the book."""
    if "page_name" in metafunc.fixturenames:
        toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
        pages = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
        metafunc.parametrize("page_name", pages)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):  # noqa: ARG001
    """Turn every skip into a failure where the environment says ``CI``: there, nothing may be left out."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped in CI: {report.longrepr[-1]}"
    return report


@pytest.fixture(scope="session")
def proposal():
    """Draw phase-space points whose density is known in Cartesian coordinates and whose tails reach far.

    Half of them have Gaussian velocities, half a log-normal tangential speed: between them they cover whatever a flow
    in any of the coordinate maps may put its mass on.
    """

    def draw(n: int, rng: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(rng)
        x, v = rng.normal(size=(2, n, 3))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        ln_r, spread = rng.normal(0, 1.3, n), 1.3
        r, sigma = np.exp(ln_r), 0.8 / np.sqrt(1 + np.exp(ln_r))
        log_q = stats.norm.logpdf(ln_r, 0, spread) - 3 * ln_r - np.log(4 * np.pi)
        across = v - (v * x).sum(1, keepdims=True) * x
        across /= np.linalg.norm(across, axis=1, keepdims=True)
        v_t = np.exp(rng.normal(-0.5, 1.0, (n, 1)))
        v = np.where(np.arange(n)[:, None] < n // 2, v, rng.normal(size=(n, 1)) * x + v_t * across)
        v_r = (v * x).sum(1)
        v_t = np.sqrt((v * v).sum(1) - v_r**2)
        tangential = stats.norm.logpdf(np.log(v_t), -0.5, 1.0) - 2 * np.log(v_t) - np.log(2 * np.pi)
        log_v = np.logaddexp(stats.norm.logpdf(v).sum(1), stats.norm.logpdf(v_r) + tangential) - np.log(2)
        return np.hstack([r[:, None] * x, sigma[:, None] * v]), log_q + log_v - 3 * np.log(sigma)

    return draw


@pytest.fixture(scope="session")
def places():
    """Draw points log-uniform in radius between these scale radii (those of the score card), in all directions."""

    def draw(n=100, scale=1.0, seed=0, r_min=0.2, r_max=20.0):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n, 3))
        r = scale * np.exp(rng.uniform(np.log(r_min), np.log(r_max), n))
        return x * (r / np.linalg.norm(x, axis=1))[:, None]

    return draw


@pytest.fixture(scope="session")
def bound_velocities():
    """Draw velocities of any direction and of speeds up to 0.9 of the escape speed."""

    def draw(system, points, n=60, seed=1):
        rng = np.random.default_rng(seed)
        v = rng.normal(size=(len(points), n, 3))
        limit = system.escape_speed(np.linalg.norm(points, axis=1))[:, None]
        return v * (0.9 * limit * rng.uniform(0, 1, (len(points), n)) ** (1 / 3) / np.linalg.norm(v, axis=2))[..., None]

    return draw


@pytest.fixture(scope="session")
def ensemble():
    """Make an ensemble of untrained flows, their weights shaken so that the density is far from Gaussian."""

    def make(coordinates="radial", *, n_flows=2, time_reversal=False, shake=0.1, seed=0, spec=None):
        stars = da.Plummer().sample(2000, rng=seed)
        spec = spec or da.FlowSpec(3, 8, n_blocks=1)
        coordinates = coordinate_map(stars, coordinates, time_reversal=time_reversal)
        y = coordinates.forward(torch.from_numpy(stars))[0]
        layout = spec.layout(coordinates.features)
        theta = layout.initial(list(range(seed, seed + n_flows)))
        for name, array in layout.unpack(theta).items():  # views: start from scales near one, as a trained flow has
            if name.endswith("final_layer.bias"):
                array[:, ::2] += np.log(np.e - 1)
        theta = theta + shake * torch.from_numpy(np.random.default_rng(seed).standard_normal(theta.shape)).float()
        mean = torch.where((coordinates.flips < 0).any(0), 0.0, y.mean(0))
        reference = y[:, : coordinates.n_positions].float()
        return FlowEnsemble(spec, coordinates, mean, 0.7 * y.std(0), theta, reference, {"n_stars": len(stars)})

    return make


@pytest.fixture
def global_random_state():
    """Check that a test leaves the global random states of Python, NumPy and torch as it found them."""

    def states():
        return random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()  # noqa: NPY002

    before = states()
    yield
    assert states() == before
