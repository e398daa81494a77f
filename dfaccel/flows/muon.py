"""Muon for the matrices between hidden layers, Adam for all other parameters, member by member.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) levels the singular values of a matrix's momentum, so that
all directions advance equally fast. PyTorch's own takes one matrix at a time; here those of K flows are one batch.
"""

import torch
from torch import Tensor

from dfaccel.flows.maf import Layout

_MOMENTUM = 0.95


def orthogonalized(matrices: Tensor) -> Tensor:
    """Return square matrices (..., h, h) with the same singular vectors and with singular values near one."""
    a, b, c = 3.4445, -4.7750, 2.0315  # five Newton-Schulz steps of Jordan et al. bring singular values to 0.7-1.2
    x = (matrices / (torch.linalg.matrix_norm(matrices)[..., None, None] + 1e-12)).flatten(0, -3)
    for _ in range(5):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.view_as(matrices)


class Optimizer:
    """Steps for ``theta`` (K, n_parameters), with peak rates of Adam and of Muon; if Muon's is 0, Adam trains all."""

    def __init__(self, layout: Layout, theta: Tensor, learning_rate: float, matrix_rate: float) -> None:
        self.theta, self.learning_rate, self.matrix_rate = theta, learning_rate, matrix_rate
        self.adam = torch.optim.Adam([theta], lr=learning_rate, fused=theta.device.type in ("cpu", "cuda"))
        self.hidden = layout.hidden.to(theta.device)
        self.mask = layout.mask.to(theta.device)[self.hidden]
        self.momentum = torch.zeros_like(theta[:, self.hidden]) if matrix_rate else None

    def step(self, share: float) -> None:
        """Take a step at ``share`` (0 to 1) of the peak rates."""
        self.adam.param_groups[0]["lr"] = share * self.learning_rate
        if self.momentum is None:
            self.adam.step()
            return
        places = self.hidden.flatten().expand(len(self.theta), -1)
        gradient = self.theta.grad.gather(1, places).unflatten(1, self.hidden.shape)
        self.theta.grad.scatter_(1, places, 0.0)
        self.adam.step()
        self.momentum.lerp_(gradient, 1 - _MOMENTUM)
        ahead = gradient.lerp(self.momentum, _MOMENTUM)  # Nesterov's
        step = -share * self.matrix_rate * self.mask * orthogonalized(ahead)
        with torch.no_grad():
            self.theta.scatter_add_(1, places, step.flatten(1))  # far faster than to index the columns

    def state(self) -> dict[str, Tensor]:
        """Return what `restore` needs."""
        moments = {f"adam.{name}": t for name, t in self.adam.state.get(self.theta, {}).items()}
        return moments if self.momentum is None else {**moments, "momentum": self.momentum}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Continue from the tensors of `state`, which may be among others."""
        moments = {n.removeprefix("adam."): t for n, t in tensors.items() if n.startswith("adam.")}
        if moments:
            self.adam.load_state_dict({"state": {0: moments}, "param_groups": self.adam.state_dict()["param_groups"]})
        if self.momentum is not None:
            self.momentum.copy_(tensors["momentum"])
