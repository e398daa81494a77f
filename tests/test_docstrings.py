"""Every example in a docstring runs, and every public name says what it takes, what it raises and what it returns."""

import ast
import doctest
import importlib
import inspect
import os
import pkgutil
import re
import textwrap

import matplotlib as mpl
import pytest

import dfaccel

mpl.use("agg")
MODULES = ["dfaccel", *(name for _, name, _ in pkgutil.walk_packages(dfaccel.__path__, "dfaccel."))]


def public(module):
    """The functions and classes of a module, and the methods of its classes, that do not begin with an underscore."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            yield name, value
            for method, definition in vars(value).items():
                if inspect.isfunction(definition) and not method.startswith("_"):
                    yield f"{name}.{method}", definition


EVERYTHING = {f"{m}.{name}": v for m in MODULES for name, v in public(importlib.import_module(m))}


def described(value):
    """The docstring, also where a method inherits it."""
    return inspect.getdoc(value) or next(
        (inspect.getdoc(other) for name, other in EVERYTHING.items()
         if name.endswith("." + value.__name__) and inspect.getdoc(other)), ""
    )


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    """In an empty folder, so that an example leaves nothing behind in the repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "TQDM_DISABLE", "1")
    module = importlib.import_module(name)
    with mpl.rc_context():
        result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_what_a_user_meets_first_has_an_example():
    for name in dfaccel.__all__:
        value = getattr(dfaccel, name)
        if not inspect.isclass(value):
            assert ">>>" in value.__doc__, name


@pytest.mark.parametrize("name", EVERYTHING)
def test_docstring(name):
    """One sentence at least.

    A section of parameters is complete and names nothing else; what a function itself raises it says.
    """
    value = EVERYTHING[name]
    text = described(value)
    first = text.split("\n\n")[0]
    assert first, f"{name} has no docstring"
    assert first.rstrip().endswith((".", ":")), f"{name}: {first!r} is not a sentence"
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", text, re.MULTILINE | re.DOTALL)
    if section:
        signature = inspect.signature(value)
        listed = [part.strip().strip("*") for line in re.findall(r"^(\S[^:\n]*?)(?: :.*)?$", section[1], re.MULTILINE)
                  for part in line.split(",")]
        known = set(signature.parameters)
        assert set(listed) <= known, f"{name} describes {set(listed) - known}, which it does not take"
        if inspect.isfunction(value):
            missing = known - set(listed) - {"self", "cls"}
            assert not missing, f"{name} does not describe {missing}"
    if inspect.isfunction(value):
        tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
        raised = {node.exc.func.id for node in ast.walk(tree) if isinstance(node, ast.Raise)
                  and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)}
        unsaid = {error for error in raised - {"NotImplementedError"} if error not in text}
        assert not unsaid, f"{name} raises {unsaid} and does not say so"


@pytest.mark.parametrize("name", dfaccel.__all__)
def test_public_function_has_every_section(name):
    value = getattr(dfaccel, name)
    if inspect.isfunction(value):
        for section in ("Parameters", "Examples"):
            assert f"{section}\n" in inspect.getdoc(value), f"{name} lacks {section}"
        assert any(part in inspect.getdoc(value) for part in ("Returns\n", "Raises\n")), name
