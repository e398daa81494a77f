"""Input checks: good input passes unchanged, bad input is named with what was expected and what came."""

import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from dfaccel import _check as check


@pytest.fixture
def stars():
    """Stars that nothing is wrong with."""
    return np.random.default_rng(0).normal(size=(2000, 6))


@pytest.mark.parametrize("value", [1, 2.5, np.float32(3), "4", np.int64(7), 1e-300])
def test_positive_numbers_pass(value):
    assert check.positive(value, "mass") == float(value)
    assert type(check.positive(value, "mass")) is float


@pytest.mark.parametrize("value", [0, -1, -0.0, np.nan, np.inf, -np.inf])
def test_other_numbers_do_not(value):
    with pytest.raises(ValueError, match=r"^mass must be a positive finite number; got "):
        check.positive(value, "mass")


def test_infinity_may_be_allowed():
    assert check.positive(np.inf, "r_max", infinite=True) == np.inf
    with pytest.raises(ValueError, match="r_max must be a positive number; got nan"):
        check.positive(np.nan, "r_max", infinite=True)


@pytest.mark.parametrize("value", [None, "heavy", [1, 2], {}])
def test_what_is_no_number_does_not(value):
    with pytest.raises(TypeError, match="^mass must be a positive number; got "):
        check.positive(value, "mass")


def test_numbers_of_a_frozen_dataclass_are_settled():
    @dataclass(frozen=True)
    class Sphere:
        mass: float
        lag: float = 0

        def __post_init__(self):
            check.settle(self, "mass")
            check.settle(self, "lag", zero=True)

    assert repr(Sphere(np.float32(2))) == repr(Sphere(2.0, 0.0))
    assert type(Sphere(2).lag) is float
    for values, name in (((0,), "mass"), ((np.inf,), "mass"), ((1, -1), "lag")):
        with pytest.raises(ValueError, match=f"^{name} must be a positive finite number; got "):
            Sphere(*values)


@pytest.mark.parametrize("value", [1, np.int32(5), np.uint8(3), 10**12])
def test_counts_pass(value):
    assert check.count(value, "n") == int(value)
    assert type(check.count(value, "n")) is int


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-5, ValueError), (1e6, TypeError), (2.0, TypeError), ("3", TypeError), (None, TypeError),
     (True, TypeError), (np.True_, TypeError), (np.float64(3), TypeError)],
)
def test_what_is_no_count_does_not(value, error):
    with pytest.raises(error, match="^n must be a positive integer; got "):
        check.count(value, "n")


@pytest.mark.parametrize("kind", [np.asarray, list, torch.from_numpy, np.float32, lambda w: w.astype(int)])
def test_phase_space_comes_back_as_float64(stars, kind):
    w = check.phase_space(kind(stars))
    assert w.dtype == np.float64
    assert w.shape == stars.shape
    np.testing.assert_allclose(w, np.asarray(kind(stars), dtype=float))


@pytest.mark.parametrize("shape", [(6,), (1000, 5), (10, 7), (2, 3, 6), (), (0, 5)])
def test_phase_space_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"^stars must have shape \(n, 6\); got \("):
        check.phase_space(np.zeros(shape), "stars")


@pytest.mark.parametrize(("rows", "text"), [([17, 20, 99], "3 non-finite rows, first at index 17"),
                                            ([0], "1 non-finite row, first at index 0")])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite(stars, rows, text, value):
    stars[rows, 4] = value
    with pytest.raises(ValueError, match=f"^w has {text}$"):
        check.phase_space(stars)
    with pytest.raises(ValueError, match=f"^points has {text}$"):
        check.points(stars[:, 3:])


@pytest.mark.parametrize("shape", [(3,), (4, 2), (0, 3), (2, 3, 3)])
def test_points_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"^points must have shape \(m, 3\), m >= 1; got \("):
        check.points(np.zeros(shape))


def test_good_stars_pass_without_a_word(stars):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check.training_stars(stars)
        check.training_stars(stars * 1e-30)
        check.training_stars(stars * [1e12, 1e12, 1e12, 1, 1, 1])
        check.training_stars(np.vstack([stars[:1980], stars[:20]]))  # one per cent exactly


@pytest.mark.parametrize("share", [0.011, 0.1, 0.5])
def test_repeated_stars(stars, share):
    """Repeats are counted exactly, wherever they stand; stars that share five of six coordinates are no repeats."""
    n = round(share * len(stars))
    repeated = np.random.default_rng(1).permutation(np.vstack([stars[: len(stars) - n], stars[:n]]))
    with pytest.warns(UserWarning, match=f"^{share:.1%} of the stars repeat another one"):
        check.training_stars(repeated)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        similar = stars.copy()
        similar[:, :5] = similar[:10, :5].repeat(200, axis=0)
        check.training_stars(similar)
        check.training_stars(np.abs(stars)[:, np.random.default_rng(2).permutation(6)])


def test_permuted_columns_are_other_stars(stars):
    """x and vx exchanged make another star, though their plain sum is the same."""
    exchanged = stars.copy()
    exchanged[:, [0, 3]] = exchanged[:, [3, 0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check.training_stars(np.vstack([stars, exchanged]))


@pytest.mark.parametrize(("column", "name"), list(enumerate(check.COLUMNS)))
def test_constant_column(stars, column, name):
    stars[:, column] = 3.7
    with pytest.raises(ValueError, match=f"^stars has a constant column: {name}; every one must vary$"):
        check.training_stars(stars)


def test_too_few_stars(stars):
    check.training_stars(stars[:1000])
    with pytest.raises(ValueError, match="^stars must have at least 1000 rows to learn from; got 999$"):
        check.training_stars(stars[:999])


def test_singular_coordinates():
    y = np.zeros((5, 3))
    check.finite_coordinates(y, "spherical")
    y[3, 2] = -np.inf
    with pytest.raises(ValueError, match="^stars has 1 row where spherical coordinates .*index 3; remove"):
        check.finite_coordinates(y, "spherical")
