"Style and types as pyproject.toml states them, over notebooks, package and tests."
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

def check(*command):
    "Run a tool at the root; its output if it objects."
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=600)
    return "" if done.returncode == 0 else done.stdout + done.stderr

def ruff(*paths):
    "What ruff objects to, a line each."
    return check("ruff", "check", "--no-cache", "--output-format", "concise", *paths)

@pytest.mark.parametrize("folder", ["nbs", "medgan", "tests"])
def test_style(folder):
    "Catches a line of 141 columns, two statements on one, an import nobody uses, and a name that only the notebook has."
    assert ruff(folder) == ""

@pytest.mark.parametrize("source, code", [
    ("x = 1; y = 2\n", "E702"), ("import os\n", "F401"), ("def f(): return unknown\n", "F821"), (f"x = '{'a'*140}'\n", "E501"),
    ("import sys\nimport ast\nprint(ast, sys)\n", "I001"), ("def f(:\n", "invalid-syntax"),
])
@pytest.mark.parametrize("suffix", [".py", ".ipynb"])
def test_style_is_enforced(tmp_path, source, code, suffix):
    "Catches a rule, or all notebooks, excluded from the configuration."
    path = tmp_path/f"bad{suffix}"
    cell = dict(cell_type="code", execution_count=None, id="a", metadata={}, outputs=[], source=source)
    path.write_text(source if suffix == ".py" else json.dumps(dict(cells=[cell], metadata={}, nbformat=4, nbformat_minor=5)))
    assert code in ruff("--config", "pyproject.toml", str(path))

def test_a_short_guard_may_stand_on_its_line(tmp_path):
    "Catches a rule that is stricter than the style."
    (tmp_path/"fine.py").write_text("def f(x):\n    if x < 0: raise ValueError(x)\n    return x\n")
    assert ruff("--config", "pyproject.toml", str(tmp_path/"fine.py")) == ""

@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="needs mypy (pip install -e '.[dev]')")
def test_types(tmp_path):
    "Catches a hint in core, data, training or report that the code below it contradicts, and a call that a hint forbids."
    assert check("mypy", "--cache-dir", str(tmp_path)) == ""
