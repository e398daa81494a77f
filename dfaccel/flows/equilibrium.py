r"""Equilibrium as a term of the loss: flows that obey the Boltzmann equation in some field of force.

A flow with density p(y) has the distribution function :math:`\ln f = \ln p(y) + \ln J`. At each star the equation
:math:`v\cdot\nabla_x \ln f + a\cdot\nabla_v \ln f = 0` reads, with :math:`a = -\nabla\phi` and summed over p and y,

.. math:: \nabla_y \ln p \cdot u + c - (\nabla_y \ln p \cdot N + n) \cdot \partial\phi / \partial y_x = 0

Here :math:`u, c` are the rates of :math:`y, \ln J` along a straight line, :math:`N, n` their changes with a push along
the gradient of each position coordinate :math:`y_x`. They depend on the stars alone. The potential is a sum of
Gaussians in :math:`y_x`, whose amplitudes solve the equations of many stars at all places by least squares. If stars
are missing by place, :math:`\ln S` of their completeness is a second sum, and the equation has the term
:math:`-u_x\cdot\partial \ln S / \partial y_x` beside.
"""

import torch
from torch import Tensor

from dfaccel import _check as check
from dfaccel.coordinates import CoordinateMap

_SPACING = {1: 0.5, 2: 0.5, 3: 1.0}  # of the Gaussians, and width, in standard deviations of 1-3 position coordinates
_REACH = 2.5  # the same: stars farther out, where a sum of Gaussians is no potential, do not count
_MEMORY = 0.9  # share of the normal equations of earlier steps that is kept
_CHUNK = 500_000  # stars whose rates are found at a time
_RIDGE = 1e-6  # relative to the mean diagonal of the normal equations


class Equilibrium:
    """The Boltzmann equation of stars ``w`` (n, 6), with a weight in the loss, in standardized coordinates.

    ``rates`` (n, rows), float32, holds u, c, N and n of each star, in the time in which stars at its place move by
    about a standard deviation; ``flips`` (elements, rows) are the signs of the rows under the coordinates' symmetries;
    ``selection`` tells whether the completeness is unknown.
    """

    def __init__(
        self, weight: float, coordinates: CoordinateMap, mean: Tensor, std: Tensor, w: Tensor, selection: bool = False
    ) -> None:
        self.selection, self.weight, p = selection, check.positive(weight, "equilibrium"), coordinates.n_positions
        parts = [_rates(coordinates, part, std) for part in w.split(_CHUNK)]
        y, straight, pushed = (torch.cat(part) for part in zip(*parts, strict=True))
        y = (y - mean) / std
        q = y[:, :p]
        smooth = torch.cat([torch.ones_like(q[:, :1]), q, q**2], 1)
        moved = straight[:, :-1]
        if p > 2:  # as seen by who moves with the stars; under a symmetry there is little mean motion
            moved = moved - smooth @ torch.linalg.lstsq(smooth, moved).solution
        frequency = smooth @ torch.linalg.lstsq(smooth, moved.norm(dim=1, keepdim=True).log()).solution
        inside = (q.abs() <= _REACH).all(1, keepdim=True)
        self.rates = torch.where(inside, torch.cat([straight, pushed.flatten(1)], 1) / frequency.exp(), 0.0).float()
        signs = torch.nn.functional.pad(coordinates.flips, (0, 1), value=1.0)
        self.flips = torch.cat([signs, (signs[:, :, None] * signs[:, None, :p]).flatten(1)], 1)
        self.spacing = _SPACING[p]
        line = torch.arange(-_REACH - 1, _REACH + 1.1, self.spacing)
        self.centres = torch.cartesian_prod(*[line] * p).reshape(-1, p)
        self.n_unknowns = len(self.centres) * (1 + selection)

    def slopes(self, where: Tensor) -> Tensor:
        """Return the gradient (..., p, J) of each Gaussian at standardized position coordinates (..., p)."""
        away = (where[..., None, :] - self.centres.to(where)) / self.spacing
        return -(away * torch.exp(-0.5 * away.square().sum(-1, keepdim=True))).mT

    def terms(self, score: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
        """Return the equation without force (K, n), and what each slope of the potential takes from it (K, p, n)."""
        score = torch.nn.functional.pad(score, (0, 0, 0, 1), value=1.0)  # that of ln J
        straight, pushed = rates.split([d := score.shape[1], rates.shape[1] - d], 1)
        return (score * straight).sum(1), (score[:, :, None] * pushed.unflatten(1, (d, -1))).sum(1)

    def misfit(self, score: Tensor, y: Tensor, rates: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean squared misfit (K,) of stars, and the normal equations (K, J, J + 1) with theirs added."""
        streaming, push = self.terms(score, rates)
        p = push.shape[1]
        pushes = torch.stack([push, rates[:, :p]][: 1 + self.selection], 1)  # what phi and ln S take from the equation
        with torch.no_grad():
            slopes = self.slopes(y[:, :p].mT)
            matrix = torch.einsum("kcpn,knpj->kncj", pushes, slopes).flatten(2)
            new = matrix.mT @ torch.cat([matrix, streaming[..., None]], 2) / y.shape[2]
            normal = torch.where((normal == 0).all(), new, _MEMORY * normal + (1 - _MEMORY) * new)
            square, right = normal.double().split([self.n_unknowns, 1], 2)
            diagonal = square.diagonal(dim1=1, dim2=2)
            diagonal += _RIDGE * diagonal.mean(1, keepdim=True)
            found = torch.linalg.solve(square, right).float().unflatten(1, (-1, len(self.centres)))
            fields = torch.einsum("knpj,kcjo->kcpn", slopes, found)
        return (streaming - (pushes * fields).sum((1, 2))).square().mean(1), normal


def _rates(coordinates: CoordinateMap, w: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, and the rates of y / std and ln J of stars, along a line (n, d + 1) and by a push (n, d + 1, p)."""
    w = w.clone().requires_grad_()
    y, log_jacobian = coordinates.forward(w)
    columns = (*(y / std).T, log_jacobian)
    gradient = torch.stack([torch.autograd.grad(c.sum(), w, retain_graph=True)[0] for c in columns], 1)
    straight = (gradient[..., :3] @ w[:, 3:, None])[..., 0].detach()
    return y.detach(), straight, gradient[..., 3:] @ gradient[:, : coordinates.n_positions, :3].mT
