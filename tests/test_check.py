"""Input checks: good input passes unchanged, bad input is named with what was expected and what came."""

import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from astropy import units as u
from astropy.table import Table
from astropy.utils.masked import Masked

import dfaccel as da
from dfaccel import _check as check


@pytest.fixture
def stars():
    """Stars that nothing is wrong with."""
    return np.random.default_rng(0).normal(size=(2000, 6))


def test_good_numbers_pass():
    for value in (1, 2.5, np.float32(3), "4", np.int64(7), 1e-300):
        assert check.positive(value, "mass") == float(value)
        assert type(check.positive(value, "mass")) is float
    assert check.positive(np.inf, "r_max", infinite=True) == np.inf
    for value in (1, np.int32(5), np.uint8(3), 10**12):
        assert check.count(value, "n") == int(value)
        assert type(check.count(value, "n")) is int


@pytest.mark.parametrize(("number", "values", "error", "message"), [
    (check.positive, [0, -1, -0.0, np.nan, np.inf, -np.inf], ValueError, "m must be a positive finite number; got "),
    (check.positive, [None, "heavy", [1, 2], {}], TypeError, "m must be a positive number; got "),
    (partial(check.positive, infinite=True), [np.nan], ValueError, "m must be a positive number; got nan"),
    (check.count, [0, -5], ValueError, "m must be a positive integer; got "),
    (check.count, [1e6, np.float64(3), "3", None, True, np.True_], TypeError, "m must be a positive integer; got "),
])
def test_other_numbers_do_not(number, values, error, message):
    for value in values:
        with pytest.raises(error, match=f"^{message}"):
            number(value, "m")


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
    for values, name in (((0,), "mass"), ((np.inf,), "mass"), ((1, -1), "lag"), ((1, np.nan), "lag")):
        kind = "zero or a positive" if name == "lag" else "a positive"
        with pytest.raises(ValueError, match=f"^{name} must be {kind} finite number; got "):
            Sphere(*values)


@pytest.mark.parametrize("kind", [np.asarray, list, torch.from_numpy, np.float32, lambda w: w.astype(int)])
def test_phase_space_comes_back_as_float64(stars, kind):
    w = check.phase_space(kind(stars))
    assert (w.dtype, w.shape) == (np.float64, stars.shape)
    np.testing.assert_allclose(w, np.asarray(kind(stars), dtype=float))


@pytest.mark.parametrize(("use", "shapes", "message"), [
    (check.phase_space, [(6,), (1000, 5), (10, 7), (2, 3, 6), (), (0, 5)], r"w must have shape \(n, 6\), n >= 1; got"),
    (check.points, [(3,), (4, 2), (0, 3), (2, 3, 3)], r"points must have shape \(m, 3\), m >= 1; got \("),
])
def test_another_shape(use, shapes, message):
    for shape in shapes:
        with pytest.raises(ValueError, match=f"^{message}"):
            use(np.zeros(shape))


@pytest.mark.parametrize(("rows", "text"), [([17, 20, 99], "3 non-finite rows, first at index 17"),
                                            ([0], "1 non-finite row, first at index 0")])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite(stars, rows, text, value):
    stars[rows, 4] = value
    with pytest.raises(ValueError, match=f"^stars has {text}$"):
        check.phase_space(stars, "stars")
    with pytest.raises(ValueError, match=f"^points has {text}$"):
        check.points(stars[:, 3:])


def test_good_stars_pass_without_a_word(stars):
    similar, exchanged = stars.copy(), stars[:, [3, 1, 2, 0, 4, 5]]  # that share five of six; with x and vx exchanged
    similar[:, :5] = similar[:10, :5].repeat(200, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for good in (stars, stars[:1000], stars * 1e-30, stars * [1e12, 1e12, 1e12, 1, 1, 1], similar,
                     np.vstack([stars[:1980], stars[:20]]),  # one per cent exactly
                     np.vstack([stars, exchanged]),  # others, though their plain sum is the same
                     np.abs(stars)[:, np.random.default_rng(2).permutation(6)]):
            check.training_stars(good)


@pytest.mark.parametrize("share", [0.011, 0.1, 0.5])
def test_repeated_stars_are_counted_exactly_wherever_they_stand(stars, share):
    n = round(share * len(stars))
    repeated = np.random.default_rng(1).permutation(np.vstack([stars[: len(stars) - n], stars[:n]]))
    with pytest.warns(UserWarning, match=f"^{share:.1%} of the stars repeat another one"):
        check.training_stars(repeated)


def test_stars_that_teach_nothing(stars):
    with pytest.raises(ValueError, match="^stars must have at least 1000 rows to learn from; got 999$"):
        check.training_stars(stars[:999])
    for column, name in enumerate(check.COLUMNS):
        flat = np.where(np.arange(6) == column, 3.7, stars)
        with pytest.raises(ValueError, match=f"^stars has a constant column: {name}; every one must vary$"):
            check.training_stars(flat)


def masked_rows(array):
    mask = np.zeros(array.shape, bool)
    mask[[3, 5], -1] = True
    return mask


ODD = {  # what holds more than numbers, and what is said of it
    "masked": (lambda x: np.ma.array(x, mask=masked_rows(x)), "has masked values in 2 rows, first at index 3"),
    "masked by astropy": (lambda x: Masked(x, mask=masked_rows(x)), "has masked values in 2 rows, first at index 3"),
    "quantity": (lambda x: x * u.pc, "must be an array of plain numbers; got a Quantity in pc; divide by a unit"),
    "table": (Table, "must be an array of plain numbers; got a Table of columns; .* dfaccel.snapshot.take"),
    "structured": (lambda x: np.rec.fromarrays(x.T), "must be an array of plain numbers; got a recarray of columns"),
}
W = da.Plummer().sample(1500, rng=0)
ENTRANCES = {
    "fit": ("stars", W, lambda w: da.fit(w, rng=0)),
    "accelerations": ("points", W[:9, :3], lambda x: da.accelerations(da.Plummer(), x)),
    "velocities": ("velocities", W[:9, None, 3:] + np.eye(3),
                   lambda v: da.accelerations(da.Plummer(), W[:9, :3], velocities=v)),
    "solve": ("points", W[:9, :3], lambda x: da.solve(da.Plummer(), x, [da.unknowns.Acceleration()])),
    "jeans, stars": ("w", W, lambda w: da.jeans(w, W[:9, :3])),
    "jeans, points": ("points", W[:9, :3], lambda x: da.jeans(W, x)),
    "log_df": ("w", W, da.Hernquist().log_df), "score": ("w", W, da.Hernquist().score),
    "potential": ("x", W[:, :3], da.Plummer().potential), "field": ("x", W[:, :3], da.MiyamotoNagai().acceleration),
    "enclosed mass": ("r", W[:, :1], da.Plummer().enclosed_mass), "spherical": ("w", W, da.spherical),
    "add_noise": ("w", W, lambda w: da.add_noise(w, 0.1, 1)),
    "denoise": ("w", W, lambda w: da.denoise(w, 0.1, None, rng=1)),
    "knn_divergence": ("x", W, lambda w: da.knn_divergence(w, W)),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_what_holds_more_than_numbers_is_refused_at_every_entrance(entrance, odd):
    name, array, use = ENTRANCES[entrance]
    change, sentence = ODD[odd]
    if odd in ("table", "structured") and array.ndim != 2:
        return
    with pytest.raises((TypeError, ValueError), match=f"^{name} {sentence}"):
        use(change(array))


def test_a_mask_that_hides_nothing_is_no_mask():
    for whole in (np.ma.array(W), np.ma.array(W, mask=np.zeros(W.shape, bool)), Masked(W)):
        np.testing.assert_array_equal(check.phase_space(whole), W)
