"""Orbits: what must be conserved is, the scheme is of fourth order, galpy agrees, and a killed integration goes on."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import dfaccel as da
from dfaccel._files import read_tensors
from dfaccel.systems import orbits
from dfaccel.systems.orbits import integrate

FIELD = da.MiyamotoNagai()
BLOCK, N_BLOCKS, STEP = 64, 12, 1.0

KILLED = """
import sys, time
import numpy as np
import dfaccel as da
from dfaccel.systems import orbits

def follow(*arguments, follow=orbits._follow):
    time.sleep(0.2)  # so that there is time to be killed in
    return follow(*arguments)

orbits._follow, orbits._BLOCK, orbits._CHECKPOINT_SECONDS = follow, {block}, 0.0
orbits.integrate(np.load(sys.argv[1]), da.MiyamotoNagai(), 30.0, step={step}, checkpoint=sys.argv[2])
"""


@pytest.fixture(scope="module")
def stars():
    return da.Disc().initial(2000, rng=3)


def energy(w, field=FIELD):
    return (w[:, 3:] ** 2).sum(1) / 2 + field.potential(w[:, :3])


def spin(w):
    return w[:, 0] * w[:, 4] - w[:, 1] * w[:, 3]


# ---- physics ----


def test_energy_and_angular_momentum_are_conserved(stars):
    end = integrate(stars, FIELD, 100.0)
    assert abs(energy(end) / energy(stars) - 1).max() < 1e-5
    # the force is central in the plane at every kick: thousands of rounding errors of 1e-16 each, and no more
    assert abs(spin(end) / spin(stars) - 1).max() < 1e-11
    assert np.median(np.linalg.norm(end - stars, axis=1)) > 0.1  # they did move


def test_largest_error_is_seen_if_the_step_is_too_long(stars):
    """Negative control of the bound above."""
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
    dt = 20.0 / 2000
    w = torch.from_numpy(there)
    back = orbits._follow(orbits._follow(w, FIELD, dt, 2000), FIELD, -dt, 2000).numpy()
    np.testing.assert_allclose(back, there, atol=1e-10)
    np.testing.assert_allclose(integrate(there, FIELD, -20.0), stars[:100], atol=1e-5)


def test_stars_do_not_depend_on_their_order(stars):
    """Within a block all stars share a step, so only the error of the scheme may change with the company."""
    order = np.random.default_rng(1).permutation(300)
    np.testing.assert_array_equal(integrate(stars[:300][order], FIELD, 5.0), integrate(stars[:300], FIELD, 5.0)[order])
    np.testing.assert_allclose(integrate(stars[:1], FIELD, 5.0), integrate(stars[:300], FIELD, 5.0)[:1], atol=1e-5)


def test_units_are_scalings(stars):
    field = da.MiyamotoNagai(mass=3.0, a=2.0, b=0.2, G=0.7)
    speed = np.sqrt(0.7 * 3.0 / 2.0)
    unit = np.repeat([2.0, speed], 3)
    scaled = integrate(stars[:50] * unit, field, 10.0 * 2.0 / speed)
    np.testing.assert_allclose(scaled, integrate(stars[:50], FIELD, 10.0) * unit, atol=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_galpy_agrees(stars):
    from galpy.orbit import Orbit
    from galpy.potential import MiyamotoNagaiPotential

    w = stars[:10]
    x, y, z, v_x, v_y, v_z = w.T
    big_r = np.hypot(x, y)
    start = np.stack([big_r, (x * v_x + y * v_y) / big_r, (x * v_y - y * v_x) / big_r, z, v_z, np.arctan2(y, x)], 1)
    orbit = Orbit(start)
    orbit.integrate(np.array([0, 20.0]), MiyamotoNagaiPotential(amp=1.0, a=1.0, b=0.1), method="dop853_c",
                    progressbar=False)
    theirs = np.stack([getattr(orbit, name)(20.0) for name in ("x", "y", "z", "vx", "vy", "vz")], axis=1)
    np.testing.assert_allclose(integrate(w, FIELD, 20.0, step=0.05), theirs, atol=1e-8)


def test_circular_orbit_is_a_circle():
    speed = float(FIELD.circular_speed(1.5))
    end = integrate([[1.5, 0, 0, 0, speed, 0]], FIELD, 2 * np.pi * 1.5 / speed)
    np.testing.assert_allclose(end, [[1.5, 0, 0, 0, speed, 0]], atol=1e-5)


@pytest.mark.usefixtures("global_random_state")
def test_global_random_state_is_left_alone(stars):
    integrate(stars[:10], FIELD, 1.0)


# ---- resuming ----


@pytest.fixture(scope="module")
def killed(stars, tmp_path_factory):
    """A checkpoint left by a process that was killed between two blocks, or in the middle of one."""
    folder = tmp_path_factory.mktemp("killed")
    np.save(folder / "stars.npy", stars[: BLOCK * N_BLOCKS])
    checkpoint = folder / "orbits.safetensors"
    command = [sys.executable, "-c", KILLED.format(block=BLOCK, step=STEP), folder / "stars.npy", checkpoint]
    environment = os.environ | {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment) as process:
        deadline = time.monotonic() + 120
        while not checkpoint.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(np.random.default_rng().uniform(0, 1.0))  # at a moment nobody chose
        process.kill()
    assert process.returncode == -signal.SIGKILL
    return checkpoint


def test_killed_integration_goes_on_to_the_same_result(stars, killed, monkeypatch):
    w = stars[: BLOCK * N_BLOCKS]
    monkeypatch.setattr(orbits, "_BLOCK", BLOCK)
    unbroken = integrate(w, FIELD, 30.0, step=STEP)
    done = read_tensors(killed)[1]["done"]
    assert 0 < done < N_BLOCKS
    for other in ({"time": 31.0}, {"step": 0.9}, {"field": da.MiyamotoNagai(b=0.2)}, {"w": w + 1e-12}):
        arguments = {"w": w, "field": FIELD, "time": 30.0, "step": STEP, **other}
        with pytest.raises(ValueError, match="is of another integration; use another file or delete it"):
            integrate(**arguments, checkpoint=killed)
    followed = []
    follow = orbits._follow
    monkeypatch.setattr(orbits, "_follow", lambda *arguments: followed.append(1) or follow(*arguments))
    np.testing.assert_array_equal(integrate(w, FIELD, 30.0, step=STEP, checkpoint=killed), unbroken)
    assert len(followed) == N_BLOCKS - done  # and not from the beginning
    assert not killed.exists()


def test_interrupted_disc_is_the_same(tmp_path, monkeypatch):
    """Through `Disc.sample`, stopped by an exception."""
    disc = da.Disc(time=3.0)
    unbroken = disc.sample(100, rng=1)
    monkeypatch.setattr(orbits, "_BLOCK", 30)
    monkeypatch.setattr(orbits, "_CHECKPOINT_SECONDS", 0.0)
    whole = disc.sample(100, rng=1)
    follow, calls = orbits._follow, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return follow(*arguments)

    monkeypatch.setattr(orbits, "_follow", interrupted)
    with pytest.raises(KeyboardInterrupt):
        disc.sample(100, rng=1, checkpoint=tmp_path / "disc")
    np.testing.assert_array_equal(disc.sample(100, rng=1, checkpoint=tmp_path / "disc"), whole)
    np.testing.assert_allclose(whole, unbroken, atol=1e-5)  # smaller blocks, other steps
    assert not list(tmp_path.iterdir())


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"w": np.zeros((3, 5))}, r"w must have shape \(n, 6\); got \(3, 5\)"),
        ({"w": [[np.nan, 0, 0, 0, 1, 0]]}, "w has 1 non-finite row, first at index 0"),
        ({"step": 0.0}, "step must be a positive finite number; got 0"),
        ({"step": np.nan}, "step must be a positive finite number; got nan"),
        ({"time": np.inf}, "time must be finite; got inf"),
        ({"time": np.nan}, "time must be finite; got nan"),
        ({"w": [[1.0, 0, 0, 0, 1, 0], [1.0, 0, 0, 0, 0, 1e200]]}, "the field's rate is not finite for star 1"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        integrate(**{"w": [[1.0, 0, 0, 0, 1, 0]], "field": FIELD, "time": 1.0, **arguments})


def test_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("not orbits")
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        integrate([[1.0, 0, 0, 0, 1, 0]], FIELD, 1.0, checkpoint=tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "not orbits"
