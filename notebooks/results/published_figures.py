"""Make the tables of published curves that chapter 6 draws: ``published_fig1.csv`` ... ``published_fig4.csv``.

    python notebooks/results/published_figures.py PATH_TO_NPZ_FOLDER

The folder holds ``fig1_data.npz`` ... ``fig4_data.npz`` of https://github.com/aneeshnaik/HernquistFlows (folder
``figures``, commit 7f81f9b, MIT licence), the data behind the figures of An, Naik, Evans & Burrage (2021). Those files
have no axes but in Fig. 3; the axes are stated here, and a table is written only if the exact distribution function
on them is the file's own to rounding. The tables are coarser than the files, to be small.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import dfaccel as da

HERE = Path(__file__).parent
HEADER = """{what}
Published data: An, Naik, Evans & Burrage 2021 (MNRAS 506, 5721), {figure}.
Source: figures/{name}_data.npz of https://github.com/aneeshnaik/HernquistFlows, commit 7f81f9b; licence MIT.
Remade by: python notebooks/results/published_figures.py PATH_TO_NPZ_FOLDER
Units: G = M = a = 1. {layout}"""
TOLERANCE = 1e-8  # largest deviation of our exact values from the file's, relative to the largest
N_STARS = 1_000_000


def centres(low: float, high: float, n: int) -> np.ndarray:
    """Return the centres (n,) of n equal cells between two numbers."""
    return low + (high - low) * (np.arange(n) + 0.5) / n


def phase_space(x: np.ndarray, v_x: np.ndarray, v_z: np.ndarray | float = 0.0) -> np.ndarray:
    """Return the points (..., 6) on the x-axis with the given velocities."""
    zero = np.zeros_like(x)
    return np.stack([x, zero, zero, v_x, zero, v_z + zero], axis=-1)


def require_equal(name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Stop if the exact values on the stated axes are not the file's."""
    deviation = np.abs(ours - theirs).max() / np.abs(theirs).max()
    if not deviation < TOLERANCE:
        raise SystemExit(f"{name}: on the stated axes the exact values are off by {deviation:.1e}; nothing written")


def write(name: str, columns: list[np.ndarray], fmt: str, **text: str) -> None:
    """Write arrays of equal width, one below the other, with a header that says what they are."""
    header = HEADER.format(name=name, **text)
    np.savetxt(HERE / f"published_{name}.csv", np.vstack(columns), fmt=fmt, delimiter=",", header=header)


def figure_1(data: dict[str, np.ndarray], galaxy: da.Hernquist) -> None:
    """Stars in cells of radius and speed: the published sample and the published model."""
    n, r_max, v_max = 128, 5.5, 2**0.5
    r, v = np.meshgrid(centres(0, r_max, n), centres(0, v_max, n))
    per_cell = 16 * np.pi**2 * (r_max / n) * (v_max / n)
    exact = per_cell * r**2 * v**2 * np.exp(galaxy.log_df(phase_space(r, v)))
    reference = per_cell * (v_max / 4) ** 2 * np.exp(galaxy.log_df(np.array([1, 0, 0, v_max / 4, 0, 0])))
    require_equal("fig1", exact / reference, data["f_exact"])
    stars = [N_STARS * reference * data[key] for key in ("f_data", "f_model")]
    coarse = [cells.reshape(n // 2, 2, n // 2, 2).sum(axis=(1, 3)) for cells in stars]
    write(
        "fig1", coarse, "%.4g", what="Number of 1,000,000 stars in cells of radius and speed", figure="Fig. 1",
        layout="64 rows of data, then 64 of the model (v along the radius), speed 0 ... sqrt(2); "
        "64 columns, radius 0 ... 5.5; 2 x 2 cells of the file added.",
    )  # fmt: skip


def figure_2(data: dict[str, np.ndarray], galaxy: da.Hernquist) -> None:
    """Gradients of the published model's f, each divided by the model's own at the reference point."""
    x, v = np.linspace(-3, 3, 128), np.linspace(-1.1, 1.1, 128) * 2**0.5
    grid = phase_space(*np.meshgrid(x, v, indexing="ij")).reshape(-1, 6)
    w = torch.from_numpy(np.vstack([grid, [1, 0, 0, 0.5**1.5, 0, 0]])).requires_grad_()
    f = torch.exp(galaxy.log_df(w))
    (gradient,) = torch.autograd.grad(f.sum(), w)
    gradient = torch.nan_to_num(gradient).numpy()
    for key, column in (("dfdx0", 0), ("dfdvx0", 3)):
        require_equal("fig2", (gradient[:-1, column] / gradient[-1, column]).reshape(128, 128), data[key])
    write(
        "fig2", [data[key][::2, ::2] for key in ("dfdx1", "dfdvx1")], "%.4g", figure="Fig. 2",
        what="Gradients of f at (x, 0, 0), (v_x, 0, 0), each divided by its value at x = 1, v_x = 1/sqrt(8)",
        layout="64 rows of df/dx, then 64 of df/dv_x: every second of 128 x from -3 to 3; "
        "64 columns: every second of 128 v_x / sqrt(2) from -1.1 to 1.1.",
    )  # fmt: skip


def figure_3(data: dict[str, np.ndarray], galaxy: da.Hernquist) -> None:
    """Accelerations along the x-axis from the four published ensembles."""
    x = data["x"]
    exact = -galaxy.acceleration(np.stack([x, 0 * x, 0 * x], axis=1))[:, 0]
    require_equal("fig3", exact, data["y0"])
    write(
        "fig3", [np.stack([x, *(data[f"y{k}"] for k in range(1, 5))], axis=1)], "%.6g", figure="Fig. 3",
        what="dPhi/dx at (x, 0, 0)",
        layout="Columns: x, isotropic, isotropic with 1 % noise, with 10 % noise, anisotropic.",
    )  # fmt: skip


def figure_4(data: dict[str, np.ndarray], galaxy: da.Hernquist) -> None:
    """Velocities at one scale radius in the anisotropic galaxy: the published sample and the published model."""
    n = 64
    radial, tangential = np.meshgrid(centres(-1.1, 1.1, n), centres(0, 1.1, n), indexing="ij")
    exact = tangential * np.exp(galaxy.log_df(phase_space(np.ones((n, n)), radial, tangential)))
    require_equal("fig4", exact / exact[n // 2, n // 2], data["f_exact"])
    write(
        "fig4", [data["f_data"], data["f_model"]], "%.4g", figure="Fig. 4",
        what="v_t f(v_r, v_t) at r = 1 (data: 0.9 ... 1.1), beta = 1/2, divided by the exact value in cell [32, 32]",
        layout="64 rows of data, then 64 of the model, v_r -1.1 ... 1.1; 64 columns, v_t 0 ... 1.1.",
    )  # fmt: skip


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with fig1_data.npz ... fig4_data.npz")
    folder = parser.parse_args().folder
    for k, figure in enumerate((figure_1, figure_2, figure_3, figure_4), start=1):
        with np.load(folder / f"fig{k}_data.npz") as data:
            figure(dict(data), da.Hernquist(beta=0.5 if k == 4 else 0.0))


if __name__ == "__main__":
    main()
