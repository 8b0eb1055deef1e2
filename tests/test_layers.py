"The package by itself: imports run one way, whole classes, nothing stands there twice, nothing of the notebooks is needed."
import ast
import json
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
NOTEBOOKS = sorted(p for p in (ROOT/"nbs").rglob("*.ipynb") if not re.search(r"/[_.]", p.as_posix()))
FLOORS = dict(core=0, data=1, training=2, networks=3, models=4, evaluate=4, analysis=5, report=5, papers=6, tutorials=7)
TREES = {p: ast.parse(p.read_text(encoding="utf-8")) for p in MODULES}

def name_of(path): return ".".join(("medgan", *path.relative_to(LIB).with_suffix("").parts))
def floor_of(name): return name.split(".")[1] if name.count(".") > 1 else "papers"
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

def goes_down(here, there):
    "May the module `here` import `there`? To a lower floor always; on its own only to a smaller number; a paper never."
    a, b = floor_of(here), floor_of(there)
    if b == "papers": return False
    return NUMBERS[there] < NUMBERS[here] if a == b else FLOORS[b] < FLOORS[a]

@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_imports_run_one_way(path):
    "Catches core that needs a data set, a metric that needs a model, a paper that needs a paper, and 02 that needs 04."
    name = name_of(path)
    for other in imports_of(path):
        if not other.startswith("medgan."): continue
        assert other in NUMBERS, f"{name} imports {other}, which no notebook exports"
        assert goes_down(name, other), (f"{name} imports {other}: papers -> analysis, report -> models, evaluate -> networks -> training "
                                        "-> data -> core, and within a floor only smaller numbers")

def test_report_measures_nothing():
    "Catches a ledger that imports a metric, a model or a data set: it knows only what was stored."
    for path in MODULES:
        if floor_of(name_of(path)) != "report": continue
        floors = {floor_of(other) for other in imports_of(path) if other.startswith("medgan.")}
        assert floors <= {"core", "report"}, f"{name_of(path)} imports from {floors}"

@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_names_of_modules(path):
    "Catches a module called utils, and a folder that is no floor."
    assert path.stem not in ("utils", "helpers", "common", "misc")
    assert floor_of(name_of(path)) in FLOORS and len(path.relative_to(LIB).parts) <= 2

# one notebook, one module, one file of tests

def test_notebooks_and_modules_are_pairs():
    "Catches a module without its notebook, a notebook that exports none, and two notebooks of one number on a floor."
    modules = {p.relative_to(LIB).with_suffix("").as_posix() for p in MODULES}
    exported = defaultdict(list)
    for nb in NOTEBOOKS:
        folder = nb.relative_to(ROOT/"nbs").parent.as_posix()
        if folder in (".", *FLOORS): exported[(Path(folder)/re.sub(r"^\d+_", "", nb.stem)).as_posix()].append(nb.name)
    assert modules == exported.keys()
    numbers = [(nb.parent, nb.name.split("_")[0]) for nb in NOTEBOOKS]
    assert len(numbers) == len(set(numbers)), "two notebooks share a number"

def test_tests_mirror_the_package():
    "Catches tests in a folder that is no floor, and tests whose module was renamed: test_<module>.py or test_<module>_<topic>.py."
    modules = {p.relative_to(LIB).with_suffix("").as_posix() for p in MODULES}
    house = {"layers", "notebooks", "readme", "study", "style", "trainers"}      # tests of all of it
    strangers = []
    for path in sorted((ROOT/"tests").rglob("test_*.py")):
        inside = path.relative_to(ROOT/"tests")
        if inside.parts[0] == "benchmarks": continue
        module = (inside.parent/path.stem.removeprefix("test_")).as_posix()
        of_module = any(module == m or module.startswith(f"{m}_") for m in modules)
        if not of_module and not (len(inside.parts) == 1 and module in house): strangers.append(inside.as_posix())
    assert not strangers, f"no module of that name: {', '.join(strangers)}"

@pytest.mark.parametrize("what, limit", [("modules", 450), ("tests", 420)])
def test_size_of_files(what, limit):
    "Catches a module that is two, and tests that no one reads to their end."
    paths = MODULES if what == "modules" else sorted((ROOT/"tests").rglob("*.py"))
    long = {p.relative_to(ROOT).as_posix(): n for p in paths if (n := len(p.read_text(encoding="utf-8").splitlines())) > limit}
    assert not long, f"longer than {limit} lines: {long}"

# whole classes

CLASSES = {node.name for tree in TREES.values() for node in tree.body if isinstance(node, ast.ClassDef)}

def late_attachments(tree):
    "Lines that give one of the package's classes an attribute from outside: `Name.attr = ...`, `setattr(Name, ...)`, `@patch`."
    for node in ast.walk(tree):
        targets = getattr(node, "targets", None) or ([node.target] if isinstance(node, (ast.AnnAssign, ast.AugAssign)) else [])
        for target in (t for group in targets for t in (group.elts if isinstance(group, ast.Tuple) else [group])):
            if isinstance(target, ast.Attribute) and getattr(target.value, "id", "") in CLASSES: yield ast.unparse(target)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setattr" and getattr(node.args[0], "id", "") in CLASSES:
            yield ast.unparse(node)
        if isinstance(node, ast.FunctionDef):
            yield from (f"@{ast.unparse(d)} {node.name}" for d in node.decorator_list if re.match(r"patch(_to)?\b", ast.unparse(d)))

def code_of(notebook):
    "The trees of a notebook's code cells, magics left out."
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            lines = "".join(cell["source"]).splitlines()
            yield ast.parse("\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in lines))

def test_late_attachments_are_seen():
    "Catches a rule that finds nothing: each way to attach late, and what is allowed."
    name = min(CLASSES)
    for late in (f"{name}.fit = _fit", f"{name}.a, {name}.b = 1, 2", f"{name}.n: int = 3", f"setattr({name}, 'fit', f)",
                 f"for f in fs: setattr({name}, f, f)", f"@patch\ndef fit(self: {name}): pass"):
        assert list(late_attachments(ast.parse(late))), late
    for fine in (f"x = {name}()\nx.fit = 1", "self.fit = 2", f"class Other({name}):\n    fit = 3", "setattr(config, 'a', 1)"):
        assert not list(late_attachments(ast.parse(fine))), fine

@pytest.mark.parametrize("path", [*MODULES, *NOTEBOOKS], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_late_methods(path):
    "Catches a method or property that is attached to a class after its definition: help and type checkers do not see it."
    trees = [TREES[path]] if path in TREES else code_of(path)
    assert not [late for tree in trees for late in late_attachments(tree)]

# names

def borrowed(tree):
    "Private names of medgan's modules that a tree imports from elsewhere."
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "medgan"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name.startswith("_"))

@pytest.mark.parametrize("path", [*MODULES, *NOTEBOOKS], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_private_names_stay_at_home(path):
    "Catches `from medgan.data.files import _there`: what another module needs has a public name and a docstring."
    trees = [TREES[path]] if path in TREES else code_of(path)
    assert not [name for tree in trees for name in borrowed(tree)]

def test_nothing_is_defined_twice():
    "Catches a helper that was copied from one notebook into another, public or private."
    places = defaultdict(list)
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)): places[node.name].append(name_of(path))
    assert not {name: where for name, where in places.items() if len(where) > 1}

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

# what is needed, and what is shipped

def _names(node):
    if isinstance(node, ast.Import): return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []

def _project():
    "pyproject.toml."
    if sys.version_info < (3, 11): return pytest.importorskip("tomli").loads((ROOT/"pyproject.toml").read_text(encoding="utf-8"))
    import tomllib
    return tomllib.loads((ROOT/"pyproject.toml").read_text(encoding="utf-8"))

@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_imports_are_dependencies(path):
    "Catches an import of nbdev, fastcore or of a package that pyproject.toml does not name."
    project = _project()["project"]
    dev = project["optional-dependencies"].pop("dev")
    wanted = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    allowed = {re.match(r"[\w-]+", w)[0].lower().replace("-", "_") for w in wanted} | {"medgan"} | set(sys.stdlib_module_names)
    guarded = {name.split(".")[0] for node in ast.walk(TREES[path])             # optional: the code says what it does without
               if isinstance(node, ast.Try) and any("ImportError" in ast.unparse(h) for h in node.handlers)
               for inner in node.body for name in _names(inner)}
    for module in imports_of(path):
        root = module.split(".")[0]
        if root in guarded: continue
        package = {"PIL": "pillow", "sklearn": "scikit_learn", "skimage": "scikit_image", "pywt": "pywavelets",
                   "pydantic_core": "pydantic"}.get(root, root)
        where = " (only in dev)" if any(root in d for d in dev) else ""
        assert package.lower() in allowed, f"{name_of(path)} imports {root}: not among the dependencies{where}"

FRESH = """
import contextlib, importlib, os, sys, traceback
for name in ('nbdev', 'fastcore', 'execnb', 'IPython', 'ipykernel', 'papermill'): sys.modules[name] = None   # as if not installed
for name in os.environ['OTHERS'].split():                   # once for all: what takes long
    with contextlib.suppress(ImportError): importlib.import_module(name)
bad = 0
for name in sys.argv[1:]:                                   # a process for each module
    child = os.fork()
    if child == 0:
        try:
            module = importlib.import_module(name)
            assert module.__file__.startswith(os.getcwd()), module.__file__
            for public in module.__all__: getattr(module, public)
            os._exit(0)
        except BaseException:
            print(name, traceback.format_exc(), file=sys.stderr, flush=True)
            os._exit(1)
    bad += os.waitpid(child, 0)[1] != 0
sys.exit(bad)
"""

def test_every_module_imports_alone(tmp_path):
    "Catches a name that only the notebook has, an import of nbdev, fastcore or IPython, and a file looked for at import."
    shutil.copytree(LIB, tmp_path/"medgan", ignore=shutil.ignore_patterns("__pycache__"))       # the package, without notebooks and data
    (tmp_path/"fresh.py").write_text(FRESH)
    others = {m for p in MODULES for m in imports_of(p) if m.split(".")[0] not in ("medgan", *sys.stdlib_module_names)}
    done = subprocess.run([sys.executable, "fresh.py", *map(name_of, MODULES)], cwd=tmp_path, capture_output=True, text=True,
                          timeout=300, env={**os.environ, "PYTHONPATH": str(tmp_path), "OTHERS": " ".join(sorted(others))})
    assert done.returncode == 0, done.stderr

def test_types_are_shipped():
    "Catches type hints that no user's type checker reads: without py.typed in the package they count for nothing."
    assert (LIB/"py.typed").is_file()
    assert "py.typed" in _project()["tool"]["setuptools"]["package-data"]["medgan"]
