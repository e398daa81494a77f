"""The published flows: what nflows computes from their files is what we compute; anything else is refused, not run."""

import copy
import math
import os
import re
import sys
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

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from hernquistflows import load_hernquistflows as load  # noqa: E402

TINY, PUBLISHED = (2, 8, 1), (8, 64, 2)
STARS = da.Hernquist().sample(200, rng=1)


def published_flow(seed, size=TINY):
    """A flow as the public code makes it, weights shaken as if it were trained, for it starts as a Gaussian."""
    sizes = {"hidden_features": size[1], "num_blocks": size[2], "activation": F.relu}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pairs = [(ReversePermutation(6), MaskedAffineAutoregressiveTransform(6, **sizes)) for _ in range(size[0])]
        flow = Flow(CompositeTransform(sum(pairs, ())), StandardNormal(shape=[6]))
        for name, p in flow.requires_grad_(False).named_parameters():
            p += 0.1 * torch.randn_like(p)
            if name.endswith("final_layer.bias"):
                p[::2] += math.log(math.e - 1)
    return flow.requires_grad_().eval()


def write(folder, n=3, size=TINY):
    """Files of n flows, named as published; others lie beside them."""
    flows = [published_flow(seed, size) for seed in range(n)]
    for k, flow in enumerate(flows):
        torch.save(flow.state_dict(), folder / f"{k}_best.pth")
        np.save(folder / f"{k}_losses", np.zeros(3))
    return flows


def stacked(flows, names):
    return {name: torch.stack([flow.state_dict()[name] for flow in flows]) for name in names}


def expected(flows, w, position_unit=10.0, velocity_unit=2**0.5, dtype=torch.float64):
    """Log density of each flow per user unit, by nflows: the scaled inputs and the Jacobian of the scaling."""
    scaled = torch.from_numpy(w / np.repeat([position_unit, velocity_unit], 3)).to(dtype)
    log_prob = np.stack([copy.deepcopy(flow).to(dtype).log_prob(scaled).double().detach() for flow in flows])
    return log_prob - 3 * math.log(position_unit * velocity_unit)


@pytest.mark.parametrize(("size", "n"), [(TINY, 12), (PUBLISHED, 2)])
def test_the_density_is_that_of_nflows(tmp_path, global_random_state, size, n):  # noqa: ARG001
    flows, model = write(tmp_path, n, size), load(tmp_path)
    want, ours = expected(flows, STARS), model.members_log_df(STARS)
    assert (model.n_flows, model.spec, model.coordinates.name) == (n, da.FlowSpec(*size, "relu"), "linear")
    single = expected(flows, STARS, dtype=torch.float32)
    good = np.isfinite(single).all(0)  # random weights throw some stars beyond single precision

    def off(value, true):
        return (np.abs(value - true) / (1 + np.abs(true)))[..., good].max()

    allowed = 4 * off(single, want)  # as close to double precision as nflows in single precision, or nearly
    assert good.mean() > 0.9
    assert off(ours, want) < allowed < 1e-3  # 10 comes after 2
    assert off(model.log_df(STARS), np.logaddexp.reduce(want) - math.log(n)) < allowed
    smooth = da.FlowEnsemble(da.FlowSpec(*size), model.coordinates, model.mean, model.std, model.theta, model.reference)
    for wrong in (expected(flows[::-1], STARS), expected(flows, STARS, 9.9), expected(flows, STARS, velocity_unit=1.4),
                  want + 3 * math.log(10), expected(flows, STARS[:, [1, 0, 2, 3, 4, 5]]), smooth.members_log_df(STARS)):
        assert not np.allclose(ours, wrong, atol=0.01, rtol=0)  # negative control


def test_units(tmp_path):
    """In kpc and km/s the density is the same one per kpc^3 (km/s)^3, and so is what counts as near."""
    write(tmp_path)
    length, speed, natural = 5.0, 92.7, load(tmp_path)
    user = load(tmp_path, position_unit=10 * length, velocity_unit=2**0.5 * speed)
    scale, x = np.repeat([length, speed], 3), natural.sample(30, rng=1)[:, :3]
    np.testing.assert_allclose(user.log_df(STARS * scale) + np.log(scale).sum(), natural.log_df(STARS), atol=1e-4)
    np.testing.assert_allclose(user.score(STARS * scale) * scale, natural.score(STARS), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(user.sample(50, rng=0), natural.sample(50, rng=0) * scale, rtol=1e-12)
    near = [da.accelerations(m, y, n_velocities=20).n_near for m, y in ((natural, x), (user, x * length))]
    np.testing.assert_allclose(near[1], near[0], rtol=1e-6)
    assert (natural.metadata["r_max"], user.metadata["r_max"]) == (200, 200 * length)
    for name in ("position_unit", "velocity_unit"):
        for unit in (0.0, -1.0, math.nan, "kpc"):
            with pytest.raises(TypeError if unit == "kpc" else ValueError, match=f"{name} must be a positive"):
                load(tmp_path, **{name: unit})


def test_other_ways_to_write_the_same_flows(tmp_path):
    """A single file; safetensors; without masks, as before PyTorch 1.6; with the constant of earlier nflows."""
    flows = write(tmp_path)
    whole, state = load(tmp_path), flows[1].state_dict()
    parameters = dict(flows[1].named_parameters())
    for names in (parameters, state):
        save_file(stacked(flows, names), tmp_path / "iso.safetensors")
        one = load(tmp_path / "iso.safetensors")
        torch.testing.assert_close((one.theta, one.reference), (whole.theta, whole.reference), rtol=0, atol=0)
        assert one.metadata == whole.metadata
    log_z = torch.tensor(3 * math.log(2 * math.pi), dtype=torch.float64)
    parallel = {f"module.{name}": a for name, a in state.items()}  # as torch's DataParallel names them
    for content in (state, parameters, {**state, "_distribution._log_z": log_z}, parallel):
        for zipped in (True, False):
            torch.save(dict(reversed(content.items())), tmp_path / "one", _use_new_zipfile_serialization=zipped)
            again = load(str(tmp_path / "one")).theta
            assert torch.equal(again, whole.member(1).theta)
            assert not again.requires_grad


def test_it_is_an_ensemble_like_any_other(tmp_path):
    write(tmp_path)
    model, again = load(tmp_path), load(tmp_path)
    assert model.reference.shape == (5000, 3)
    drawn = model.sample(5000, rng=3)[:, :3] / 10  # the reference is where the ensemble has its stars
    np.testing.assert_allclose(np.median(drawn, axis=0), model.reference.median(0)[0], atol=0.1)
    points = [*model.sample(20, rng=2)[:, :3], [1e4, 0, 0]]
    supported = da.accelerations(model, points, n_velocities=30, warn=False).supported
    assert (supported[:-1].mean() > 0.9, supported[-1]) == (True, False)
    da.save(model, tmp_path / "saved")
    back = da.load(tmp_path / "saved")
    np.testing.assert_array_equal(back.log_df(STARS), model.log_df(STARS))
    assert back.metadata == model.metadata
    assert "An, Naik" in model.metadata["citation"]
    model.metadata["n_stars"] = 1
    assert again.metadata["n_stars"] == 1_000_000  # its own copy


def refused(path, match, error=ValueError, file=None):
    """Loading raises, names the file, and says so in one line, without PyTorch's advice on how to run the file."""
    with pytest.raises(error, match=match) as caught:
        load(path)
    assert str(file or path) in str(caught.value)
    assert not re.search("\n|weights_only", str(caught.value))


def test_missing_truncated_or_other_files(tmp_path):
    refused(tmp_path / "nowhere", "nowhere does not exist", error=FileNotFoundError)
    flow, first, old, safe = published_flow(1), *(tmp_path / n for n in ("1_500.pth", "best.pth", "a.safetensors"))
    for file, zipped in ((first, True), (old, False)):
        torch.save(flow.state_dict(), file, _use_new_zipfile_serialization=zipped)
    save_file(stacked([flow], dict(flow.named_parameters())), safe)
    refused(tmp_path, "holds no N_best.pth")  # but intermediate states, as the public code may leave
    for file in (first, old, safe):
        whole = file.read_bytes()
        for part in (*(whole[: int(share * len(whole))] for share in (0, 0.1, 0.5, 0.99)), whole[:10], bytes(1000),
                     b"not a flow at all", b"\x80\x04]\x94.", b"PK\x03\x04" + bytes(100)):
            file.write_bytes(part)
            refused(file, r"is truncated or holds more than tensors \(\w+\)")
    for content in (torch.ones(3), [torch.ones(3)], {"a": 1}, {"model": {"a": torch.ones(3)}},
                    {"a": torch.eye(3).to_sparse()}, {"a": torch.ones(3, device="meta")}):
        torch.save(content, first)
        refused(first, "must hold named tensors and nothing else")
    refused(ROOT / "models/hernquist_iso/ensemble.safetensors", "does not fit HernquistFlows")  # it is for `da.load`


NET = "_transform._transforms.1.autoregressive_net."
FIRST, BIAS, MASK = (NET + name for name in ("initial_layer.weight", "final_layer.bias", "final_layer.mask"))
NO_NETWORK, NO_NUMBERS = "must be a network of 6 features", "final_layer.bias must hold finite float32"
WRONG = {  # name of an array: what becomes of it (None: left out), and what is said
    FIRST: [(change, NO_NETWORK) for change in (None, lambda a: a[:, :5], lambda a: a[:4], lambda a: a[0, 0])],
    BIAS: [(None, "names differ, first .*final_layer.bias"), (lambda a: a[:-1], r"final_layer.bias' must have shape"),
           *((change, NO_NUMBERS) for change in (lambda a: a * math.nan, lambda a: a / 0, torch.Tensor.double,
                                                 torch.Tensor.long))],
    MASK: [(lambda a: 1 - a, "final_layer.mask is not the one that nflows"), (lambda a: a[:1], "mask is not the one")],
    **{name: [(lambda _: torch.ones(3), f"names differ, first '{name}'")] for name in ("extra", 7)},
    "_transform._transforms.0._permutation": [(lambda a: a.flip(0), "_permutation is not the one")],
    "_distribution._log_z": [(lambda _: torch.zeros(()), "_log_z is not the one")],
}


def test_wrong_arrays(tmp_path):
    write(tmp_path)
    file, state = tmp_path / "1_best.pth", published_flow(1).state_dict()
    wrong = [({}, NO_NETWORK), ({f"net.{name}": a for name, a in state.items()}, NO_NETWORK)]
    wrong += [(published_flow(1, size).state_dict(), "its size is .*, that of the members before it 2 transforms x 8")
              for size in ((3, 8, 1), (2, 16, 1), (2, 8, 2))]
    for name, changes in WRONG.items():
        rest = {key: a for key, a in state.items() if key != name}
        wrong += [(rest | ({name: change(state.get(name))} if change else {}), match) for change, match in changes]
    for content, match in wrong:
        torch.save(content, file)
        refused(tmp_path, match, file=file)
    arrays = stacked([published_flow(0), published_flow(1)], state)
    for content in ({**arrays, BIAS: arrays[BIAS][:1]}, {name: a[:0] for name, a in arrays.items()}):
        save_file(content, tmp_path / "iso.safetensors")
        refused(tmp_path / "iso.safetensors", "must all be stacked over the same number of members")


class Hostile(str):
    """The name of a file that unpickling it makes."""

    def __reduce__(self):
        return Path.touch, (Path(self),)


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("place", ["whole", "value", "name"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, monkeypatch, place, zipped, forced):
    ran, file, state = tmp_path / "ran", tmp_path / "1_best.pth", published_flow(1).state_dict()
    bad = Hostile(ran)
    content = {"whole": bad, "value": {**state, "extra": bad}, "name": {**state, bad: torch.ones(3)}}[place]
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    if forced:  # a variable that makes PyTorch careless where its caller is not explicit
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    refused(tmp_path, "is truncated or holds more than tensors", file=file)
    assert not ran.exists()
    torch.load(file, weights_only=False)  # negative control: the file is hostile indeed
    assert ran.exists()


if "HERNQUISTFLOWS" in os.environ:  # a folder with isotropic.safetensors, their arrays stacked, and fig3_data.npz

    def test_the_published_figure_3():
        folder = Path(os.environ["HERNQUISTFLOWS"])
        figure, model = np.load(folder / "fig3_data.npz"), load(folder / "isotropic.safetensors")
        ours = -da.accelerations(model, np.outer(figure["x"], [1.0, 0, 0]), n_velocities=300).value[:, 0]
        assert np.median(np.abs(figure["y1"] / figure["y0"] - 1)) == pytest.approx(0.019, abs=0.001)
        for peer in ("y0", "y1"):
            assert np.median(np.abs(ours / figure[peer] - 1)) < 0.03
