"""Saved ensembles: what was saved comes back, in the format of today and the first one; the rest is refused."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import dfaccel as da
from dfaccel import _files
from dfaccel._files import read_tensors, write_tensors

TENSORS, READABLE = "ensemble.safetensors", "ensemble.json"


@pytest.fixture(scope="module")
def model(ensemble):
    """A small ensemble."""
    return ensemble("spherical")


@pytest.fixture
def saved(model, tmp_path):
    """Its folder."""
    da.save(model, tmp_path / "model")
    return tmp_path / "model"


def assert_same(back, model):
    w = da.Plummer().sample(50, rng=0)
    for method, options in (("log_df", {"w": w}), ("score", {"w": w}), ("sample", {"n": 20, "rng": 1})):
        np.testing.assert_array_equal(getattr(back, method)(**options), getattr(model, method)(**options))
    assert torch.equal(back.reference, model.reference)
    assert (back.spec, back.coordinates) == (model.spec, model.coordinates)
    assert json.dumps(back.metadata, sort_keys=True) == json.dumps(model.metadata, sort_keys=True)
    assert (back.theta.dtype, back.mean.dtype) == (torch.float32, torch.float64)


@pytest.mark.parametrize("name", ["spherical", "axisymmetric", "radial", "linear"])
def test_what_was_saved_comes_back_and_a_model_of_the_first_format_too(ensemble, tmp_path, name):
    """There, the specification named the position map, and the coordinates their class and the symmetry."""
    model = ensemble(name, time_reversal=True)
    model.metadata |= {"history": [{"train": [1.5, float("nan")]}], "note": "ünïcode", "best": float("inf")}
    da.save(model, tmp_path / "a" / "b")
    assert_same(da.load(str(tmp_path / "a" / "b")), model)
    tensors, header = read_tensors(tmp_path / "a" / "b" / TENSORS)
    assert header["coordinates"].pop("name") == name
    symmetry = name if name in ("spherical", "axisymmetric") else "none"
    header["coordinates"] |= {"kind": name.capitalize(), "symmetry": symmetry}
    header["spec"]["position_map"] = "linear" if name == "linear" else "radial"
    write_tensors(tmp_path / TENSORS, tensors, header)
    (tmp_path / READABLE).write_text(json.dumps(header, indent=1, sort_keys=True) + "\n")
    assert_same(da.load(tmp_path), model)


@pytest.mark.parametrize(("name", "has_prior"), [("hernquist_iso", False), ("hernquist_iso_free", True)])
def test_a_model_of_the_book_is_read_and_saved_anew(root, tmp_path, name, has_prior):
    model = da.load(root / "models" / name)
    assert (model.prior is not None) == has_prior
    da.save(model, tmp_path)
    assert_same(da.load(tmp_path), model)


def test_arrays_bear_the_names_of_nflows(saved, model):
    """So that the weights can be taken elsewhere: member k of the stacked arrays is a state dict of nflows."""
    arrays, flow = load_file(saved / TENSORS), model.spec.build(3)
    flow.load_state_dict({n: arrays[n][1] for n, _ in flow.named_parameters()}, strict=False)
    y = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.layout.log_prob(model.layout.networks(model.theta), y.T.expand(2, -1, -1))[1]
        torch.testing.assert_close(flow.log_prob(y), expected, rtol=1e-5, atol=1e-5)


def test_json_says_what_the_model_is_and_may_be_missing(saved, model, tmp_path):
    header = json.loads((saved / READABLE).read_text())
    assert (header["spec"], header["n_flows"]) == (asdict(model.spec), 2)
    assert (header["coordinates"]["name"], header["metadata"]["n_stars"]) == ("spherical", 2000)
    da.save(model, tmp_path / "two")
    assert all((saved / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in (TENSORS, READABLE))
    assert len(list(saved.iterdir())) == 2
    (saved / READABLE).unlink()
    assert torch.equal(da.load(saved).theta, model.theta)


def test_arrays_altered_with_a_tool(saved):
    """A file that is perfectly good safetensors, written by something else over the old one."""
    arrays = load_file(saved / TENSORS)
    with safe_open(saved / TENSORS, "pt") as file:
        metadata = file.metadata()
    arrays["mean"] += 1e-9
    for left, sentence in ((metadata, "was altered after it was written: its checksum differs"),
                           (None, "was not written by dfaccel: it has no dfaccel header")):
        save_file(arrays, saved / TENSORS, left)
        with pytest.raises(ValueError, match=sentence):
            da.load(saved)


def test_altered_json(saved, ensemble, tmp_path):
    text = (saved / READABLE).read_text()
    da.save(ensemble("axisymmetric"), tmp_path / "other")
    other = (tmp_path / "other" / READABLE).read_text()
    for altered in (text.replace("gelu", "relu"), text[:-10], "", text.replace('"n_flows": 2', '"n_flows": 3'), other):
        (saved / READABLE).write_text(altered)
        with pytest.raises(ValueError, match=r"ensemble\.json was altered: it differs from the header"):
            da.load(saved)
    (saved / READABLE).write_text(text)
    da.load(saved)


def test_what_is_no_model_of_today(model, few_stars, small_fit, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"nowhere/ensemble\.safetensors does not exist"):
        da.load(tmp_path / "nowhere")
    with monkeypatch.context() as patch:
        patch.setattr(_files, "FORMAT", 2)
        da.save(model, tmp_path)
    with pytest.raises(ValueError, match="has format 2, this dfaccel reads up to 1; upgrade dfaccel"):
        da.load(tmp_path)
    small_fit(few_stars, checkpoint=tmp_path)
    (tmp_path / "checkpoint.safetensors").replace(tmp_path / TENSORS)
    with pytest.raises(ValueError, match="holds a training, not an ensemble"):
        da.load(tmp_path)


def test_home_is_expanded(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    da.save(model, "~/model")
    assert_same(da.load("~/model"), model)
    small = {"spec": da.FlowSpec(1, 4), "config": da.TrainConfig(1, 500), "rng": 0}
    da.fit(da.Plummer().sample(1000, rng=1), checkpoint="~/checkpoint", **small)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "checkpoint"}
