"""Files: safetensors with a JSON header, checked on reading, written under a temporary name and renamed.

Nothing here reads pickle. A process killed at any moment leaves the old file or the new one, never a mixture.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

FORMAT = 1  # raised when a file of today could no longer be read


def checksum(*arrays: np.ndarray | Tensor | str) -> str:
    """Return the SHA-256 of arrays and texts, shapes and types included."""
    digest = hashlib.sha256()
    for array in arrays:
        if isinstance(array, str):
            digest.update(array.encode())
            continue
        array = np.ascontiguousarray(array.numpy() if isinstance(array, Tensor) else array)
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def difference(name: str, there: object, here: object) -> str:
    """Say how two values differ, naming only the first key that does: "its spec width is 8, here it is 9"."""
    if isinstance(there, dict) and isinstance(here, dict):
        key = next(k for k in {**here, **there} if there.get(k) != here.get(k))
        return difference(f"{name} {key}".strip(), there.get(key), here.get(key))
    return f"its {name} is {there!r}, here it is {here!r}"


def write_files(files: dict[Path, bytes]) -> None:
    """Write files whole or not at all: the first is the one that counts, the others describe it."""
    staged = []
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            staged.append(Path(name))
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            staged[-1].chmod(0o644)
        for path in list(files)[1:]:  # before the first is replaced: none may stand beside a file it does not describe
            path.unlink(missing_ok=True)
        for temporary, path in zip(staged, files, strict=True):
            temporary.replace(path)
    except BaseException:
        for temporary in staged:
            temporary.unlink(missing_ok=True)
        raise


def tensor_bytes(tensors: dict[str, Tensor], header: dict) -> bytes:
    """Return the content of a file of named tensors and a header of plain values."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in sorted(tensors.items())}
    text = json.dumps({"format": FORMAT, **header}, sort_keys=True)
    proof = checksum(text, *(item for pair in tensors.items() for item in pair))
    return to_bytes(tensors, metadata={"dfaccel": f"{proof}\n{text}"})  # one entry: safetensors keeps no order of them


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict) -> None:
    """Write named tensors and a header of plain values to one safetensors file, atomically."""
    write_files({path: tensor_bytes(tensors, header)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Return the tensors and the header of a file of `write_tensors`, or raise if it is truncated, altered or newer."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error}); make or download it again") from None
    if "dfaccel" not in metadata:
        raise ValueError(f"{path} was not written by dfaccel: it has no dfaccel header")
    proof, _, text = metadata["dfaccel"].partition("\n")
    if proof != checksum(text, *(item for pair in tensors.items() for item in pair)):
        raise ValueError(f"{path} was altered after it was written: its checksum differs; make or download it again")
    header = json.loads(text)
    if header["format"] > FORMAT:
        raise ValueError(f"{path} has format {header['format']}, this dfaccel reads up to {FORMAT}; upgrade dfaccel")
    return tensors, header
