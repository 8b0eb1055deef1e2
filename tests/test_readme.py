"What README says is so: links lead somewhere, the test command is the one that CI runs. (Its table: tests/report/test_pages.py.)"
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT/"README.md").read_text(encoding="utf-8")
PAGES = [ROOT/"README.md", *sorted(ROOT.glob("data/**/*.md")), *sorted(ROOT.glob("nbs/**/*.ipynb"))]
TEST_COMMAND = 'pip install -e ".[dev]" && pytest'

def prose(path):
    "Markdown of a page or of a notebook, without code blocks."
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb": text = "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.S | re.M))

def commands():
    "The lines of README's fenced blocks."
    return [line.strip() for block in re.findall(r"^ *```.*?\n(.*?)^ *```", README, re.S | re.M) for line in block.splitlines()]

@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_relative_links(path):
    "Catches a link to a file that was renamed, and one that leads out of the repository."
    for link in re.findall(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)|<(?:img|a)\s[^>]*(?:src|href)=\"([^\"]+)\"", prose(path)):
        link = "".join(link)
        if re.match(r"[a-z]+:|#", link): continue
        target = (path.parent/link.partition("#")[0]).resolve()
        assert target.is_relative_to(ROOT.resolve()), f"{link} leads out of the repository"
        assert target.exists(), f"{link} is not there"

def test_commands():
    "Catches a README that tells another set-up than the one that is tested."
    assert commands().count(TEST_COMMAND) == 1
    assert 'pip install -e ".[dev]" && papermill nbs/01_cdcgan.ipynb out.ipynb' in commands()

@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_ci_runs_the_readme():
    "Catches a CI that runs something else than README says."
    shown = subprocess.run(["bash", str(ROOT/".ci"/"run"), "--show"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip() == TEST_COMMAND
    assert TEST_COMMAND not in (ROOT/".ci"/"run").read_text(encoding="utf-8"), "read from README, not written twice"

def test_citation():
    "Catches a version or a paper that CITATION.cff lacks, or one that it cites under another title."
    import yaml

    import medgan
    from medgan.report.ledger import PAPERS
    cited = yaml.safe_load((ROOT/"CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == medgan.__version__
    titles = [r["title"] for r in cited["references"]]
    assert all(any(title.startswith(paper["title"]) for title in titles) for paper in PAPERS.values())
