"""What an executed notebook remembers, and what make learns from it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess

import execute
import pytest


def test_only_models_and_tables_count_as_data(tmp_path):
    opened = []
    for name in ("models/a/ensemble.json", "models/a/ensemble.safetensors", "notebooks/results/t.csv", "dfaccel/x.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        opened.append(str(path))
    opened.remove(str(tmp_path / "models/a/ensemble.safetensors"))  # compiled code opens it, unseen
    opened += [str(tmp_path / "notebooks" / "gone.csv"), "/etc/hostname", str(tmp_path / "notebooks")]
    names = ("models/a/ensemble.safetensors", "notebooks/results/t.csv")
    assert execute.data_read(opened, tmp_path) == {n: hashlib.sha256(n.encode()).hexdigest() for n in names}


@pytest.mark.slow
def test_an_executed_notebook_remembers_what_it_read_and_no_folder(root, tmp_path, monkeypatch):
    for name in ("PYTHONPATH", execute.OPENED):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    table = min((root / "notebooks" / "results").glob("*.csv"))
    source = f"from pathlib import Path\n_ = Path({str(table)!r}).read_text()\nPath('written.csv').write_text('')"
    given = {"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [], "source": source}
    own = {**given, "id": "b", "metadata": {"tags": ["parameters"]}, "source": "n_stars = 1_000  # stars\nname = 'a'"}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    content = {"cells": [own, given], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "a.ipynb").write_text(json.dumps(content))
    monkeypatch.setattr(execute, "parameters_of", lambda *_: {"n_stars": 5})
    execute.execute(tmp_path / "a.ipynb", tmp_path / "out" / "b.ipynb", "quick")
    metadata = json.loads((tmp_path / "out" / "b.ipynb").read_text())["metadata"]
    name = table.relative_to(root).as_posix()
    assert metadata["dfaccel"]["reads"] == {name: hashlib.sha256(table.read_bytes()).hexdigest()}
    assert metadata["dfaccel"]["parameters"] == {"n_stars": "5", "name": "'a'"}
    assert str(tmp_path) not in json.dumps(metadata)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.d", "b.ipynb"]
    assert (tmp_path / "out" / "b.d").read_text() == execute.rules(tmp_path / "out" / "b.ipynb", [name])


def test_a_changed_model_or_a_lost_one_makes_a_notebook_run_again(tmp_path):
    reads = ["models/a/ensemble.safetensors", "notebooks/results/t.csv", "notebooks/results/not for make.csv"]
    rules = execute.rules(execute.ROOT / "done", reads)
    (tmp_path / "Makefile").write_text(f"done:\n\ttouch done\n{rules}")
    files = [tmp_path / "models/a/ensemble.json", *(tmp_path / name for name in reads[:2])]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def make():
        command = ["make", "-C", str(tmp_path), "--no-print-directory"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]

    assert make() == "touch done"
    assert "up to date" in make()
    for change in [path.touch for path in files] + [path.unlink for path in files]:
        os.utime(tmp_path / "done", (0, 0)) if change.__name__ == "touch" else None
        change()
        assert make() == "touch done"
