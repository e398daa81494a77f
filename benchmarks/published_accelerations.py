"""How fast are accelerations from the published 30-flow ensemble, in our code and in the way it was used?

    python benchmarks/published_accelerations.py PATH/isotropic.safetensors

The peer follows An et al. (2021) and their public code: one point a call, its f at the first velocity for reference,
the ensemble's f as a mean over nflows flows, its gradients by two backward passes that keep the graph for second
derivatives, normal equations inverted; velocities up to 0.9 of the true escape speed, no component of them small.
Ours takes the same points and velocities through `dfaccel.accelerations`. Both run in turn in this process, on the same
threads.
The number to expect: at least 2.5 times faster, the same values to 1e-3 when the same equations are weighted alike.
"""

import time

import numpy as np
import torch
from hernquistflows import load_hernquistflows
from table import parser

import dfaccel as da

POSITION_UNIT, VELOCITY_UNIT = 10.0, 2**0.5  # of the published inputs: 10 a and sqrt(2 G M / a)


def nflows_members(model: da.FlowEnsemble) -> list[torch.nn.Module]:
    """Return the members as the nflows flows that they were trained as."""
    arrays = model.layout.unpack(model.theta)
    flows = [model.spec.build(6) for _ in range(model.n_flows)]
    for k, flow in enumerate(flows):
        flow.load_state_dict({name: a[k] for name, a in arrays.items()}, strict=False)
        flow.eval()
    return flows


def mean_density(flows: list[torch.nn.Module], x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return the ensemble's f (n,), one flow after another."""
    scaled = torch.cat([x / POSITION_UNIT, v / VELOCITY_UNIT], dim=-1).float()
    return sum(flow.log_prob(scaled).exp() / len(flows) for flow in flows)


def peer_acceleration(flows: list[torch.nn.Module], point: np.ndarray, velocities: np.ndarray) -> np.ndarray:
    """Return the acceleration at one point the published way."""
    x = torch.from_numpy(np.tile(point, (len(velocities), 1))).requires_grad_()
    v = torch.from_numpy(velocities).requires_grad_()
    reference = mean_density(flows, x[:1], v[:1]).item()
    f = mean_density(flows, x, v)
    (f_x,) = torch.autograd.grad(f, x, torch.ones_like(f), create_graph=True)
    (f_v,) = torch.autograd.grad(f, v, torch.ones_like(f), create_graph=True)
    f_x, f_v = (g.detach().numpy() / reference for g in (f_x, f_v))
    streaming = (velocities * f_x).sum(axis=1)
    return -np.linalg.inv(f_v.T @ f_v) @ (f_v.T @ streaming)


def published_velocities(n: int, escape_speed: float, rng: np.random.Generator) -> np.ndarray:
    """Return velocities (n, 3) at a point on the x-axis as published: uniform speeds, small components left out."""
    v = da.directions(20 * n, rng) * (0.9 * escape_speed * rng.random(20 * n))[:, None]
    kept = (np.abs(v) > 0.2 * escape_speed).all(axis=1) & (np.hypot(v[:, 1], v[:, 2]) > 0.1 * escape_speed)
    return v[kept][:n]


def main() -> None:
    """Time both and print the ratio."""
    command = parser(__doc__)
    command.add_argument("weights", help="folder of .pth files or safetensors of the published ensemble")
    command.add_argument("--points", type=int, default=30)
    command.add_argument("--velocities", type=int, default=1000)
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--seed", type=int, default=0)
    arguments = command.parse_args()
    rng = np.random.default_rng(arguments.seed)
    model = load_hernquistflows(arguments.weights)
    flows = nflows_members(model)
    points = np.zeros((arguments.points, 3))
    points[:, 0] = np.linspace(0.4, 20, arguments.points)
    truth = da.Hernquist()
    escape_speeds = truth.escape_speed(points[:, 0])
    velocities = np.stack([published_velocities(arguments.velocities, v, rng) for v in escape_speeds])

    seconds = {"peer": [], "ours": []}
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        peer = np.array([peer_acceleration(flows, x, v) for x, v in zip(points, velocities, strict=True)])
        seconds["peer"].append(time.perf_counter() - start)
        start = time.perf_counter()
        ours = da.accelerations(model, points, velocities=velocities)
        seconds["ours"].append(time.perf_counter() - start)

    # the same equations as the peer's, from our scores: gradients of f instead of ln f, and plain least squares
    w = np.concatenate([np.repeat(points, arguments.velocities, axis=0), velocities.reshape(-1, 3)], axis=1)
    weighted = (np.exp(model.log_df(w))[:, None] * model.score(w)).reshape(*velocities.shape[:2], 6)
    weighted /= np.abs(weighted).max(axis=(1, 2), keepdims=True)
    alike = np.array([
        np.linalg.lstsq(g[:, 3:], -(v * g[:, :3]).sum(axis=1), rcond=None)[0]
        for g, v in zip(weighted, velocities, strict=True)
    ])
    exact = truth.acceleration(points)
    difference = np.linalg.norm(alike - peer, axis=1) / np.linalg.norm(peer, axis=1)
    ratios = np.array(seconds["peer"]) / np.array(seconds["ours"])
    rate = arguments.points * arguments.velocities * model.n_flows / 1000
    size = f"{model.n_flows} flows, {arguments.points} x {arguments.velocities} velocities"
    print(f"threads {torch.get_num_threads()}, {size}")
    for name, times in seconds.items():
        print(f"{name}: {np.median(times):.1f} s, {rate / np.median(times):.0f} k gradients/s and flow")
    print(f"ratio peer / ours: median {np.median(ratios):.2f}, rounds {np.round(ratios, 2)}")
    print(f"largest relative difference, equations weighted alike: {difference.max():.1e}")
    for name, value in {"peer": peer, "ours": ours.value}.items():
        error = np.abs(value[:, 0] / exact[:, 0] - 1)
        print(f"x-component on the x-axis, {name}: median error {np.median(error):.2%}, largest {error.max():.2%}")


if __name__ == "__main__":
    main()
