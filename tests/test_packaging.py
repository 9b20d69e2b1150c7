"""What a user meets before any mathematics: imports, failed imports, threads."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hessmx
from hessmx import _mxnet
from hessmx._mxnet import mx

ROOT = Path(__file__).parents[1]
MODULES = sorted(info.name for info in pkgutil.walk_packages(hessmx.__path__, "hessmx.")
                 if not info.name.endswith("__main__"))


@pytest.mark.smoke
@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name):
    importlib.import_module(name)


@pytest.mark.smoke
def test_mxnet_computes_on_this_numpy():
    assert np.array_equal((mx.nd.array([1.0, 2.0]) * 2).asnumpy(), [2.0, 4.0])


def missing(name):
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


FAILED_IMPORTS = [
    # what happened, version of Python, machine, version of NumPy, what the line must name
    (missing("mxnet"), (3, 11), "x86_64", "1.26.4", "pip install mxnet==1.9.1"),
    (missing("mxnet"), (3, 11), "aarch64", "1.26.4", "no wheel for aarch64"),
    (missing("mxnet"), (3, 13), "x86_64", "1.26.4", "Python 3.9 to 3.12"),
    (missing("mxnet"), (3, 8), "x86_64", "1.23.5", "Python 3.9 to 3.12"),
    (missing("distutils"), (3, 12), "x86_64", "1.26.4", "pip install setuptools"),
    (OSError("libgomp.so.1: cannot open shared object file: No such file"), (3, 11), "x86_64", "1.26.4", "libgomp1"),
    (OSError("libodd.so.7: cannot open shared object file: No such file"), (3, 11), "x86_64", "1.26.4", "libodd.so.7"),
    (AttributeError("np.sctypes was removed"), (3, 11), "x86_64", "2.0.1", "numpy<2"),
    (ImportError("odd\nthing"), (3, 11), "x86_64", "1.26.4", "odd thing"),
]


@pytest.mark.parametrize("error, python, machine, numpy, said", FAILED_IMPORTS)
def test_a_failed_import_is_one_line_that_says_what_to_do(monkeypatch, error, python, machine, numpy, said):
    monkeypatch.setattr(_mxnet.sys, "version_info", (*python, 0, "final", 0))
    monkeypatch.setattr(_mxnet.platform, "system", lambda: "Linux")
    monkeypatch.setattr(_mxnet.platform, "machine", lambda: machine)
    monkeypatch.setattr(_mxnet.np, "__version__", numpy)
    line = _mxnet._explain(error)
    assert said in line
    assert "\n" not in line


IMPORT_ENVIRONMENTS = [
    ({}, str(_mxnet._cores())),
    ({"OMP_NUM_THREADS": "1"}, "1"),
]


@pytest.mark.parametrize("environment, threads", IMPORT_ENVIRONMENTS)
def test_mxnet_gets_the_cores_unless_the_user_chose(environment, threads):
    program = "import hessmx._mxnet, os; print(os.environ['OMP_NUM_THREADS'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "", **environment},
        check=True,
    )
    assert done.stdout.strip() == threads


def test_a_failed_import_in_the_shell_is_one_line_and_exit_code_two():
    program = "import sys; sys.argv = ['/x/bin/hessmx']; sys.modules['mxnet'] = None; import hessmx.cli"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hessmx: MXNet is not installed: run 'pip install mxnet==1.9.1'\n"


def snippets(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.smoke
def test_the_code_in_readme_runs_in_a_new_process(tmp_path):
    (code,) = snippets(ROOT / "README.md")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "top.png").exists()


@pytest.mark.parametrize("page", sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]), ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []
