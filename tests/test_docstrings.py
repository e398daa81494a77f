"""Every example in a docstring runs, and every public name says what it takes, what it raises and how it is used."""

import doctest
import importlib
import inspect
import pkgutil

import matplotlib as mpl
import pytest

import dfaccel

MODULES = ["dfaccel", *(name for _, name, _ in pkgutil.walk_packages(dfaccel.__path__, "dfaccel."))]
PUBLIC = {name: getattr(dfaccel, name) for name in dfaccel.__all__ if not inspect.ismodule(getattr(dfaccel, name))}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    """In an empty folder, so that an example leaves nothing behind in the repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with mpl.rc_context({"backend": "agg"}):
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert doctest.testmod(importlib.import_module(name), optionflags=flags).failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_has_every_section(name):
    """Protocols and errors, which nobody makes by hand, need one sentence and an example at most."""
    value = PUBLIC[name]
    text, is_class = inspect.getdoc(value), inspect.isclass(value)
    assert text.split("\n\n")[0].rstrip().endswith((".", ":")), "the first paragraph is no sentence"
    if is_class and (issubclass(value, Exception) or getattr(value, "_is_protocol", False)):
        return
    for section in ("Parameters", "Examples"):
        assert f"\n{section}\n---" in text, f"{section} is missing"
    assert ">>>" in text
    missing = [p for p in inspect.signature(value).parameters if p not in text.split("\nParameters\n")[1]]
    assert not missing, f"{missing} are not described"
    source = inspect.getsource(value)
    assert is_class or "raise " not in source or "\nRaises\n---" in text, "Raises is missing"
