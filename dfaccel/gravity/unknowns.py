r"""More unknowns in the same regression: the Boltzmann equation is linear in more than the acceleration.

With the observed f at one place and one velocity,

.. math:: v\cdot\nabla_x \ln f + a\cdot\nabla_v \ln f - s\cdot v - \Omega\,[(\hat z\times x)\cdot\nabla_x \ln f +
    (\hat z\times v)\cdot\nabla_v \ln f] + H\,[v\cdot\nabla_v \ln f - x\cdot\nabla_x \ln f] = 0,

where :math:`s = \nabla \ln S` is the gradient of the completeness S of the stars, :math:`\Omega` the speed at which the
whole pattern turns about z, and H the rate at which it expands. Each unknown is a few columns of numbers a place;
some are the same numbers at all places. `dfaccel.solve` solves for them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch

from dfaccel import _check as check
from dfaccel.coordinates import coordinate_map


class Unknown:
    """A few numbers at each place, ``columns`` of the regression, and what they have to do with those of other places.

    ``name`` is its key in a `Solution`; ``design(x)`` (m, p, J) gives the p numbers at places ``x`` from J parameters,
    and is None if the numbers of each place are free. Their unit is speed^``speeds`` / length.
    """

    name: ClassVar[str]
    speeds: ClassVar[int]
    shared: ClassVar[bool] = False  # whether it is one number, the same at all places

    def columns(self, x: np.ndarray, v: np.ndarray, score: np.ndarray) -> np.ndarray:
        """Return the columns (..., m, V, p) of places x (m, 1, 3), velocities (m, V, 3), scores (..., m, V, 6)."""
        raise NotImplementedError

    def design(self, x: np.ndarray) -> np.ndarray | None:
        """Return the numbers (m, p, J) at places x (m, 3) that J parameters of one make, or None."""
        return np.ones((len(x), 1, 1)) if self.shared else None


class Acceleration(Unknown):
    """The acceleration at each place, three numbers of its own."""

    name, speeds = "acceleration", 2

    def columns(self, x: np.ndarray, v: np.ndarray, score: np.ndarray) -> np.ndarray:
        """Return the gradient by velocity."""
        return score[..., 3:]


class Selection(Unknown):
    """The gradient of ln S, free at each place. S(x) is the share of the stars at x that the table holds.

    S must not depend on velocity and, beside a `PatternSpeed`, be round about z.
    """

    name, speeds = "selection", 0

    def columns(self, x: np.ndarray, v: np.ndarray, score: np.ndarray) -> np.ndarray:
        """Return minus the velocity."""
        return np.broadcast_to(-v, score[..., 3:].shape)


class SmoothSelection(Selection):
    """The same as one smooth function, for all places together.

    Parameters
    ----------
    points : ndarray, shape (m, 3)
        Where the function may bend: at some of these points, spread out over them.
    coordinates : str or callable
        What S depends on: "spherical", "axisymmetric" or another name of coordinates, or a function of positions
        (n, 3), a torch tensor, that returns some numbers (n, d), a tensor.
    n_bends : int
        Number of bells, which together with linear functions make up ln S.
    """

    def __init__(
        self, points: np.ndarray, coordinates: str | Callable[[torch.Tensor], torch.Tensor] = "radial",
        n_bends: int = 60,
    ) -> None:
        points = check.points(points)
        at_rest = np.concatenate([points, np.zeros_like(points)], axis=1)
        place = coordinates if callable(coordinates) else coordinate_map(at_rest, coordinates).position_coordinates
        y = place(torch.from_numpy(points))
        if not isinstance(y, torch.Tensor) or y.ndim != 2 or len(y) != len(points):
            raise ValueError("coordinates must return a tensor of shape (n, d) for positions (n, 3); got "
                             f"{type(y).__name__}, shape {tuple(np.shape(y))}, for {len(points)}")
        mean = y.mean(0)
        std = (y - mean).square().mean(0).sqrt()
        std = torch.where(std > 0, std, 1.0)
        y = (y - mean) / std
        chosen, widths = [0], [1.0]  # each next one as far as possible from those before, and as wide as that is far
        away = torch.cdist(y, y[:1])[:, 0]
        while len(chosen) < check.count(n_bends, "n_bends") and away.max() > 0:
            chosen.append(int(away.argmax()))
            widths.append(float(away.max()))
            away = torch.minimum(away, torch.cdist(y, y[chosen[-1:]])[:, 0])
        widths[0] = max(widths[1:], default=1.0)
        self._place, self._mean, self._std = place, mean, std
        self._bends, self._widths = y[chosen], y.new_tensor(widths)
        self.ridge = np.r_[np.zeros(y.shape[1]), np.ones(len(chosen))]

    def _functions(self, x: torch.Tensor) -> torch.Tensor:
        """Return the functions (m, J) whose sum ln S is: linear ones and bells."""
        y = (self._place(x) - self._mean) / self._std
        return torch.cat([y, torch.exp(-0.5 * torch.cdist(y, self._bends) ** 2 / self._widths**2)], dim=1)

    def log_share(self, x: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """Return ln S (..., m) at ``x`` (m, 3), up to a constant, from the parameters (..., J) of an estimate."""
        return np.asarray(parameters) @ self._functions(torch.from_numpy(check.points(x))).numpy().T

    @torch.inference_mode(False)
    @torch.enable_grad()
    def design(self, x: np.ndarray) -> np.ndarray:
        """Return the gradients (m, 3, J) of the functions."""
        x = torch.from_numpy(np.ascontiguousarray(x)).requires_grad_()
        values = self._functions(x)
        rows = [torch.autograd.grad(values[:, j].sum(), x, retain_graph=True)[0] for j in range(values.shape[1])]
        return torch.stack(rows, dim=-1).numpy()


class SmoothAcceleration(SmoothSelection):
    """The acceleration as minus the gradient of one smooth potential, for all places together.

    The arguments are those of `SmoothSelection`. The potential is linear functions and bells, without a centre or a
    symmetry: for a local volume, whose field `dfaccel.potential` does not describe.
    """

    name, speeds, columns = "acceleration", 2, Acceleration.columns

    def design(self, x: np.ndarray) -> np.ndarray:
        """Return minus the gradients (m, 3, J) of the functions."""
        return -super().design(x)

    def at(self, x: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """Return the acceleration (..., m, 3) at ``x`` (m, 3) from the parameters (..., J) of an estimate."""
        return (self.design(check.points(x)) @ np.asarray(parameters)[..., None, :, None])[..., 0]


class PatternSpeed(Unknown):
    """The angular speed about z, anticlockwise, of a pattern that is steady in the frame turning with it."""

    name, speeds, shared = "pattern_speed", 1, True

    def columns(self, x: np.ndarray, v: np.ndarray, score: np.ndarray) -> np.ndarray:
        """Return the rate at which a turning pattern changes ln f."""
        (x, y, _), (v_x, v_y, _) = np.moveaxis(x, -1, 0), np.moveaxis(v, -1, 0)
        return (y * score[..., 0] - x * score[..., 1] + v_y * score[..., 3] - v_x * score[..., 4])[..., None]


class Expansion(Unknown):
    """The rate H at which lengths grow as 1 + H t while velocities, apart from H x, shrink as much.

    An acceleration found beside it is that without the term H^2 x, which is second order in H.
    """

    name, speeds, shared = "expansion", 1, True

    def columns(self, x: np.ndarray, v: np.ndarray, score: np.ndarray) -> np.ndarray:
        """Return the rate at which an expanding system changes ln f."""
        return ((v * score[..., 3:]).sum(-1) - (x * score[..., :3]).sum(-1))[..., None]


@dataclass(frozen=True)
class Estimate:
    """One unknown: ``value`` and that of each member (n, ...), at the points (m, 3) or one for all places."""

    value: np.ndarray
    members: np.ndarray
    parameters: np.ndarray | None = None  # (1 + n, J) of a smooth function, the value's first

    @property
    def standard_error(self) -> np.ndarray:
        """Standard deviation over the members, not divided by the root of their number; NaN for a single one."""
        return self.members.std(axis=0, ddof=1) if len(self.members) > 1 else np.full_like(self.value, np.nan)

    def without(self, lost: np.ndarray) -> Self:
        """Return the estimate with NaN at the points that are ``lost`` (m,) bool, or if one number and all are."""
        lost = lost[:, None] if np.ndim(self.value) else lost.all()
        value, members = (np.where(lost, np.nan, part) for part in (self.value, self.members))
        return replace(self, value=value[()], members=members)


def estimates(names: list[str], designs: list[np.ndarray], theta: np.ndarray) -> dict[str, Estimate]:
    """Return the estimates of unknowns that all places share, from their designs and parameters (S, J)."""
    found = {}
    for name, design in zip(names, designs, strict=True):
        J = design.shape[2]
        numbers = theta[:, 0] if J == 1 else (design @ theta[:, None, :J, None])[..., 0]
        found[name], theta = Estimate(numbers[0], numbers[1:], theta[:, :J] if J > 1 else None), theta[:, J:]
    return found


def ridges(unknowns: list[Unknown], designs: list[np.ndarray]) -> np.ndarray:
    """Return by how much the squares of the parameters of unknowns are held down, (J,)."""
    parts = [getattr(u, "ridge", np.zeros(d.shape[2])) for u, d in zip(unknowns, designs, strict=True)]
    return np.concatenate([np.zeros(0), *parts])
