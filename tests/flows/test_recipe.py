"""The settings that follow the number of stars."""

import numpy as np
import pytest

import dfaccel as da

NUMBERS = np.geomspace(1000, 1e6, 60)


def test_many_stars_are_learned_as_the_shipped_models_were(root):
    for n in (200_000, 5_000_000):
        for name in ("king", "nfw"):
            model = da.load(root / "models" / name)
            assert da.recipe(n) == {"spec": model.spec, "equilibrium": 0.0,
                                    "config": da.TrainConfig(**model.metadata["config"])}


@pytest.mark.parametrize("coordinates", ["spherical", "axisymmetric"])
def test_fewer_stars_are_bound_more_to_equilibrium_in_smaller_flows_for_more_epochs(coordinates):
    found = [da.recipe(n, coordinates) for n in NUMBERS]
    sizes = np.array([[r["spec"].n_transforms, r["spec"].hidden_features, r["config"].batch_size] for r in found])
    falling = np.array([[r["equilibrium"], r["config"].n_epochs] for r in found])
    assert (np.diff(sizes, axis=0) >= 0).all()
    assert (np.diff(falling, axis=0) <= 0).all()
    assert 0.9 < falling[0, 0] <= 1
    assert (np.abs(np.diff(falling[:, 0])) < 0.15).all()  # no step
    assert all(r["config"].bootstrap and r["config"].batch_size < 0.95 * n for r, n in zip(found, NUMBERS, strict=True))


def test_without_a_symmetry_there_is_no_equilibrium():
    assert da.recipe(3000, "radial") == da.recipe(3000) | {"equilibrium": 0.0}


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (0.5, ValueError), (np.nan, ValueError), ("x", TypeError)])
def test_no_number_of_stars(n, error):
    with pytest.raises(error, match="n must be a"):
        da.recipe(n)
