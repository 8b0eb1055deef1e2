"Every notebook runs, is clean, in sync with the package, small, and keeps the house rules."
import ast
import json
import os
import re
import shutil

import pytest
import torch
from nbdev.clean import nbdev_clean
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.export import nb_export
from nbdev.test import test_nb as run_nb      # the alias keeps pytest from collecting it

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
    assert {"core/00_plots.ipynb", "core/04_training.ipynb", "01_cdcgan.ipynb"} <= {_id(p) for p in NBS}

@each
def test_runs(nb):
    "Catches any cell that fails, top to bottom, at the default parameters, and a notebook that leaves the process changed for the next one."
    state = lambda: ({k: v for k, v in os.environ.items() if k.startswith("MEDGAN")}, torch.get_default_dtype(), torch.get_num_threads(), os.getcwd())
    before = state()
    ok, _ = run_nb(nb, skip_flags=CFG.tst_flags.split(), basepath=CFG.config_path)
    assert ok, "traceback above"
    assert state() == before, "environment, dtype, threads or folder are not as they were"

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
def test_name_and_last_cell(nb):
    "Catches a notebook that exports into a module of another name, lacks its title, or forgets to export."
    sources = [_text(c["source"]) for _, c in cells_of(nb)]
    assert re.match(r"# .+\n\n> .+", sources[0]), "the first cell is '# title' and '> one sentence'"
    exports = [s for s in sources if "default_exp" in s and s.startswith("#|")]
    expected = ".".join((*nb.parent.relative_to(CFG.nbs_path.absolute()).parts, re.sub(r"^\d+_", "", nb.stem)))
    assert exports == [f"#| default_exp {expected}"]
    assert sources[-1].split() == "#| hide import nbdev; nbdev.nbdev_export()".split(), "the last cell is hidden and exports"

@each
def test_size(nb):
    "Catches pictures as PNG and logs that bury the text."
    limit = 800 if nb in PAPERS else 300
    assert nb.stat().st_size <= limit*1024, f"{nb.stat().st_size//1024} KB; {limit} are allowed"
    for i, cell in cells_of(nb, "code"):
        lines = [line for line in _text(cell["source"]).splitlines() if line.strip()]
        assert len(lines) <= 40, f"cell {i} has {len(lines)} lines; 40 are allowed"
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
def test_house_rules(nb):
    "Catches star imports, shell installs, os.chdir, silenced warnings, bare excepts, test branches and folders of somebody's machine."
    for i, cell in cells_of(nb):
        for text in (_text(cell["source"]), *texts_of(cell)):
            assert not (found := MACHINE_PATH.search(text)), f"cell {i} names a folder of a machine: {found[0]}"
    for i, cell in cells_of(nb, "code"):
        source = _text(cell["source"])
        for rule in (r"^\s*from\s+\S+\s+import\s+\*", r"^\s*[!%]\s*pip\b", r"^\s*!\s*wget\b", r"\bos\.chdir\(", r"\bsys\.path\b", r"^\s*%cd\b", r"\bIN_TEST\b",
                     r"filterwarnings\(\s*(action\s*=\s*)?[\"']ignore", r"simplefilter\(\s*(action\s*=\s*)?[\"']ignore", r"^\s*except\s*:", r"\bTODO\b"):
            assert not (found := re.search(rule, source, re.M)), f"cell {i}: {found[0].strip()!r} is not allowed"

@each
def test_imports_stand_alone(nb):
    "Catches a cell that mixes imports with other code (nbdev runs such a cell when it renders the docs)."
    for i, cell in cells_of(nb, "code")[:-1]:
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
        assert type(value).__name__ == kind or (type(value), kind) == (int, "float"), f"{ast.unparse(node)}: {type(value).__name__} is no {kind}"
        assert "#" in lines[node.end_lineno - 1], f"{ast.unparse(node)}: what is it? (a comment)"
    names = {node.target.id: ast.unparse(node.annotation) for node in body}
    assert list(names)[:len(SHARED)] == list(SHARED), "the shared parameters come first, in their order"
    assert {n: names[n] for n in SHARED} == {n: kind.__name__ for n, kind in SHARED.items()}

@pytest.mark.parametrize("nb", [p for p in NBS if p not in PAPERS and p.parent.name != "analysis"], ids=_id)
def test_library_has_no_parameters(nb):
    "Catches a library notebook that grows into an experiment; a study in `analysis` may be run on real data."
    assert not [i for i, c in cells_of(nb) if "parameters" in c["metadata"].get("tags", [])]
