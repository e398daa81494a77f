"""Execute one notebook of the book with the parameters of a profile.

    python notebooks/execute.py notebooks/NAME.ipynb _build/executed/book/NAME.ipynb --profile book

The notebook runs in its own folder, in a fresh kernel. The result appears under its final name only once every cell
has run; it remembers the profile, the machine, the versions and the commit it was made with, and the checksums of the
models and tables it read, for the pages that say how the book was made.

This file is also an extension of IPython: loaded into that kernel, it writes down which files are opened for reading.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
OPENED = "DFACCEL_OPENED"  # names the file in which the kernel lists what it opens
PACKAGES = ("numpy", "scipy", "torch", "nflows", "emcee", "galpy", "matplotlib")


def parameters_of(profile: str, stem: str) -> dict:
    """Return the parameters of notebook `stem` in `profile`, from ``parameters.yml``."""
    profiles = yaml.safe_load((ROOT / "notebooks" / "parameters.yml").read_text(encoding="utf-8"))
    if profile not in profiles:
        sys.exit(f"unknown profile {profile!r}; notebooks/parameters.yml has {', '.join(profiles)}")
    return (profiles[profile] or {}).get(stem) or {}


def processor() -> str:
    """Name the processor, and how many of its cores this process may use."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name"))
        name = next((line.split(":", 1)[1].strip() for line in lines), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def commit() -> str:
    """Name the commit of the working tree; empty outside a clone."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


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


def data_read(opened: list[str], root: Path = ROOT) -> dict[str, str]:
    """Return the SHA-256 checksums of the models and tables among the files opened, by their place in the repository.

    Of a model, Python opens only the JSON file; its arrays beside it, whose header says the same, stand for both.
    """
    found = {}
    for path in map(Path, opened):
        if path.name == "ensemble.json":
            path = path.with_suffix(".safetensors")
        data = path.is_relative_to(root / "models") or path.is_relative_to(root / "notebooks")
        if data and path.is_file() and path.suffix not in {".py", ".pyc", ".ipynb"}:
            found[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return dict(sorted(found.items()))


def cell_number(notebook: dict, index: int) -> int:
    """Translate papermill's cell index into the number, from 1, of the cell in the committed notebook."""
    tags = [set(cell["metadata"].get("tags", ())) for cell in notebook["cells"]]
    cells = [tag for tag in tags if "papermill-error-cell-tag" not in tag]  # which papermill adds to point at the error
    return index + 1 - sum("injected-parameters" in tag for tag in cells[:index])


def execute(source: Path, target: Path, profile: str) -> None:
    """Execute `source` with the parameters of `profile` and write it to `target` once all of it has run."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    os.environ.pop("MPLBACKEND", None)  # the kernel's own: inline
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    target.parent.mkdir(parents=True, exist_ok=True)
    failed = target.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
        running = Path(folder) / source.name
        opened = Path(folder) / "opened.txt"
        os.environ[OPENED] = str(opened)
        here = str(Path(__file__).parent)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), here]))
        try:
            notebook = papermill.execute_notebook(
                source,
                running,
                parameters=parameters_of(profile, source.stem),
                cwd=source.parent,
                kernel_name="python3",
                progress_bar=False,
                extra_arguments=["--log-level=CRITICAL", "--IPKernelApp.extra_extensions=execute"],
            )
        except PapermillExecutionError as error:
            number = cell_number(nbformat.read(running, as_version=4), error.cell_index)
            running.replace(failed)
            message = f"{source.name}: cell {number} failed: {error.ename}: {error.evalue}"
            sys.exit(f"{message}\n(all of it: {os.path.relpath(failed)})")
        except Exception as error:  # noqa: BLE001 - a dead kernel, a full disk: whatever it was, name the notebook
            sys.exit(f"{source.name}: could not be executed: {type(error).__name__}: {error}")
        notebook.metadata["papermill"] |= {"input_path": source.name, "output_path": target.name}  # no folder of ours
        notebook.metadata["dfaccel"] = {
            "profile": profile,
            "processor": processor(),
            "threads": os.environ.get("OMP_NUM_THREADS", ""),
            "commit": commit(),
            "reads": data_read(opened.read_text(encoding="utf-8").splitlines()),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        }
        nbformat.write(notebook, running)
        running.replace(target)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Execute one notebook with the parameters of a profile.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--profile", required=True)
    options = parser.parse_args()
    execute(options.source.resolve(), options.target.resolve(), options.profile)


if __name__ == "__main__":
    main()
