"The package by itself: imports run one way, nothing stands there twice, nothing of the notebooks is needed."
import ast
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIB = ROOT/"medgan"
MODULES = sorted(p for p in LIB.rglob("*.py") if p.name not in ("__init__.py", "_modidx.py"))
LAYERS = {"core": 0, "models": 1, "analysis": 2, "": 3}         # "" = the papers
TREES = {p: ast.parse(p.read_text(encoding="utf-8")) for p in MODULES}

def name_of(path): return ".".join(("medgan", *path.relative_to(LIB).with_suffix("").parts))
def layer_of(name): return LAYERS[name.split(".")[1] if name.count(".") > 1 else ""]
def _id(path): return name_of(path)

def number_of(path):
    "The number of the notebook that a module comes from, out of the header that nbdev writes."
    made_from = re.search(r"File to edit: \S*?([^/\s]+)\.ipynb", path.read_text(encoding="utf-8"))
    assert made_from, f"{path.name} was not exported from a notebook"
    return int(made_from[1].split("_")[0])

NUMBERS = {name_of(p): number_of(p) for p in MODULES}

def imports_of(path):
    "Full names of all modules that a module imports, relative imports resolved, also those inside functions."
    package = name_of(path).split(".")[:-1]
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import): yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            parts = (package[:len(package) - node.level + 1] if node.level else []) + (node.module.split(".") if node.module else [])
            base = ".".join(parts)
            found = [f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in NUMBERS]   # from . import plots
            yield from found or [base]

@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_imports_run_one_way(path):
    "Catches `from medgan.dermgan import ...` in another paper, core that needs a paper, and 02 that needs 04."
    name = name_of(path)
    for other in imports_of(path):
        if not other.startswith("medgan."): continue
        assert other in NUMBERS, f"{name} imports {other}, which no notebook exports"
        here, there = (layer_of(name), NUMBERS[name]), (layer_of(other), NUMBERS[other])
        assert there[0] < LAYERS[""], f"{name} imports the paper {other}"
        assert there < here, f"{name} imports {other}: papers -> analysis -> models -> core, and within a layer only smaller numbers"

@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_names_of_modules(path):
    "Catches a module called utils, and a folder that is no layer."
    assert path.stem not in ("utils", "helpers", "common", "misc")
    assert len(path.relative_to(LIB).parts) == 1 or path.relative_to(LIB).parts[0] in LAYERS

def _names(node):
    if isinstance(node, ast.Import): return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []

@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_imports_are_dependencies(path):
    "Catches an import of nbdev, fastcore or of a package that pyproject.toml does not name."
    if sys.version_info >= (3, 11): import tomllib
    else: import tomli as tomllib
    project = tomllib.loads((ROOT/"pyproject.toml").read_text(encoding="utf-8"))["project"]
    dev = project["optional-dependencies"].pop("dev")
    wanted = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    allowed = {re.match(r"[\w-]+", w)[0].lower().replace("-", "_") for w in wanted} | {"medgan"} | set(sys.stdlib_module_names)
    guarded = {name.split(".")[0] for node in ast.walk(TREES[path]) if isinstance(node, ast.Try) and any("ImportError" in ast.unparse(h) for h in node.handlers)
               for inner in node.body for name in _names(inner)}             # optional: the code says what it does without
    for module in imports_of(path):
        root = module.split(".")[0]
        if root in guarded: continue
        package = {"PIL": "pillow", "sklearn": "scikit_learn", "skimage": "scikit_image", "pywt": "pywavelets"}.get(root, root)
        assert package.lower() in allowed, f"{name_of(path)} imports {root}: not among the dependencies" + (" (only in dev)" if any(root in d for d in dev) else "")

def test_every_module_imports_alone(tmp_path):
    "Catches a name that only the notebook has, an import of nbdev, fastcore or IPython, and a file looked for at import."
    shutil.copytree(LIB, tmp_path/"medgan", ignore=shutil.ignore_patterns("__pycache__"))       # the package, without notebooks and data
    script = ("import importlib, os, sys, traceback\n"
              "for name in ('nbdev', 'fastcore', 'execnb', 'IPython', 'ipykernel', 'papermill'): sys.modules[name] = None   # as if not installed\n"
              "import torch, accelerate, pandas                           # once for all: what takes long\n"
              "bad = 0\n"
              "for name in sys.argv[1:]:                                   # a process for each module\n"
              "    child = os.fork()\n"
              "    if child == 0:\n"
              "        try:\n"
              "            module = importlib.import_module(name)\n"
              "            assert module.__file__.startswith(os.getcwd()), module.__file__\n"
              "            for public in module.__all__: getattr(module, public)\n"
              "            os._exit(0)\n"
              "        except BaseException:\n"
              "            print(name, traceback.format_exc(), file=sys.stderr, flush=True)\n"
              "            os._exit(1)\n"
              "    bad += os.waitpid(child, 0)[1] != 0\n"
              "sys.exit(bad)\n")
    (tmp_path/"fresh.py").write_text(script)
    done = subprocess.run([sys.executable, "fresh.py", *map(name_of, MODULES)], cwd=tmp_path, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr

def test_nothing_is_defined_twice():
    "Catches a helper that was copied from one notebook into another, public or private."
    places = defaultdict(list)
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)): places[node.name].append(name_of(path))
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert not twice

def test_no_notebook_globals():
    "Catches an exported function that uses a parameter or an import of the notebook (a NameError for who imports it)."
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "F821,E9", str(LIB)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

def _all(tree):
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__": return ast.literal_eval(node.value)
    return []

@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_public_names_are_documented(path):
    "Catches a public function or class without a docstring, and a module without a title."
    definitions = {n.name: n for n in TREES[path].body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    silent = [name for name in _all(TREES[path]) if name in definitions and not ast.get_docstring(definitions[name])]
    assert not silent, f"{name_of(path)}: no docstring at {', '.join(silent)}"
    assert ast.get_docstring(TREES[path]), f"{name_of(path)}: the notebook's first cell gives no '# title' and '> sentence'"

MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(home|root|work|tmp|Users|mnt|scratch)/\w")

def test_no_machine_paths():
    "Catches a folder of somebody's machine in code, README or results."
    texts = [p for pattern in ("*.md", "*.cff", "*.yml", "*.toml", "*.ini", "data/**/*.md", "data/**/*.csv", "data/**/*.json", "medgan/**/*.py")
             for p in ROOT.glob(pattern)]
    assert texts
    found = [f"{p.relative_to(ROOT)}: {m[0]}" for p in texts for m in MACHINE_PATH.finditer(p.read_text(encoding="utf-8"))]
    assert not found
