"""How many samples a second do flows train on, and how many gradients a second do they give: ours, nflows and zuko?

    python benchmarks/throughput.py --output throughput.csv

Every side holds masked autoregressive flows of the same size, 8 transforms of 64 hidden features and GELU in six
dimensions, and runs in turn in this process. *Training* is forward, backward and a step of `torch.optim.Adam` on
batches of 1,000, in samples per second, those of all K stacked flows counted; "Muon" is ours with the optimizer of
`dfaccel.fit` instead. *Gradients* are those of log f with respect to its argument, parameters frozen, in points times
flows per second, the same number a call for everyone. Ours are evaluated in chunks, a chunk a thread, as `dfaccel`
does; the peers' in chunks of the size that suits them, with all threads at each.
zuko's flow has the same matrix products and as many parameters: residual blocks too, but one activation fewer in each,
and another scale (the exponential of a bounded number, where nflows and ours have a softplus).
The fraction of the machine counts the floating-point operations of the matrix products alone, masked weights included,
against what `torch.mm` reaches in the same rounds on (64 x 64) times (64 x batch) and on 2048 x 2048.
The numbers to expect: ours faster than nflows in all, and than zuko in training; in gradients within a tenth of zuko.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import zuko
from table import parser, write_table

import dfaccel as da
from dfaccel.flows.ensemble import _CHUNK as CHUNK
from dfaccel.flows.ensemble import in_threads
from dfaccel.flows.muon import Optimizer

SPEC, FEATURES = da.FlowSpec(), 6
HIDDEN, LARGE, RATE = SPEC.hidden_features, 2048, 1e-5  # a small rate: the flows stay what they are
PEERS_CHUNK = 4096  # of 1024 to 8192 the fastest, or as fast as any, for both
PRODUCTS = SPEC.n_transforms * (3 * FEATURES * HIDDEN + 2 * SPEC.n_blocks * HIDDEN**2)  # multiply-adds, forward
FLOPS = {"training": 3 * 2 * PRODUCTS, "gradients": 2 * 2 * PRODUCTS}  # backward to weights and inputs; to inputs

Case = tuple[Callable[[], object], float]  # what to time, and how much of it one call is


def ours(k: int, batch: int, points: int) -> dict[tuple[str, str], Case]:
    """Return training steps and a gradient evaluation of K stacked flows."""
    layout = SPEC.layout(FEATURES)
    y, chunks = torch.randn(k, FEATURES, batch), torch.randn(k, FEATURES, points // k).split(CHUNK // k, dim=2)

    def training(theta: torch.Tensor, step: Callable[[], object]) -> Callable[[], object]:
        def train() -> None:
            theta.grad = None
            (-layout.log_prob(layout.networks(theta), y).mean(1)).sum().backward()
            step()

        return train

    one, other = (layout.initial(list(range(k))).requires_grad_() for _ in range(2))
    adam, muon = torch.optim.Adam([one], lr=RATE), Optimizer(layout, other, RATE, RATE)
    frozen = layout.networks(layout.initial(list(range(k))))

    def gradient(chunk: torch.Tensor) -> torch.Tensor:
        w = chunk.detach().requires_grad_()
        return torch.autograd.grad(layout.log_prob(frozen, w).sum(), w)[0]

    return {
        ("training", f"ours, K = {k}"): (training(one, adam.step), k * batch),
        ("training", f"ours, K = {k}, Muon"): (training(other, lambda: muon.step(1.0)), k * batch),
        ("gradients", f"ours, K = {k}"): (lambda: in_threads(gradient, chunks), points),
    }


def peer(name: str, make: Callable, log_prob: Callable, batch: int, points: int) -> dict[tuple[str, str], Case]:
    """Return the same of one flow that is a torch module; raise RuntimeError if it is of another size than ours."""
    flow, frozen = make(), make().requires_grad_(False)
    n = sum(p.numel() for p in flow.parameters())
    if n != SPEC.layout(FEATURES).n_parameters:
        raise RuntimeError(f"the flow of {name} has {n} parameters, ours {SPEC.layout(FEATURES).n_parameters}")
    adam = torch.optim.Adam(flow.parameters(), lr=RATE)
    y, chunks = torch.randn(batch, FEATURES), torch.randn(points, FEATURES).split(PEERS_CHUNK)

    def train() -> None:
        adam.zero_grad()
        (-log_prob(flow, y).mean()).backward()
        adam.step()

    def gradients() -> None:
        for chunk in chunks:
            w = chunk.detach().requires_grad_()
            torch.autograd.grad(log_prob(frozen, w).sum(), w)

    return {("training", name): (train, batch), ("gradients", name): (gradients, points)}


def zuko_flow() -> torch.nn.Module:
    """Return zuko's flow of the same size."""
    widths = [HIDDEN] * SPEC.n_blocks  # a residual block each
    options = {"hidden_features": widths, "activation": torch.nn.GELU, "residual": True}
    return zuko.flows.MAF(FEATURES, transforms=SPEC.n_transforms, **options)


def products(batch: int) -> dict[tuple[str, str], Case]:
    """Return matrix products alone, in floating-point operations."""
    cases = {}
    for name, (m, n) in {"small": (HIDDEN, batch), "large": (LARGE, LARGE)}.items():
        left, right, out = torch.randn(m, m), torch.randn(m, n), torch.empty(m, n)
        cases["products", name] = (lambda a=left, b=right, c=out: torch.mm(a, b, out=c), 2 * m * m * n)
    return cases


def rate(run: Callable[[], object], amount: float, seconds: float) -> float:
    """Return how much is done per second, calling for that many seconds after one call to warm up."""
    run()
    calls, start = 0, time.perf_counter()
    while not calls or time.perf_counter() - start < seconds:
        run()
        calls += 1
    return calls * amount / (time.perf_counter() - start)


def main() -> None:
    """Time all in turn, print one line each, and write the table if asked to."""
    command = parser(__doc__)
    command.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    command.add_argument("--rounds", type=int, default=7)
    command.add_argument("--seconds", type=float, default=1.0, help="of each in each round")
    command.add_argument("--batch", type=int, default=1000, help="samples a training step and flow")
    command.add_argument("--points", type=int, default=16384, help="points times flows a gradient call")
    command.add_argument("--output", type=Path, help="CSV file")
    arguments = command.parse_args()
    sizes = arguments.batch, arguments.points
    torch.manual_seed(0)
    cases = products(arguments.batch) | ours(1, *sizes) | ours(4, *sizes)
    cases |= peer("nflows", lambda: SPEC.build(FEATURES), lambda flow, y: flow.log_prob(y), *sizes)
    cases |= peer("zuko", zuko_flow, lambda flow, y: flow().log_prob(y), *sizes)

    rows = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        rates = {case: [] for case in cases}
        for _ in range(arguments.rounds):
            for case, (run, amount) in cases.items():
                rates[case].append(rate(run, amount, arguments.seconds))
        rates = {case: np.array(values) for case, values in rates.items()}
        small, large = (rates["products", name] for name in ("small", "large"))
        print(f"{threads} threads: (64 x 64) (64 x {arguments.batch}) at {np.median(small) / 1e9:.1f} GFLOP/s, "
              f"{LARGE} x {LARGE} at {np.median(large) / 1e9:.1f} GFLOP/s")
        for (kind, name), values in rates.items():
            if kind == "products":
                continue
            flops = FLOPS[kind] * values
            rows.append({
                "threads": threads, "kind": kind, "flow": name,
                "rate": np.median(values), "least": values.min(), "most": values.max(),
                "to_nflows": np.median(values / rates[kind, "nflows"]),
                "to_zuko": np.median(values / rates[kind, "zuko"]),
                "of_small": np.median(flops / small), "of_large": np.median(flops / large),
            })
            print("{kind}, {flow}: {k:.1f} k/s ({a:.1f}-{b:.1f}), {to_nflows:.2f} x nflows, {to_zuko:.2f} x zuko; "
                  "{of_small:.0%} of the small products' rate, {of_large:.0%} of the large one's"
                  .format(k=rows[-1]["rate"] / 1e3, a=values.min() / 1e3, b=values.max() / 1e3, **rows[-1]))
    if arguments.output:
        write_table(arguments.output, rows)


if __name__ == "__main__":
    main()
