"""Execute one notebook of the book with the parameters of a profile.

    python notebooks/execute.py notebooks/NAME.ipynb _build/executed/book/NAME.ipynb --profile book

The notebook runs in its own folder, in a fresh kernel. The result appears under its final name only once every cell
has run. It remembers how it was made, and the checksums of the models and tables it read; NAME.d tells make of them.

This file is also an extension of IPython: loaded into that kernel, it writes down which files are opened for reading.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
OPENED = "DFACCEL_OPENED"  # names the file in which the kernel lists what it opens
PACKAGES = ("numpy", "scipy", "torch", "nflows", "emcee", "galpy", "matplotlib")
OPTIONS = ["--log-level=CRITICAL", "--IPKernelApp.extra_extensions=execute"]  # of the kernel


def parameters_of(profile: str, stem: str) -> dict:
    """Return the parameters of notebook `stem` in `profile`, from ``parameters.yml``."""
    profiles = yaml.safe_load((ROOT / "notebooks" / "parameters.yml").read_text(encoding="utf-8"))
    if profile not in profiles:
        sys.exit(f"unknown profile {profile!r}; notebooks/parameters.yml has {', '.join(profiles)}")
    return (profiles[profile] or {}).get(stem) or {}


def machine() -> dict[str, str]:
    """Name the processor, how many of its cores and threads this process may use, and the commit (empty if none)."""
    cpuinfo = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    name = name[1] if name else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    command = "git describe --always --dirty --abbrev=10"  # through a shell, which does not mind where git is missing
    commit = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return {"processor": f"{name}, {cores} cores", "threads": os.environ.get("OMP_NUM_THREADS", ""), "commit": commit}


def load_ipython_extension(_shell: object) -> None:
    """List every file that this kernel opens for reading from now on, in the file that the environment names."""
    log = os.open(os.environ[OPENED], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    seen = set()

    def note(event: str, arguments: tuple) -> None:
        if event != "open" or isinstance(arguments[0], int) or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100 - a hook must be quick
        if path not in seen and "\n" not in path:
            seen.add(path)
            os.write(log, os.fsencode(path + "\n"))

    sys.addaudithook(note)


def data_read(opened: Iterable[str], root: Path = ROOT) -> dict[str, str]:
    """Return the SHA-256 checksums of the models and tables among the files opened, by their place in the repository.

    Of a model, Python opens only the JSON file; its arrays beside it, whose header says the same, stand for both.
    """
    found = {}
    for path in map(Path, opened):
        path = path.with_suffix(".safetensors") if path.name == "ensemble.json" else path
        data = path.is_relative_to(root / "models") or path.is_relative_to(root / "notebooks")
        if data and path.is_file() and path.suffix not in {".py", ".pyc", ".ipynb"}:
            found[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return dict(sorted(found.items()))


def rules(target: Path, reads: Iterable[str]) -> str:
    """Return what make is to know: `target` depends on what was read, and what is gone is no reason to stop."""
    files = [name for name in reads if not re.search(r"[\s$#:%\\]", name)]  # which make cannot name
    files += [name.replace(".safetensors", ".json") for name in files if name.endswith("/ensemble.safetensors")]
    return f"{os.path.relpath(target, ROOT)}: {' '.join(files)}\n" + "".join(f"{name}:\n" for name in files)


def execute(source: Path, target: Path, profile: str) -> None:
    """Execute `source` with the parameters of `profile` and write it to `target` once all of it has run."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    os.environ.pop("MPLBACKEND", None)  # the kernel's own: inline
    import nbformat
    import papermill

    target.parent.mkdir(parents=True, exist_ok=True)
    failed = target.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    given = parameters_of(profile, source.stem)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
        running, opened = Path(folder) / source.name, Path(folder) / "opened.txt"
        path = filter(None, [os.environ.get("PYTHONPATH"), str(Path(__file__).parent)])
        os.environ |= {OPENED: str(opened), "PYTHONPATH": os.pathsep.join(path)}
        how = {"cwd": source.parent, "kernel_name": "python3", "progress_bar": False, "extra_arguments": OPTIONS}
        try:
            own = {name: entry["default"] for name, entry in papermill.inspect_notebook(source).items()}
            notebook = papermill.execute_notebook(source, running, parameters=given, **how)
        except papermill.PapermillExecutionError as error:
            tags = [cell["metadata"].get("tags", ()) for cell in nbformat.read(running, as_version=4)["cells"]]
            cells = [tag for tag in tags if "papermill-error-cell-tag" not in tag][: error.cell_index + 1]
            number = sum("injected-parameters" not in tag for tag in cells)  # in the committed notebook
            running.replace(failed)
            message = f"{source.name}: cell {number} failed: {error.ename}: {error.evalue}"
            sys.exit(f"{message}\n(all of it: {os.path.relpath(failed)})")
        except Exception as error:  # noqa: BLE001 - a dead kernel, a full disk: whatever it was, name the notebook
            sys.exit(f"{source.name}: could not be executed: {type(error).__name__}: {error}")
        notebook.metadata["papermill"] |= {"input_path": source.name, "output_path": target.name}  # no folder of ours
        versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
        reads = data_read(opened.read_text(encoding="utf-8").splitlines())
        parameters = own | {name: repr(value) for name, value in given.items()}
        made = {"profile": profile, "parameters": parameters, "reads": reads, "versions": versions, **machine()}
        notebook.metadata["dfaccel"] = made
        nbformat.write(notebook, running)
        target.with_suffix(".d").write_text(rules(target, reads), encoding="utf-8")
        running.replace(target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Execute one notebook with the parameters of a profile.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--profile", required=True)
    arguments = parser.parse_args()
    execute(arguments.source.resolve(), arguments.target.resolve(), arguments.profile)
