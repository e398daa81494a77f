"""Orbits: what must be conserved is, the scheme is of fourth order, galpy agrees, and what was interrupted goes on."""

import numpy as np
import pytest
import torch

import dfaccel as da
from dfaccel._files import read_tensors
from dfaccel.systems import orbits
from dfaccel.systems.orbits import integrate

FIELD = da.MiyamotoNagai()


@pytest.fixture(scope="module")
def stars():
    return da.Disc().initial(2000, rng=3)


def energy(w):
    return (w[:, 3:] ** 2).sum(1) / 2 + FIELD.potential(w[:, :3])


@pytest.mark.usefixtures("global_random_state")
def test_energy_and_angular_momentum_are_conserved(stars):
    end = integrate(stars, FIELD, 100.0)
    assert abs(energy(end) / energy(stars) - 1).max() < 1e-5
    # the force is central in the plane at every kick: thousands of rounding errors of 1e-16 each, and no more
    before, after = (w[:, 0] * w[:, 4] - w[:, 1] * w[:, 3] for w in (stars, end))
    assert abs(after / before - 1).max() < 1e-11
    assert np.median(np.linalg.norm(end - stars, axis=1)) > 0.1  # they did move
    # negative control: the bound is seen to be broken if the step is too long
    assert abs(energy(integrate(stars, FIELD, 100.0, step=3.0)) / energy(stars) - 1).max() > 1e-5


def test_error_falls_with_the_fourth_power_of_the_step(stars):
    few = stars[:50]  # one block: all have the same step
    exact = integrate(few, FIELD, 5.0, step=0.01)
    steps = np.array([0.4, 0.2, 0.1])
    n_steps = np.ceil(5.0 * FIELD.rate(few).max() / steps)
    error = [np.sqrt(((integrate(few, FIELD, 5.0, step=step) - exact) ** 2).mean()) for step in steps]
    order = -np.diff(np.log(error)) / np.diff(np.log(n_steps))
    np.testing.assert_allclose(order, 4, atol=0.3)


def test_time_runs_backwards(stars):
    there = integrate(stars[:100], FIELD, 20.0)
    # the same steps back: the rate at the end differs, so choose one that makes them of the same number
    back = orbits._follow(orbits._follow(torch.from_numpy(there), FIELD, 0.01, 2000), FIELD, -0.01, 2000).numpy()
    np.testing.assert_allclose(back, there, atol=1e-10)
    np.testing.assert_allclose(integrate(there, FIELD, -20.0), stars[:100], atol=1e-5)


def test_stars_do_not_depend_on_their_order(stars):
    """Within a block all stars share a step, so only the error of the scheme may change with the company."""
    order, together = np.random.default_rng(1).permutation(300), integrate(stars[:300], FIELD, 5.0)
    np.testing.assert_array_equal(integrate(stars[:300][order], FIELD, 5.0), together[order])
    np.testing.assert_allclose(integrate(stars[:1], FIELD, 5.0), together[:1], atol=1e-5)


def test_units_are_scalings(stars):
    field, speed = da.MiyamotoNagai(mass=3.0, a=2.0, b=0.2, G=0.7), np.sqrt(0.7 * 3.0 / 2.0)
    unit = np.repeat([2.0, speed], 3)
    scaled = integrate(stars[:50] * unit, field, 10.0 * 2.0 / speed)
    np.testing.assert_allclose(scaled, integrate(stars[:50], FIELD, 10.0) * unit, atol=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_galpy_agrees(stars):
    from galpy.orbit import Orbit
    from galpy.potential import MiyamotoNagaiPotential

    big_r, phi, z, v_r, v_phi, v_z = da.cylindrical(stars[:10])
    orbit = Orbit(np.stack([big_r, v_r, v_phi, z, v_z, phi], axis=1))
    potential = MiyamotoNagaiPotential(amp=1.0, a=1.0, b=0.1)
    orbit.integrate(np.array([0, 20.0]), potential, method="dop853_c", progressbar=False)
    theirs = np.stack([getattr(orbit, name)(20.0) for name in ("x", "y", "z", "vx", "vy", "vz")], axis=1)
    np.testing.assert_allclose(integrate(stars[:10], FIELD, 20.0, step=0.05), theirs, atol=1e-8)


def test_interrupted_disc_goes_on_to_the_same_stars(tmp_path, monkeypatch):
    """What `Disc.sample` hands to `integrate`; that a killed process leaves a whole file is seen in test_files."""
    disc, path, follow, calls = da.Disc(time=3.0), tmp_path / "disc", orbits._follow, []
    unbroken = disc.sample(100, rng=1)
    monkeypatch.setattr(orbits, "_BLOCK", 30)
    monkeypatch.setattr(orbits, "_CHECKPOINT_SECONDS", 0.0)
    whole = disc.sample(100, rng=1)

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return follow(*arguments)

    monkeypatch.setattr(orbits, "_follow", interrupted)
    with pytest.raises(KeyboardInterrupt):
        disc.sample(100, rng=1, checkpoint=path)
    assert read_tensors(path)[1]["done"] == 2
    w = disc.initial(100, rng=1)
    for other in ({"time": 3.1}, {"step": 0.2}, {"field": da.MiyamotoNagai(b=0.2)}, {"w": w + 1e-12}):
        arguments = {"w": w, "field": FIELD, "time": 3.0, "step": 0.3, **other}
        with pytest.raises(ValueError, match="is of another integration; use another file or delete it"):
            integrate(**arguments, checkpoint=path)
    np.testing.assert_array_equal(disc.sample(100, rng=1, checkpoint=path), whole)
    assert len(calls) == 3 + 2  # of four blocks, and not from the beginning
    np.testing.assert_allclose(whole, unbroken, atol=1e-5)  # smaller blocks, other steps
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("arguments", "message"), [
    ({"w": np.zeros((3, 5))}, r"w must have shape \(n, 6\), n >= 1; got \(3, 5\)"),
    ({"w": [[np.nan, 0, 0, 0, 1, 0]]}, "w has 1 non-finite row, first at index 0"),
    ({"step": 0.0}, "step must be a positive finite number; got 0"),
    ({"step": np.nan}, "step must be a positive finite number; got nan"),
    ({"time": np.inf}, "time must be finite; got inf"),
    ({"time": np.nan}, "time must be finite; got nan"),
    ({"w": [[1.0, 0, 0, 0, 1, 0], [1.0, 0, 0, 0, 0, 1e200]]}, "the field's rate is not finite for star 1"),
])
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        integrate(**{"w": [[1.0, 0, 0, 0, 1, 0]], "field": FIELD, "time": 1.0, **arguments})


def test_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not orbits")
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        integrate([[1.0, 0, 0, 0, 1, 0]], FIELD, 1.0, checkpoint=path)
    assert path.read_text() == "not orbits"
