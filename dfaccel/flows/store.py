"""Ensembles on disk: a folder with a safetensors file, and its header as JSON for people to read."""

import json
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from dfaccel._files import FORMAT, read_tensors, tensor_bytes, write_files
from dfaccel.coordinates import map_from_dict
from dfaccel.flows.ensemble import FlowEnsemble
from dfaccel.flows.maf import FlowSpec

_TENSORS, _READABLE, _PRIOR = "ensemble.safetensors", "ensemble.json", "prior."


def save(model: FlowEnsemble, path: str | Path) -> None:
    """Write an ensemble to a folder, as ``ensemble.safetensors`` and, for people to read, ``ensemble.json``.

    Parameters
    ----------
    model, path : FlowEnsemble, str or Path
        Ensemble, and the folder, which is made if it does not exist.

    Raises
    ------
    OSError
        If the disk is full or cannot be written. A model that was in the folder is then still there.

    Examples
    --------
    >>> import dfaccel as da
    >>> model = da.fit(da.Plummer().sample(1000, rng=1), spec=da.FlowSpec(1, 4), config=da.TrainConfig(1, 500), rng=0)
    >>> save(model, "models/mine")
    >>> da.load("models/mine").n_flows
    1
    """
    path = Path(path).expanduser()
    tensors, header = _described(model)
    readable = _readable({"format": FORMAT, **header}).encode()
    write_files({path / _TENSORS: tensor_bytes(tensors, header), path / _READABLE: readable})


def load(path: str | Path) -> FlowEnsemble:
    """Read an ensemble that `save` wrote, now or in an earlier version.

    Parameters
    ----------
    path : str or Path
        Folder.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no model; if a file is truncated, altered, written by a newer version or not an ensemble.

    Examples
    --------
    >>> load("models/hernquist_iso").n_flows  # doctest: +SKIP
    4
    """
    path = Path(path).expanduser()
    tensors, header = read_tensors(path / _TENSORS)
    if "kind" in header:
        raise ValueError(f"{path / _TENSORS} holds a {header['kind']}, not an ensemble; use what dfaccel.save wrote")
    readable = path / _READABLE
    if readable.exists() and readable.read_text() != _readable(header):
        raise ValueError(f"{readable} was altered: it differs from the header of {_TENSORS}; "
                         "delete it to go by that header")
    return _restored(tensors, header)


def _readable(header: dict) -> str:
    """Return the content of the file for people."""
    return json.dumps(header, indent=1, sort_keys=True) + "\n"


def _described(model: FlowEnsemble) -> tuple[dict[str, Tensor], dict]:
    """Return the arrays of an ensemble and of its prior, and the rest as plain values."""
    header = {"spec": asdict(model.spec), "coordinates": model.coordinates.to_dict(), "n_flows": model.n_flows,
              "metadata": model.metadata}
    tensors = model.layout.unpack(model.theta.detach())
    tensors |= {"mean": model.mean, "std": model.std, "reference": model.reference}
    if model.prior is not None:
        arrays, header["prior"] = _described(model.prior)
        tensors |= {f"{_PRIOR}{name}": t for name, t in arrays.items()}
    return tensors, header


def _restored(tensors: dict[str, Tensor], header: dict) -> FlowEnsemble:
    """Return the ensemble that `_described` took apart."""
    below = {name.removeprefix(_PRIOR): tensors.pop(name) for name in list(tensors) if name.startswith(_PRIOR)}
    prior = _restored(below, header["prior"]) if below else None
    spec = FlowSpec(**{k: v for k, v in header["spec"].items() if k != "position_map"})  # now part of the coordinates
    coordinates = map_from_dict(header["coordinates"])
    mean, std, reference = (tensors.pop(name) for name in ("mean", "std", "reference"))
    theta = spec.layout(coordinates.features).pack(tensors)
    return FlowEnsemble(spec, coordinates, mean, std, theta, reference, header["metadata"], prior)
