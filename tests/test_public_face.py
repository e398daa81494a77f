"""The public face: few names, the promised signatures, and a package that is quiet when it is imported."""

import ast
import inspect
import subprocess
import sys
import tomllib

import numpy as np
import pytest

import dfaccel as da

PROMISED = {
    "Accelerations", "BarredDisc", "Disc", "DistributionFunction", "FlowEnsemble", "FlowSpec", "Hernquist",
    "MiyamotoNagai", "Plummer", "Potential", "ScoreCard", "ShortChainError", "Solution", "Stream", "TrainConfig",
    "accelerations", "add_noise", "calibrate", "cylindrical", "denoise", "directions", "fit", "jeans",
    "kl_divergence", "knn_divergence", "load", "mix", "possible_truths", "potential", "recipe", "record", "sample_mcmc",
    "save", "score_card", "snapshot", "solve", "spherical", "unknowns",
}
FORBIDDEN = ("Utils", "utils", "helper", "misc", "calc_", "get_")


def test_names_are_those_promised():
    assert sorted(PROMISED) == sorted(da.__all__)
    assert all(hasattr(da, name) and not name.startswith(FORBIDDEN) for name in da.__all__)


@pytest.mark.parametrize(("function", "first", "keywords"), [
    (da.fit, ["stars"], {"n_flows": 1, "spec": None, "config": None, "coordinates": "radial", "checkpoint": None}),
    (da.accelerations, ["points"], {"rng": 0, "warn": True}),
    (da.score_card, [], {}),
    (da.FlowEnsemble.sample, ["n"], {}),
])
def test_signatures_are_those_promised(function, first, keywords):
    parameters = inspect.signature(function).parameters
    assert all(parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for name in first)
    assert {name: parameters[name].default for name in keywords} == keywords
    assert "rng" in parameters


@pytest.mark.parametrize("kind", [da.Hernquist, da.Plummer, da.Disc, da.Stream, da.FlowEnsemble,
                                  da.DistributionFunction])
def test_every_distribution_function_samples_with_a_keyword(kind):
    assert inspect.signature(kind.sample).parameters["rng"].kind is inspect.Parameter.KEYWORD_ONLY


def test_modules_are_small_say_what_they_are_and_take_rng(root):
    """Keyword `rng`, never `random_state` or `generator`."""
    for path in (root / "dfaccel").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        module = ast.parse(text)
        assert len(text.splitlines()) <= 300, path
        assert ast.get_docstring(module).split("\n\n")[0].endswith((".", "?", ":")), path
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                arguments = {a.arg for a in [*node.args.args, *node.args.kwonlyargs]}
                assert not arguments & {"random_state", "generator"}, f"{path.name}: {node.name}"
            assert not isinstance(node, ast.Assert), f"{path.name}: input is never checked with assert"


def test_version_is_that_of_the_project(root):
    assert da.__version__ == tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.slow
def test_importing_is_quiet_and_brings_no_notebook_machinery(root):
    """A fresh interpreter: no warning, no output, neither the global random state nor signal handlers touched."""
    code = """if True:
        import random, signal, sys, numpy as np, torch
        def state():
            return (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
                    signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
        before = state()
        import dfaccel
        assert state() == before
        assert not {'myst_nb', 'galpy', 'papermill', 'IPython', 'astropy'} & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_main_road(tmp_path):
    """What the first page promises, end to end and small: stars, flow, density, accelerations, files."""
    stars = da.Hernquist(beta=0.0).sample(10_000, rng=1)
    config = da.TrainConfig(n_epochs=3, batch_size=200)
    model = da.fit(stars, n_flows=2, spec=da.FlowSpec(3, 16), config=config, coordinates="spherical", rng=0,
                   checkpoint=tmp_path / "run")
    points = np.array([[1.0, 0, 0], [0, 2, 0], [1, 1, 1]])
    result = da.accelerations(model, points, rng=0)
    assert (result.value.shape, result.covariance.shape) == ((3, 3), (3, 3, 3))
    assert result.condition.shape == result.residual.shape == result.supported.shape == (3,)
    assert result.supported.dtype == bool
    da.save(model, tmp_path / "model")
    again = da.accelerations(da.load(tmp_path / "model"), points, rng=0)
    np.testing.assert_array_equal(again.value, result.value)
    assert np.median(result.error(da.Hernquist().acceleration(points))) < 0.3
