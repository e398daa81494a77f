"""The published flows: what nflows computes from their files is what we compute; anything else is refused, not run."""

import ast
import math
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from nflows.distributions import StandardNormal
from nflows.flows import Flow
from nflows.transforms import CompositeTransform, MaskedAffineAutoregressiveTransform, ReversePermutation
from safetensors.torch import save_file
from torch.nn import functional as F

import dfaccel as da

NET = "_transform._transforms.1.autoregressive_net."
SIZES = {"tiny": (2, 8, 1), "published": (8, 64, 2)}


def published_flow(seed, size="tiny"):
    """A flow as the public code makes it, weights shaken as if it were trained, for it starts as a Gaussian."""
    n_transforms, hidden, n_blocks = SIZES[size]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        steps = []
        for _ in range(n_transforms):
            steps.append(ReversePermutation(features=6))
            steps.append(MaskedAffineAutoregressiveTransform(6, hidden, num_blocks=n_blocks, activation=F.relu))
        flow = Flow(CompositeTransform(steps), StandardNormal(shape=[6]))
        with torch.no_grad():
            for name, p in flow.named_parameters():
                p += 0.1 * torch.randn_like(p)
                if name.endswith("final_layer.bias"):
                    p[::2] += math.log(math.e - 1)
    return flow.eval()


def write(folder, n=3, size="tiny"):
    """Files of n flows, named as published."""
    folder.mkdir(exist_ok=True)
    flows = [published_flow(seed, size) for seed in range(n)]
    for k, flow in enumerate(flows):
        torch.save(flow.state_dict(), folder / f"{k}_best.pth")
        np.save(folder / f"{k}_losses", np.zeros(3))  # lies beside it, as published
    return flows


def stacked(flows, *, buffers=False):
    """Arrays stacked over members, as in one safetensors file."""
    names = flows[0].state_dict() if buffers else dict(flows[0].named_parameters())
    return {name: torch.stack([flow.state_dict()[name] for flow in flows]) for name in names}


def expected(flows, w, position_unit=10.0, velocity_unit=2**0.5):
    """Log density of each flow per user unit, by nflows: the scaled inputs and the Jacobian of the scaling."""
    scaled = torch.from_numpy(w / np.repeat([position_unit, velocity_unit], 3)).float()
    with torch.no_grad():
        log_prob = torch.stack([flow.log_prob(scaled) for flow in flows]).double().numpy()
    return log_prob - 3 * math.log(position_unit) - 3 * math.log(velocity_unit)


@pytest.fixture
def folder(tmp_path):
    """A folder of three tiny flows."""
    write(tmp_path / "hq_iso_orig")
    return tmp_path / "hq_iso_orig"


@pytest.fixture
def state(folder):
    """What the file of member 1 holds."""
    return torch.load(folder / "1_best.pth", weights_only=True)


STARS = da.Hernquist().sample(200, rng=1)


# ---- the same numbers as nflows ----


@pytest.mark.parametrize(("size", "n"), [("tiny", 12), ("published", 2)])
def test_the_density_is_that_of_nflows(tmp_path, global_random_state, size, n):  # noqa: ARG001
    flows = write(tmp_path, n, size)
    model = da.load_hernquistflows(tmp_path)
    want = expected(flows, STARS)
    assert (model.n_flows, model.spec.activation, model.spec.position_map) == (n, "relu", "linear")
    assert (model.spec.n_transforms, model.spec.hidden_features, model.spec.n_blocks) == SIZES[size]
    np.testing.assert_allclose(model.members_log_prob(STARS), want, atol=2e-4, rtol=1e-5)  # 10 comes after 2
    mean = np.logaddexp.reduce(want, axis=0) - math.log(n)
    np.testing.assert_allclose(model.log_prob(STARS), mean, atol=2e-4, rtol=1e-5)


def test_the_comparison_would_notice(folder):
    """Negative control: other members, another unit, no Jacobian, other activations are all far outside tolerance."""
    flows, model = [published_flow(seed) for seed in range(3)], da.load_hernquistflows(folder)
    ours = model.members_log_prob(STARS)
    for wrong in (expected(flows[::-1], STARS), expected(flows, STARS, 9.9), expected(flows, STARS, velocity_unit=1.4),
                  expected(flows, STARS) + 3 * math.log(10), expected(flows, STARS[:, [1, 0, 2, 3, 4, 5]])):
        assert np.abs(ours - wrong).max() > 0.01
    smooth = da.FlowEnsemble(da.FlowSpec(*SIZES["tiny"]), model.coordinates, model.mean, model.std, model.theta,
                             model.reference)
    assert np.abs(smooth.members_log_prob(STARS) - expected(flows, STARS)).max() > 0.01


def test_units(folder):
    """In kpc and km/s the density is the same one per kpc^3 (km/s)^3, and so is what counts as near."""
    length, speed = 5.0, 92.7
    natural = da.load_hernquistflows(folder)
    user = da.load_hernquistflows(folder, position_unit=10 * length, velocity_unit=2**0.5 * speed)
    scale = np.repeat([length, speed], 3)
    change = 3 * math.log(length) + 3 * math.log(speed)
    np.testing.assert_allclose(user.log_prob(STARS * scale) + change, natural.log_prob(STARS), atol=1e-4)
    np.testing.assert_allclose(user.score(STARS * scale) * scale, natural.score(STARS), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(user.sample(50, rng=0), natural.sample(50, rng=0) * scale, rtol=1e-12)
    options = {"n_velocities": 20, "rng": 0}
    x = natural.sample(30, rng=1)[:, :3]
    n_near = da.accelerations(natural, x, **options).n_near
    np.testing.assert_allclose(da.accelerations(user, x * length, **options).n_near, n_near, rtol=1e-6)
    assert (natural.metadata["r_max"], user.metadata["r_max"]) == (200, 200 * length)
    for unit in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="position_unit must be a positive finite number"):
            da.load_hernquistflows(folder, position_unit=unit)
        with pytest.raises(ValueError, match="velocity_unit must be a positive finite number"):
            da.load_hernquistflows(folder, velocity_unit=unit)
    with pytest.raises(TypeError, match="position_unit must be a positive number; got 'kpc'"):
        da.load_hernquistflows(folder, position_unit="kpc")


@pytest.mark.parametrize("as_text", [False, True])
def test_a_single_file_is_one_member(folder, as_text):
    file = folder / "2_best.pth"
    one = da.load_hernquistflows(str(file) if as_text else file)
    assert one.n_flows == 1
    assert torch.equal(one.theta, da.load_hernquistflows(folder).member(2).theta)


@pytest.mark.parametrize("buffers", [False, True])
def test_stacked_safetensors_are_the_same_ensemble(folder, tmp_path, buffers):
    save_file(stacked([published_flow(seed) for seed in range(3)], buffers=buffers), tmp_path / "iso.safetensors")
    one, other = da.load_hernquistflows(tmp_path / "iso.safetensors"), da.load_hernquistflows(folder)
    assert torch.equal(one.theta, other.theta)
    assert torch.equal(one.reference, other.reference)
    assert one.metadata == other.metadata


def test_other_ways_to_write_a_state_dict(folder, state):
    """Without masks, as before PyTorch 1.6, as parameters, with the constant that earlier versions of nflows kept."""
    theta = da.load_hernquistflows(folder / "1_best.pth").theta
    flow = published_flow(1)
    log_z = {"_distribution._log_z": torch.tensor(3 * math.log(2 * math.pi), dtype=torch.float64)}
    for content in (dict(flow.named_parameters()), {**state, **log_z}, OrderedDict(reversed(state.items()))):
        torch.save(content, folder / "1_best.pth")
        again = da.load_hernquistflows(folder / "1_best.pth").theta
        assert torch.equal(again, theta)
        assert not again.requires_grad
    torch.save(state, folder / "1_best.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(da.load_hernquistflows(folder / "1_best.pth").theta, theta)


def test_it_is_an_ensemble_like_any_other(folder, tmp_path):
    model = da.load_hernquistflows(folder)
    again = da.load_hernquistflows(folder)
    assert torch.equal(model.reference, again.reference)
    assert model.reference.shape == (5000, 3)
    assert model.metadata["n_stars"] == 1_000_000
    assert "An, Naik" in model.metadata["citation"]
    drawn = model.sample(5000, rng=3)[:, :3] / 10  # the reference is where the ensemble has its stars
    np.testing.assert_allclose(np.median(drawn, axis=0), model.reference.median(0)[0], atol=0.1)
    inside = da.accelerations(model, model.sample(20, rng=2)[:, :3], n_velocities=30)
    assert inside.supported.mean() > 0.9
    with pytest.warns(UserWarning, match="training stars are too few"):
        assert not da.accelerations(model, [[1e4, 0, 0]], n_velocities=30).supported.any()
    da.save(model, tmp_path / "saved")
    back = da.load(tmp_path / "saved")
    np.testing.assert_array_equal(back.log_prob(STARS), model.log_prob(STARS))
    assert back.metadata == model.metadata
    model.metadata["n_stars"] = 1  # its own copy
    assert again.metadata["n_stars"] == 1_000_000


# ---- what is refused, in one sentence that names the file ----


def refused(path, match, *, error=ValueError, file=None):
    """Loading raises, names the file, and says so in one line."""
    with pytest.raises(error, match=match) as caught:
        da.load_hernquistflows(path)
    message = str(caught.value)
    assert str(file or path) in message
    assert "\n" not in message
    assert "weights_only" not in message  # PyTorch's own error says how to run the file; ours does not


def test_missing(tmp_path):
    refused(tmp_path / "nowhere", "nowhere does not exist", error=FileNotFoundError)
    refused(tmp_path / "0_best.pth", "0_best.pth does not exist", error=FileNotFoundError)


def test_folder_without_flows(tmp_path, state):
    refused(tmp_path, "holds no N_best.pth")
    torch.save(state, tmp_path / "best.pth")
    torch.save(state, tmp_path / "1_500.pth")  # an intermediate state, as the public code may leave
    refused(tmp_path, "holds no N_best.pth")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0, 10, 0.1, 0.5, 0.99])
def test_truncated(folder, state, share, legacy):
    file = folder / "1_best.pth"
    torch.save(state, file, _use_new_zipfile_serialization=not legacy)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole)) if isinstance(share, float) else share])
    refused(folder, r"is truncated or holds more than tensors \(\w+\)", file=file)


@pytest.mark.parametrize("length", [0, 7, 1000, -1])
def test_truncated_safetensors(tmp_path, length):
    file = tmp_path / "iso.safetensors"
    save_file(stacked([published_flow(0)]), file)
    file.write_bytes(file.read_bytes()[:length])
    refused(file, "is truncated or holds more than tensors")


@pytest.mark.parametrize("content", [b"not a flow at all", b"\x80\x04]\x94.", b"PK\x03\x04" + bytes(100), bytes(1000)])
def test_another_kind_of_file(folder, content):
    (folder / "0_best.pth").write_bytes(content)
    refused(folder / "0_best.pth", "is truncated or holds more than tensors")


@pytest.mark.parametrize("content", [torch.ones(3), [torch.ones(3)], {"a": 1}, {"model": {"a": torch.ones(3)}},
                                     {"a": torch.eye(3).to_sparse()}, {"a": torch.ones(3, device="meta")}])
def test_tensors_but_no_state_dict(folder, content):
    torch.save(content, folder / "0_best.pth")
    refused(folder / "0_best.pth", "must hold named tensors and nothing else")


def changed(name, change):
    """A change of one array."""

    def apply(state):
        state[name] = change(state[name])

    return apply


def nan_in(a):
    a = a.clone()
    a.view(-1)[3] = math.nan
    return a


WRONG = {
    "nothing": (lambda state: state.clear(), "must be a network of 6 features"),
    "no first layer": (lambda state: state.pop(NET + "initial_layer.weight"), "must be a network of 6 features"),
    "five features": (changed(NET + "initial_layer.weight", lambda a: a[:, :5]), "must be a network of 6 features"),
    "another width": (changed(NET + "initial_layer.weight", lambda a: a[:4]), "must be a network of 6 features"),
    "a scalar": (changed(NET + "initial_layer.weight", lambda a: a[0, 0]), "must be a network of 6 features"),
    "a name less": (lambda state: state.pop(NET + "final_layer.bias"), "names differ, first .*final_layer.bias"),
    "a name more": (lambda state: state.update(extra=torch.ones(3)), "names differ, first 'extra'"),
    "a number for a name": (lambda state: state.update({7: torch.ones(3)}), "names differ, first '7'"),
    "another wrapper": (lambda state: state.update({f"module.{n}": state.pop(n) for n in list(state)}), "must be a n"),
    "another shape": (changed(NET + "final_layer.bias", lambda a: a[:-1]), r"final_layer.bias' must have shape"),
    "NaN": (changed(NET + "final_layer.weight", nan_in), "final_layer.weight must hold finite float32"),
    "infinity": (changed(NET + "final_layer.bias", lambda a: a / 0), "final_layer.bias must hold finite float32"),
    "double": (changed(NET + "final_layer.bias", lambda a: a.double()), "final_layer.bias must hold finite float32"),
    "whole numbers": (changed(NET + "final_layer.bias", lambda a: a.long()), "final_layer.bias must hold finite fl"),
    "another mask": (changed(NET + "final_layer.mask", lambda a: 1 - a), "final_layer.mask is not the one that nflow"),
    "mask of another shape": (changed(NET + "final_layer.mask", lambda a: a[:1]), "final_layer.mask is not the one"),
    "another order": (changed("_transform._transforms.0._permutation", lambda a: a.flip(0)), "_permutation is not the"),
    "another base": (lambda state: state.update({"_distribution._log_z": torch.zeros(())}), "_log_z is not the one"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arrays(folder, state, what):
    change, match = WRONG[what]
    change(state)
    torch.save(state, folder / "1_best.pth")
    refused(folder, match, file=folder / "1_best.pth")


@pytest.mark.parametrize("size", [(3, 8, 1), (2, 16, 1), (2, 8, 2)])
def test_members_of_different_sizes(folder, monkeypatch, size):
    monkeypatch.setitem(SIZES, "other", size)
    torch.save(published_flow(1, "other").state_dict(), folder / "1_best.pth")
    refused(folder, "its size is .*, that of the members before it 2 transforms x 8 features x 1 blocks",
            file=folder / "1_best.pth")


def test_stack_of_unequal_or_no_members(tmp_path):
    arrays = stacked([published_flow(0), published_flow(1)])
    for wrong in ({**arrays, NET + "final_layer.bias": arrays[NET + "final_layer.bias"][:1]},
                  {name: a[:0] for name, a in arrays.items()}):
        save_file(wrong, tmp_path / "iso.safetensors")
        refused(tmp_path / "iso.safetensors", "must all be stacked over the same number of members")


def test_ensembles_of_this_package_are_read_with_load(tmp_path, ensemble):
    da.save(ensemble("none"), tmp_path)
    refused(tmp_path / "ensemble.safetensors", "does not fit HernquistFlows")


# ---- nothing in a file is run ----


class Hostile:
    """An object whose unpickling makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["whole", "value", "name"])
def test_a_hostile_pickle_is_refused_and_not_run(folder, state, tmp_path, monkeypatch, place, legacy, forced):
    marker = tmp_path / "ran"
    hostile = Hostile(marker)
    content = {"whole": hostile, "value": {**state, "extra": hostile}, "name": {**state, hostile: torch.ones(3)}}[place]
    torch.save(content, folder / "1_best.pth", _use_new_zipfile_serialization=not legacy)
    if forced:  # a variable that makes PyTorch careless where its caller is not explicit
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    refused(folder, "is truncated or holds more than tensors", file=folder / "1_best.pth")
    assert not marker.exists()
    torch.load(folder / "1_best.pth", weights_only=False)  # negative control: the file is hostile indeed
    assert marker.exists()


def test_nothing_reads_with_less_care(root):
    """In the whole package PyTorch reads files in one place, restricted by a literal that no caller can change."""
    calls = [
        (path.name, {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords})
        for path in sorted((root / "dfaccel").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert calls == [("published.py", {"weights_only": "True"})]


# ---- the published weights, where they are at hand ----

if "HERNQUISTFLOWS" in os.environ:  # a folder with isotropic.safetensors, their arrays stacked, and fig3_data.npz

    def test_the_published_figure_3():
        folder = Path(os.environ["HERNQUISTFLOWS"])
        figure = np.load(folder / "fig3_data.npz")
        x = np.zeros((50, 3))
        x[:, 0] = figure["x"]
        ours = -da.accelerations(da.load_hernquistflows(folder / "isotropic.safetensors"), x, n_velocities=300).value
        assert np.median(np.abs(figure["y1"] / figure["y0"] - 1)) == pytest.approx(0.019, abs=0.001)
        assert np.median(np.abs(ours[:, 0] / figure["y0"] - 1)) < 0.03
        assert np.median(np.abs(ours[:, 0] / figure["y1"] - 1)) < 0.03
