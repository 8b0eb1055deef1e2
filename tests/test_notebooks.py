"Every notebook runs and writes nothing, is clean, in sync with the package, small, and keeps the house rules."
import ast
import json
import os
import re
import shutil
from pathlib import Path

import papermill
import pytest
import torch
from nbdev.clean import nbdev_clean
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.export import nb_export
from nbdev.test import test_nb as run_nb  # the alias keeps pytest from collecting it

CFG = get_config()
NBS = [p.absolute() for p in nbglob(as_path=True).sorted("name")]
PAPERS = [p for p in NBS if p.parent == CFG.nbs_path.absolute()]
SHARED = dict(data=str, data_dir=str, size=int, epochs=float, batch_size=int, lr=float, seed=int, out_dir=str, resume=bool)
MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(home|root|work|tmp|Users|mnt|scratch)/\w")

def _id(path): return path.relative_to(CFG.nbs_path.absolute()).as_posix()
def _text(lines): return lines if isinstance(lines, str) else "".join(lines)

def cells_of(path, kind=None):
    "(number, cell) of all cells of one kind."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [(i, c) for i, c in enumerate(cells) if kind in (None, c["cell_type"])]

def texts_of(cell):
    "All that a reader sees as text: streams, values and tracebacks of a cell's outputs; no pictures."
    for output in cell.get("outputs", []):
        if "text" in output: yield _text(output["text"])
        if "traceback" in output: yield "\n".join(output["traceback"])
        for kind, content in output.get("data", {}).items():
            if kind == "text/plain" or (kind.startswith("text/") and "text/plain" not in output["data"]): yield _text(content)

def code_tree(cell):
    "The cell as Python, magics left out."
    return ast.parse("\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in _text(cell["source"]).splitlines()))

each = pytest.mark.parametrize("nb", NBS, ids=_id)
each_paper = pytest.mark.parametrize("nb", PAPERS, ids=_id)

def test_there_are_notebooks():
    "Catches a wrong folder: all tests below would pass on none."
    there = {_id(p) for p in NBS}
    assert {"core/02_plots.ipynb", "training/03_loop.ipynb", "report/00_ledger.ipynb", "01_cdcgan.ipynb"} <= there

def files_of(root):
    "Size and time of all files below a folder that belong to the project: what a run may not touch."
    for folder, inside, names in os.walk(root):
        inside[:] = [name for name in inside if not name.startswith((".", "__pycache__", "venv", "runs"))]
        for path in (Path(folder)/name for name in names): yield path, (path.stat().st_size, path.stat().st_mtime_ns)

def process_state():
    "What a notebook must leave as it was."
    return {k: v for k, v in os.environ.items() if k.startswith("MEDGAN")}, torch.get_default_dtype(), torch.get_num_threads(), os.getcwd()

@each
def test_runs(nb, tmp_path):
    "Catches a cell that fails at the default parameters, and a run that changes the process, or a file: its own folder's or ours."
    before, ours = process_state(), dict(files_of(CFG.config_path))
    copy = Path(shutil.copy(nb, tmp_path))                     # as a reader has it: a copy, started elsewhere
    ok, _ = run_nb(copy, skip_flags=CFG.tst_flags.split(), basepath=CFG.config_path)
    assert ok, "traceback above"
    assert process_state() == before, "environment, dtype, threads or folder are not as they were"
    assert [p.name for p in tmp_path.iterdir()] == [nb.name], "the run left something beside the notebook"
    assert [p for p, state in files_of(CFG.config_path) if ours.get(p) != state] == [], "the run wrote into the checkout"

@each
def test_clean(nb, tmp_path):
    "Catches execution counts and metadata that only make noise in a diff."
    copy = shutil.copy(nb, tmp_path)
    nbdev_clean(copy)
    assert json.loads(nb.read_text(encoding="utf-8")) == json.loads((tmp_path/nb.name).read_text(encoding="utf-8")), "run nbdev_clean"

def _code(root):
    text = lambda p: p.read_text(encoding="utf-8").split("# %% auto", 1)[-1]
    return {p.relative_to(root).as_posix(): [line for line in text(p).splitlines() if not line.startswith("# %%")]
            for p in root.rglob("*.py") if p.name not in ("__init__.py", "_modidx.py")}

def test_sync(tmp_path):
    "Catches an un-exported edit, a hand-edited module and the left-over module of a renamed notebook."
    lib = tmp_path/CFG.lib_path.name
    for nb in NBS: nb_export(nb, lib_path=lib)
    fresh, there = _code(lib), _code(CFG.lib_path)
    assert fresh.keys() == there.keys(), "a module without its notebook, or a notebook without its module"
    assert [m for m in fresh if fresh[m] != there[m]] == [], "run nbdev_export"

@each
def test_name(nb):
    "Catches a notebook that exports into a module of another name, or lacks its title."
    sources = [_text(c["source"]) for _, c in cells_of(nb)]
    assert re.match(r"# .+\n\n> .+", sources[0]), "the first cell is '# title' and '> one sentence'"
    exports = [s for s in sources if "default_exp" in s and s.startswith("#|")]
    expected = ".".join((*nb.parent.relative_to(CFG.nbs_path.absolute()).parts, re.sub(r"^\d+_", "", nb.stem)))
    assert exports == [f"#| default_exp {expected}"]

@each
def test_exports_nothing_by_itself(nb):
    "Catches a copy of a notebook that overwrites the library when it is run: exporting is a command of the shell."
    assert not [i for i, c in cells_of(nb, "code") if re.search(r"\bnb(dev)?_export\b|\bimport nbdev\b", _text(c["source"]))]

@each
def test_size(nb):
    "Catches pictures as PNG and logs that bury the text."
    limit = 800 if nb in PAPERS else 300
    assert nb.stat().st_size <= limit*1024, f"{nb.stat().st_size//1024} KB; {limit} are allowed"
    for i, cell in cells_of(nb, "code"):
        lines = [line for line in _text(cell["source"]).splitlines() if line.strip()]
        body = code_tree(cell).body
        is_whole = len(body) == 1 and isinstance(body[0], ast.ClassDef)                  # a class is not cut in two,
        is_imports = all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in body)   # a list of imports is no thought
        most = 110 if is_whole else 60 if is_imports else 40
        assert len(lines) <= most, f"cell {i} has {len(lines)} lines; {most} are allowed"
        shown = sum(len(text.splitlines()) for text in texts_of(cell))
        assert shown <= 100, f"cell {i} prints {shown} lines; 100 are allowed"

@each
def test_outputs(nb):
    "Catches a notebook committed without outputs, with an error, a widget or the debris of a progress bar."
    outputs = [(i, o) for i, c in cells_of(nb, "code") for o in c["outputs"]]
    assert outputs, "run it, then nbdev_clean: outputs are committed"
    for i, output in outputs:
        assert output["output_type"] != "error", f"cell {i} ended in {output.get('ename')}"
        assert not any("widget" in kind for kind in output.get("data", {})), f"cell {i} shows a widget"
        text = _text(output.get("text", ""))
        assert "\r" not in text and not re.search(r"\d+%\|", text), f"cell {i} holds a progress bar"
        assert "Warning" not in text or output.get("name") != "stderr", f"cell {i} warns: {text[:200]}"

@each
def test_curves_are_shown(nb):
    "Catches a notebook that was run with MPLBACKEND=agg: its curves were drawn, and none is stored."
    cells = cells_of(nb, "code")
    everything = "\n".join(_text(c["source"]) for _, c in cells)
    for i, cell in cells:
        figures = re.findall(r"^(\w+), \w+ = plt\.subplots\(", _text(cell["source"]), re.M)
        passed_on = all(re.search(rf"[(,] *{figure}\b", everything) for figure in figures)          # as_png(fig), plt.close(fig)
        shown = any(kind.startswith("image/") for output in cell["outputs"] for kind in output.get("data", {}))
        assert shown or passed_on, f"cell {i} draws, and no picture is stored"

FORBIDDEN = [r"^\s*from\s+\S+\s+import\s+\*", r"^\s*[!%]\s*pip\b", r"^\s*!\s*wget\b", r"\bos\.chdir\(", r"\bsys\.path\b",
             r"^\s*%cd\b", r"\bIN_TEST\b", r"filterwarnings\(\s*(action\s*=\s*)?[\"']ignore",
             r"simplefilter\(\s*(action\s*=\s*)?[\"']ignore", r"^\s*except\s*:", r"\bTODO\b"]

@each
def test_house_rules(nb):
    "Catches star imports, shell installs, os.chdir, silenced warnings, bare excepts, test branches and folders of somebody's machine."
    for i, cell in cells_of(nb):
        for text in (_text(cell["source"]), *texts_of(cell)):
            assert not (found := MACHINE_PATH.search(text)), f"cell {i} names a folder of a machine: {found[0]}"
    for i, cell in cells_of(nb, "code"):
        for rule in FORBIDDEN:
            assert not (found := re.search(rule, _text(cell["source"]), re.M)), f"cell {i}: {found[0].strip()!r} is not allowed"

@each
def test_imports_stand_alone(nb):
    "Catches a cell that mixes imports with other code (nbdev runs such a cell when it renders the docs)."
    for i, cell in cells_of(nb, "code"):
        body = code_tree(cell).body
        kinds = {isinstance(node, (ast.Import, ast.ImportFrom)) for node in body}
        assert kinds != {True, False}, f"cell {i}: imports get a cell of their own"

@each_paper
def test_parameters(nb):
    "Catches a missing tag, a derived value (papermill would leave it stale), a wrong type and a parameter without a comment."
    tagged = [(i, c) for i, c in cells_of(nb, "code") if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1, "exactly one cell is tagged 'parameters'"
    source = _text(tagged[0][1]["source"])
    assert "#|" not in source, "the parameters are not exported"
    body, lines = code_tree(tagged[0][1]).body, source.splitlines()
    for node in body:
        assert isinstance(node, ast.AnnAssign) and node.value is not None, f"not an annotated literal: {ast.unparse(node)}"
        value, kind = ast.literal_eval(node.value), ast.unparse(node.annotation)
        fits = type(value).__name__ == kind or (type(value), kind) == (int, "float")
        assert fits, f"{ast.unparse(node)}: {type(value).__name__} is no {kind}"
        assert "#" in lines[node.end_lineno - 1], f"{ast.unparse(node)}: what is it? (a comment)"
    names = {node.target.id: ast.unparse(node.annotation) for node in body}
    assert list(names)[:len(SHARED)] == list(SHARED), "the shared parameters come first, in their order"
    known = papermill.inspect_notebook(str(nb))                # it stops at a '=' in the comment behind a value
    assert not (lost := [name for name in names if name not in known]), f"papermill calls {', '.join(lost)} unknown"
    assert {n: names[n] for n in SHARED} == {n: kind.__name__ for n, kind in SHARED.items()}

@pytest.mark.parametrize("nb", [p for p in NBS if p not in PAPERS and p.parent.name not in ("analysis", "tutorials")], ids=_id)
def test_library_has_no_parameters(nb):
    "Catches a library notebook that grows into an experiment; a study in `analysis` may be run on real data."
    assert not [i for i, c in cells_of(nb) if "parameters" in c["metadata"].get("tags", [])]
