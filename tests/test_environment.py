"""environment.yml, requirements.lock and the workflows say what pyproject.toml says."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONDA_NAMES = {"torch": "pytorch"}
FROM_PIP = {"axe-playwright-python", "playwright"}  # conda-forge's playwright is another package


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def requirements(project):
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(line) for group in groups for line in group]


@pytest.fixture(scope="module")
def pins(root):
    lines = (root / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return dict(re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", line).groups() for line in lines if not line.startswith("#"))


def test_environment_lists_what_the_project_requires(root, project, requirements):
    environment = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    python, *packages, pip = environment["dependencies"]
    assert re.fullmatch(r"python=\d+\.\d+", python)
    assert python.removeprefix("python=") in Requirement(f"python{project['requires-python']}").specifier
    wanted = {Requirement(f"{CONDA_NAMES.get(r.name, r.name)}{r.specifier}") for r in requirements}
    from_pip = {r for r in wanted if r.name in FROM_PIP}
    assert {Requirement(line) for line in packages} == wanted - from_pip | {Requirement("pip")}
    assert pip == {"pip": [*sorted(map(str, from_pip)), "-e ."]}


def test_lock_pins_every_dependency_at_a_version_that_is_allowed(requirements, pins):
    versions = {canonicalize_name(name): version for name, version in pins.items()}
    wrong = [str(r) for r in requirements if versions.get(canonicalize_name(r.name)) not in r.specifier]
    assert not wrong


def test_lock_holds_the_public_build_of_torch_and_not_the_package_itself(pins):
    assert "+" not in pins["torch"]
    assert "dfaccel" not in pins
    assert not [name for name in pins if name.startswith(("nvidia", "cuda", "triton"))]


def test_one_python_everywhere(root):
    """Binder, Codespaces and every job of CI run the same one."""
    (binder,) = re.findall(r"python=([\d.]+)", (root / "environment.yml").read_text(encoding="utf-8"))
    (codespaces,) = re.findall(r"python:([\d.]+)-", (root / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    files = sorted((root / ".github" / "workflows").glob("*.yml"))
    ci = {version for file in files for version in re.findall(r'python-version: "([\d.]+)"', file.read_text("utf-8"))}
    assert ci == {binder} == {codespaces}


def test_a_codespace_makes_the_environment_of_make(root):
    lines = (root / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8").splitlines()
    container = json.loads("\n".join(line for line in lines if not line.startswith("//")))
    assert container["onCreateCommand"] == "make .venv/.ready"
    settings = container["customizations"]["vscode"]["settings"]
    assert settings["python.defaultInterpreterPath"].endswith("/.venv/bin/python")


def test_workflows_may_do_only_what_they_need(root):
    for file in sorted((root / ".github" / "workflows").glob("*.yml")):
        workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {"contents": "read"}, file.name
        assert all("timeout-minutes" in job for job in workflow["jobs"].values()), file.name
        for job in workflow["jobs"].values():  # what installs packages of others may write nothing
            if any("make" in step.get("run", "") for step in job.get("steps", ())):
                assert "write" not in job.get("permissions", {}).values(), file.name


def test_actions_are_pinned_by_commit_with_their_version(root):
    uses = re.compile(r"uses: .*")
    pinned = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    files = sorted((root / ".github" / "workflows").glob("*.yml"))
    lines = [line for file in files for line in uses.findall(file.read_text(encoding="utf-8"))]
    assert lines
    assert all(pinned.fullmatch(line) for line in lines)
