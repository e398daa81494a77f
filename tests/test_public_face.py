"""The public face: few names, the promised signatures, and modules that import only from the rows above them."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
import tomllib

import numpy as np
import pytest

import dfaccel as da

ROWS = [
    {"checks", "coordinates", "files", "records"},
    {"config", "orbits"},
    {"units", "systems"},
    {"demonstration", "mcmc", "mocks", "flows", "tables", "symptoms"},
    {"ensemble", "optimizer", "snapshot"},
    {"store", "published", "run", "streams"},
    {"design", "training"},
    {"boltzmann", "study"},
    {"calibration", "components", "divergence", "inspection", "poisson", "report", "scorecard", "variance"},
    {"plots"},
    {"__init__"},
]
FORBIDDEN = ("Utils", "utils", "helper", "misc", "calc_", "get_")


def modules(folder):
    """Each module of the package, by the name of its row, with its path."""
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        yield ("systems" if parts[0] == "systems" else parts[0]), path


def imported(path, package):
    """Names of the modules of this package that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            base = f"{base}.{node.module}" if node.level and node.module else (node.module or base)
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "dfaccel" else [base]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("dfaccel."))


def test_modules_import_from_the_rows_above_only(root):
    level = {name: i for i, row in enumerate(ROWS) for name in row}
    for name, path in modules(root / "dfaccel"):
        assert name in level, f"{name} has no row yet: say in ROWS, and in the design, where it belongs"
        package = "dfaccel.systems" if path.parent.name == "systems" else "dfaccel"
        for other in imported(path, package):
            if name == other == "systems":
                continue
            assert other in level, f"{path.name} imports {other}, which has no row"
            assert level[other] < level[name], f"{path.name} imports {other}, which is not in a row above it"


def test_the_rows_would_notice(tmp_path):
    """Negative control: every way of writing an import of this package is understood."""
    lines = ["from .training import fit", "import dfaccel.training", "from dfaccel import training",
             "from dfaccel.training import fit", "from . import training"]
    for line in lines:
        (tmp_path / "module.py").write_text(f"import numpy\ndef f():\n    {line}\n")
        assert list(imported(tmp_path / "module.py", "dfaccel")) == ["training"], line
    (tmp_path / "module.py").write_text("from ..training import fit\nfrom .base import Base\n")
    assert list(imported(tmp_path / "module.py", "dfaccel.systems")) == ["training", "systems"]


def test_names_are_promised_and_few():
    assert len(set(da.__all__)) == len(da.__all__)
    assert len(da.__all__) <= 30
    for name in da.__all__:
        assert hasattr(da, name)
        assert not name.startswith(FORBIDDEN)
    promised = {"Hernquist", "Plummer", "FlowSpec", "TrainConfig", "FlowEnsemble", "fit", "accelerations", "score_card",
                "kl_divergence", "save", "load", "record"}
    assert promised <= set(da.__all__)


def test_modules_are_small(root):
    sizes = {path.name: len(path.read_text().splitlines()) for _, path in modules(root / "dfaccel")}
    assert max(sizes.values()) <= 360, sizes
    assert sum(sizes.values()) <= 7500  # with the rooms of chapter 14: tables, snapshot, symptoms, inspection, report


@pytest.mark.parametrize(
    ("function", "first", "keywords"),
    [
        (da.fit, ["stars"], {"n_flows": 1, "spec": None, "config": None, "symmetry": "none", "checkpoint": None}),
        (da.accelerations, ["points"], {"rng": 0}),
        (da.score_card, [], {}),
        (da.FlowEnsemble.sample, ["n"], {}),
    ],
)
def test_signatures_are_those_promised(function, first, keywords):
    parameters = inspect.signature(function).parameters
    for name in first:
        assert parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    for name, default in keywords.items():
        assert parameters[name].default == default
    assert "rng" in parameters


def test_everything_random_takes_rng_and_nothing_else(root):
    """Keyword `rng`, never `seed` or `random_state`; and nothing in the package calls NumPy's global generator."""
    for name, path in modules(root / "dfaccel"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                arguments = {a.arg for a in [*node.args.args, *node.args.kwonlyargs]}
                assert not arguments & {"random_state", "generator"}, f"{name}.{node.name}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                call = ast.unparse(node)
                if call.startswith("np.random."):
                    assert node.attr in {"default_rng", "Generator", "SeedSequence", "PCG64", "MT19937", "RandomState"}


def test_input_is_never_checked_with_assert(root):
    for _, path in modules(root / "dfaccel"):
        assert not [n.lineno for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Assert)], path


def test_version_is_that_of_the_project(root):
    assert da.__version__ == tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]


def test_importing_is_quiet_and_brings_no_notebook_machinery(root):
    """A fresh interpreter: no warning, no output, neither the global random state nor signal handlers touched."""
    code = (
        "import json, random, signal, sys, numpy as np, torch\n"
        "before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()\n"
        "handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)\n"
        "import dfaccel\n"
        "after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()\n"
        "same = before == after and handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))\n"
        "heavy = [m for m in ('myst_nb', 'galpy', 'papermill', 'dfaccel.plots') if m in sys.modules]\n"
        "print(json.dumps([same, heavy]))\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout) == [True, []]


def test_the_main_road(tmp_path):
    """What the first page promises, end to end and small: stars, flow, density, accelerations, files."""
    stars = da.Hernquist(beta=0.0).sample(10_000, rng=1)
    config = da.TrainConfig(n_epochs=3, batch_size=200)
    model = da.fit(stars, n_flows=2, spec=da.FlowSpec(3, 16), config=config, symmetry="spherical", rng=0,
                   checkpoint=tmp_path / "run")
    points = np.array([[1.0, 0, 0], [0, 2, 0], [1, 1, 1]])
    result = da.accelerations(model, points, rng=0)
    assert (result.value.shape, result.covariance.shape) == ((3, 3), (3, 3, 3))
    assert result.condition.shape == result.residual.shape == result.supported.shape == (3,)
    assert result.supported.dtype == bool
    da.save(model, tmp_path / "model")
    again = da.accelerations(da.load(tmp_path / "model"), points, rng=0)
    np.testing.assert_array_equal(again.value, result.value)
    truth = da.Hernquist().acceleration(points)
    error = np.linalg.norm(result.value - truth, axis=1) / np.linalg.norm(truth, axis=1)
    assert np.median(error) < 0.3


@pytest.mark.parametrize("name", ["checks", "coordinates", "flows", "training", "store", "boltzmann", "scorecard"])
def test_module_says_what_it_is(name):
    assert importlib.import_module(f"dfaccel.{name}").__doc__.strip().endswith(".")
