"""Where ensembles are kept: a folder with a safetensors file and the same header as JSON, to be read by people."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from .coordinates import map_from_dict
from .ensemble import FlowEnsemble
from .files import FORMAT, read_tensors, tensor_bytes, write_files
from .flows import FlowSpec, Layout

_TENSORS, _READABLE, _PRIOR = "ensemble.safetensors", "ensemble.json", "prior."


def save(model: FlowEnsemble, path: str | Path) -> None:
    """Write an ensemble to a folder, as ``ensemble.safetensors`` and, to be read by people, ``ensemble.json``.

    Parameters
    ----------
    model : FlowEnsemble
        Ensemble.
    path : str or Path
        Folder, made if need be.

    Raises
    ------
    OSError
        If the disk is full or cannot be written; a model that stood there is still there.

    Examples
    --------
    >>> import dfaccel as da
    >>> save(model, "models/mine")  # doctest: +SKIP
    """
    path = Path(path)
    tensors, header = _described(model)
    readable = json.dumps({"format": FORMAT, **header}, indent=1, sort_keys=True) + "\n"
    write_files({path / _TENSORS: tensor_bytes(tensors, header), path / _READABLE: readable.encode()})


def load(path: str | Path) -> FlowEnsemble:
    """Read an ensemble that `save` wrote.

    Parameters
    ----------
    path : str or Path
        Folder.

    Raises
    ------
    FileNotFoundError
        If there is no model there.
    ValueError
        If a file is truncated, altered, written by a newer version or not an ensemble.

    Examples
    --------
    >>> import dfaccel as da
    >>> load("models/hernquist_iso").n_flows  # doctest: +SKIP
    4
    """
    path = Path(path)
    tensors, header = read_tensors(path / _TENSORS)
    if "kind" in header:
        raise ValueError(f"{path / _TENSORS} holds a {header['kind']}, not an ensemble; use what dfaccel.save wrote")
    readable = path / _READABLE
    if readable.exists():
        try:
            same = json.dumps(json.loads(readable.read_text()), sort_keys=True) == json.dumps(header, sort_keys=True)
        except ValueError:  # (texts are compared because a NaN in a training history does not equal itself)
            same = False
        if not same:
            raise ValueError(f"{readable} was altered: it differs from the header of {_TENSORS}; "
                             "delete it to go by that header")
    return _restored(tensors, header)


def _described(model: FlowEnsemble) -> tuple[dict[str, Tensor], dict]:
    """Return the arrays of an ensemble and of its prior, and the rest as plain values."""
    header = {
        "spec": model.spec.to_dict(),
        "coordinates": model.coordinates.to_dict(),
        "n_flows": model.n_flows,
        "metadata": model.metadata,
    }
    tensors = model.layout.unpack(model.theta.detach())
    tensors |= {"mean": model.mean, "std": model.std, "reference": model.reference}
    if model.prior is not None:
        arrays, header["prior"] = _described(model.prior)
        tensors |= {f"{_PRIOR}{name}": t for name, t in arrays.items()}
    return tensors, header


def _restored(tensors: dict[str, Tensor], header: dict) -> FlowEnsemble:
    """Return the ensemble that `_described` took apart."""
    prior = None
    if "prior" in header:
        prior = {name.removeprefix(_PRIOR): t for name, t in tensors.items() if name.startswith(_PRIOR)}
        tensors = {name: t for name, t in tensors.items() if not name.startswith(_PRIOR)}
        prior = _restored(prior, header["prior"])
    spec, coordinates = FlowSpec(**header["spec"]), map_from_dict(header["coordinates"])
    mean, std, reference = (tensors.pop(name) for name in ("mean", "std", "reference"))
    theta = Layout(spec, coordinates.features).pack(tensors)
    return FlowEnsemble(spec, coordinates, mean, std, theta, reference, header["metadata"], prior)
