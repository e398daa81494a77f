"""The published ensembles of An et al. (2021): the weights of HernquistFlows, read as a `dfaccel.FlowEnsemble`.

Their files are pickles. They go through PyTorch's restricted reader, which rebuilds tensors and runs nothing else, and
what it rebuilds is checked against the flow that nflows makes of the same size.
"""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import torch
from safetensors.torch import load as from_safetensors
from torch import Tensor

import dfaccel as da
from dfaccel import _check as check
from dfaccel.coordinates import Linear

METADATA = {
    "n_stars": 1_000_000,  # that each published ensemble was trained on
    "source": "https://github.com/aneeshnaik/HernquistFlows",
    "citation": "An, Naik, Evans and Burrage (2021), MNRAS 506, 5721",
}
N_REFERENCE = 5000
FIRST = "_transform._transforms.1.autoregressive_net."


def load_hernquistflows(
    path: str | Path, *, position_unit: float = 10.0, velocity_unit: float = math.sqrt(2)
) -> da.FlowEnsemble:
    r"""Read the flows of An et al. (2021), which learned the density of :math:`x / 10 a` and :math:`v / \sqrt{2GM/a}`.

    ``path`` is a folder of the public code such as ``nflow_models/hq_iso_orig``, of which every ``N_best.pth`` is read,
    one such file, or one ``.safetensors`` file of the same arrays, each stacked over the members. The units are 10 a
    and sqrt(2 G M / a) in the units wanted; the defaults are for G = M = a = 1.

    The ``reference`` positions of the ensemble are drawn from itself, since the training stars were not published;
    ``metadata["r_max"]`` is the radius, 200 a, beyond which there were none.
    """
    position_unit = check.positive(position_unit, "position_unit")
    velocity_unit = check.positive(velocity_unit, "velocity_unit")
    spec, theta = None, []
    for file in best_files(Path(path).expanduser()):
        arrays = read(file)
        try:
            found = specification(arrays)
            if spec is None:
                spec, layout, buffers = found, found.layout(6), dict(found.build(6).named_buffers())
            elif found != spec:
                raise ValueError(f"its size is {size(found)}, that of the members before it {size(spec)}")
            require_buffers(arrays, buffers)
            theta.append(layout.pack({name: a for name, a in arrays.items() if name not in buffers}))
        except ValueError as error:
            raise ValueError(f"{file} does not fit HernquistFlows: {error}") from None
    std = torch.tensor([1.0] * 3 + [velocity_unit] * 3, dtype=torch.float64)
    model = da.FlowEnsemble(spec, Linear(position_unit), torch.zeros_like(std), std, torch.cat(theta), std, {})
    model.metadata = {**METADATA, "r_max": 20 * position_unit}  # their stars lay within 200 a
    model.reference = torch.from_numpy(model.sample(N_REFERENCE, rng=0)[:, :3] / position_unit).float()
    return model


def best_files(path: Path) -> list[Path]:
    """Return the files to read, in the order of their numbers."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_dir():
        return [path]
    files = {int(name[1]): file for file in path.iterdir() if (name := re.fullmatch(r"(\d+)_best\.pth", file.name))}
    if not files:
        raise ValueError(f"{path} holds no N_best.pth, N a number; give a folder of nflow_models or a file")
    return [files[number] for number in sorted(files)]


def read(file: Path) -> dict[str, Tensor]:
    """Return the arrays of a file, the members along their first axis; nothing in the file is run."""
    content, stacked = file.read_bytes(), file.suffix == ".safetensors"
    try:
        arrays = from_safetensors(content) if stacked else torch.load(io.BytesIO(content), "cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 -- a damaged or hostile file makes its reader raise whatever it likes
        raise ValueError(f"{file} is truncated or holds more than tensors ({type(error).__name__})") from None
    if not isinstance(arrays, dict) or not all(
        isinstance(a, Tensor) and a.layout is torch.strided and a.device.type == "cpu" for a in arrays.values()
    ):
        raise ValueError(f"{file} must hold named tensors and nothing else, the state dict of one flow")
    # what torch's DataParallel and compile put before each name
    arrays = {re.sub(r"^(module\.|_orig_mod\.)+", "", str(name)): a for name, a in arrays.items()}
    return arrays if stacked else {name: a.detach()[None] for name, a in arrays.items()}


def specification(arrays: dict[str, Tensor]) -> da.FlowSpec:
    """Infer the architecture from the names and shapes of the arrays (K, ...)."""
    first, square = (arrays.get(FIRST + name) for name in ("initial_layer.weight", "blocks.0.linear_layers.0.weight"))
    if first is None or square is None or first.shape[2:] != (6,) or square.shape[1:] != 2 * first.shape[1:2]:
        raise ValueError(f"{FIRST} must be a network of 6 features, the phase-space coordinates, with residual blocks")
    n_transforms = sum(n.endswith(".initial_layer.weight") for n in arrays)
    n_blocks = sum(n.startswith(FIRST + "blocks.") and n.endswith(".0.weight") for n in arrays)
    return da.FlowSpec(n_transforms, first.shape[1], n_blocks, activation="relu")


def size(spec: da.FlowSpec) -> str:
    """Say how large a flow is."""
    return f"{spec.n_transforms} transforms x {spec.hidden_features} features x {spec.n_blocks} blocks"


def require_buffers(arrays: dict[str, Tensor], buffers: dict[str, Tensor]) -> None:
    """Raise ValueError if a mask or a permutation is not the one of nflows, or a weight is not a finite float32."""
    sizes = {len(a) for a in arrays.values() if a.ndim}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError("its arrays must all be stacked over the same number of members")
    for name, a in arrays.items():
        if name in buffers and not (a.shape[1:] == buffers[name].shape and (a == buffers[name]).all()):
            raise ValueError(f"{name} is not the one that nflows makes")
        if name not in buffers and not (a.dtype is torch.float32 and a.isfinite().all()):
            raise ValueError(f"{name} must hold finite float32 values")
