"What readers see: the README's table is the ledger's, pages say what the verdicts say, and files are replaced whole."
import os
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from medgan.report.ledger import PAPERS, runs, write_results
from medgan.report.pages import (
    BEGIN,
    END,
    Page,
    Picture,
    caption,
    headline,
    headline_table,
    markdown_table,
    readme_block,
    results_page,
    setting_text,
    take_home,
    update_readme,
)
from medgan.report.verdicts import claims_summary

ROOT = Path(__file__).parents[2]
README = (ROOT/"README.md").read_text(encoding="utf-8")
HEADER = "table,row,column,value,low,high,unit,kind,data,interval,reference,note\n"
CLAIMS = "paper,id,where,claim,contrast,unit,testable,why,note\n"

@pytest.fixture
def toy(tmp_path):
    "A ledger with two printed numbers of cdcgan and no claim."
    (tmp_path/"published").mkdir()
    for p in PAPERS: (tmp_path/"published"/f"{p}.csv").write_text(HEADER)
    (tmp_path/"published"/"cdcgan.csv").write_text(HEADER + "T,a,acc,0.8,,,,result,ham10000,,,\nT,b,acc,0.7,,,,result,private,,,\n")
    (tmp_path/"published"/"claims.csv").write_text(CLAIMS)
    Image.new("RGB", (8, 8)).save(tmp_path/"grid.png")
    return tmp_path

@pytest.fixture
def save(toy):
    "Store a run of cdcgan."
    def write(run, *metrics, data="ham10000", figures=(), **more):
        about = dict(data=dict(name=data, size=32, n=1234, fingerprint="abc"), parameters=dict(epochs=2), seeds=[0], wall_s=1., root=toy)
        return write_results("cdcgan", run, metrics, figures={n: toy/"grid.png" for n in figures}, device="CPU", **(about | more))
    return write

def M(row, value, low, high, table="T"): return dict(table=table, row=row, column="acc", value=value, low=low, high=high, over="seeds")

def claims(toy, *lines): (toy/"published"/"claims.csv").write_text(CLAIMS + "".join(f"cdcgan,{line}\n" for line in lines))

A_GOOD, B_GOOD = "a,T,A is good.,T / a / acc > 0.5,seeds,yes,,", "b,T,B is good.,T / b / acc > 0.5,seeds,yes,,"

def test_readme_is_the_ledger():
    "Catches a number in README that was typed, or a run that was stored without update_readme()."
    assert README.count(BEGIN) == README.count(END) == 1, f"README needs the markers {BEGIN} and {END}"
    block = README.split(BEGIN)[1].split(END)[0].strip()
    assert block == readme_block().strip(), "run medgan.report.pages.update_readme('README.md')"

def test_block_has_all_verdicts():
    "Catches a verdict that README leaves out, and counts of one paper in the row of another."
    rows = [line.split(" | ") for line in readme_block().splitlines()[2:]]
    summary = claims_summary()
    assert len(rows) == len(PAPERS) and [[int(x) for x in r[1:7]] for r in rows] == summary.drop(columns="paper").to_numpy().tolist()
    assert all(PAPERS[p]["title"] in r[0] for p, r in zip(summary.paper, rows))

@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_update_keeps_the_rest(toy, newline):
    "Catches line ends and text outside of the markers that an update changes."
    path = toy/"README.md"
    path.write_bytes(f"# ü{newline}{BEGIN}{newline}old{newline}{END}{newline}rest{newline}".encode())
    assert update_readme(path, toy) and not update_readme(path, toy)
    text = path.read_bytes().decode()
    assert text.startswith(f"# ü{newline}{BEGIN}") and text.endswith(f"{END}{newline}rest{newline}") and "old" not in text

@pytest.mark.parametrize("fails", ["fdopen", "replace"])
def test_update_is_atomic(toy, monkeypatch, fails):
    "Catches a README that is half written when the disk is full."
    path = toy/"README.md"
    path.write_text(f"# toy\n{BEGIN}\nold\n{END}\n")
    before = path.read_bytes()
    real = getattr(os, fails)
    def full(first, *args, **kwargs):
        if fails == "fdopen": os.close(first)
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError): update_readme(path, toy)
    monkeypatch.setattr(os, fails, real)
    assert path.read_bytes() == before and not list(toy.glob(".README*"))

@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"])
def test_markers(toy, text):
    "Catches markers that are missing, in the wrong order or there twice."
    (toy/"README.md").write_text(text)
    with pytest.raises(ValueError, match="once each and in that order"): update_readme(toy/"README.md", toy)

def test_markdown_table():
    "Catches cells that break a table."
    assert markdown_table(pd.DataFrame({"a": ["x|y\nz", None]})).splitlines()[2:] == ["| x\\|y z |", "|  |"]

def test_take_home(toy, save):
    "Catches a claim of the paper's own numbers that stands before what runs decide, and one that is marked but not taken first."
    assert take_home("cdcgan", toy) == "No full run yet."
    save("first", M("a", .7, .6, .8), M("b", .9, .8, 1.), M("c", .5, .4, .6))
    assert take_home("cdcgan", toy) == "Nothing is decided yet."
    claims(toy, "p,T,Printed.,paper: T / a / acc > 0.5,,paper,,", A_GOOD, B_GOOD + "headline",
           "c,T,C is good.,T / c / acc > 0.5,seeds,yes,,", "d,T,A is bad.,T / a / acc < 0.5,seeds,yes,,")
    assert take_home("cdcgan", toy).split("; ") == [
        'Contradicted: "A is bad" (0.7 [0.6, 0.8] against 0.5)', 'supported: "B is good" (0.9 [0.8, 1] against 0.5) and 1 more',
        'supported by its own numbers: "Printed"', "1 undecided, all because the interval of the difference holds zero."]

def test_headline_claims(toy, save):
    "Catches a headline that shows what is not marked, and an empty one where nothing is."
    save("first", M("a", .7, .6, .8), M("b", .4, .1, .8))
    claims(toy, B_GOOD, A_GOOD)
    assert headline_table("cdcgan", toy).claim.tolist() == ["A is good."]          # the one that is decided
    claims(toy, B_GOOD + "headline", A_GOOD)
    table = headline_table("cdcgan", toy)
    assert table.claim.tolist() == ["B is good."] and table.verdict.tolist() == ["undecided: no difference below 0.3 could be seen"]
    claims(toy, "c,T,Nobody tried.,,seeds,yes,,")
    assert headline_table("cdcgan", toy).verdict.tolist() == ["not run"]

def test_headline_picture(toy, save):
    "Catches drawn images at the top where there are photographs, and a paper whose picture is not stored."
    save("a_phantom", data="phantom", figures=["fig4_generated.png"])
    save("b_photos", figures=["fig4_generated.png", "fig_other.png"])
    pictures = [p for p in headline("cdcgan", toy).parts if isinstance(p, Picture)]
    assert [p.caption for p in pictures] == ["Fig. 4 of the paper: generated (b_photos)."]
    assert not [p for p in headline("dermgan", toy).parts if isinstance(p, Picture)]

def test_headline_sentences(toy, save):
    "Catches a count in the wrong place."
    assert headline("cdcgan", toy).parts[0].startswith("There is no full run yet. Of the paper's 0 claims")
    save("first", M("a", .7, .6, .8), M("b", .4, .1, .8))
    text = headline("cdcgan", toy).parts[0]
    assert "1 full run: *first* (1,234 images of ham10000 at 32 px, 2 epochs, seed 0, CPU)." in text
    assert "Of its 2 results: 1 reproduced, 0 not reproduced; 1 without a verdict (other data: 1)." in text

def test_page_by_run(toy, save):
    "Catches numbers of one run under the name of another."
    save("first", M("a", .8, .7, .9))
    save("second", M("a", .1, .05, .2), M("x", 1., .9, 1.1, "Own"), figures=["fig_x.png"])
    claims(toy, A_GOOD, "p,T,Printed.,paper: T / a / acc > 0.5,,paper,,")
    text = str(results_page("cdcgan", tables={"Own": "Our own"}, figures=None, root=toy))
    first, second = text.split("### second")
    assert "| A is good. | 0.8 against 0.5 | 0.8 [0.7, 0.9] against 0.5 | supported |" in first
    assert "contradicted" not in first and "Our own" not in first
    assert "contradicted" in second and "**Our own**" in second and "*X (second).*" in second
    assert text.count("Printed.") == 1 and "| Printed. | T | 0.8 against 0.5 | supported |" in second.split("no run has numbers")[1]

def test_page_parts(toy, save):
    "Catches a part that is shown unasked, and a misspelt one that shows nothing."
    save("first", M("a", .8, .7, .9), M("b", .8, .7, .9))
    shown = {part: str(results_page("cdcgan", "first", [part], root=toy)) for part in ("numbers", "beside", "claims", "setup", "open")}
    assert "with a verdict" in shown["numbers"] and "other data" in shown["beside"] and "with a verdict" not in shown["beside"]
    assert all(len(shown[p].split("\n\n")) == 2 for p in ("claims", "setup", "open"))
    for wrong in (dict(parts=["number"]), dict(tables=["U"]), dict(figures=["x.png"])):
        with pytest.raises(ValueError): results_page("cdcgan", root=toy, **wrong)

def test_page_columns(toy, save):
    "Catches all columns of a wide table where some are asked for."
    save("first", *(M("a", .8, .7, .9, "Wide") | dict(column=c) for c in ("ap, none", "ap, noise")))
    text = str(results_page("cdcgan", parts=(), tables=["Wide"], columns=", none", root=toy))
    assert "ap, none" in text and "ap, noise" not in text

def test_page_is_shown(toy, save, monkeypatch):
    "Catches a page that a notebook cannot show."
    import IPython.display
    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    Page(["**a**", Picture(toy/"grid.png", "A grid.")])._ipython_display_()
    assert [type(x).__name__ for x in shown] == ["Markdown", "Image", "Markdown"]
    assert shown[2].data == "*A grid.*" and shown[1].data[:4] == b"\x89PNG"

def test_caption_and_setting():
    "Catches a caption that ends twice, or names no run."
    assert caption(dict(run="r", captions={"a.png": "All."}), "a.png") == "All (r)."
    assert [caption(dict(run="r"), n) for n in ("fig10_x_y.png", "study.png")] == ["Fig. 10 of the paper: x y (r).", "Study (r)."]
    stored = dict(data=dict(n=9, name="x", size=8), seeds=[0, 1], device="GPU", parameters={})
    assert setting_text(stored) == "9 images of x at 8 px, seeds 0, 1, GPU"

@pytest.mark.parametrize("paper", PAPERS)
def test_pages_of_the_ledger(paper):
    "Catches a page of the real ledger that fails, lacks a run or grows beyond what a cell may show."
    top, page = headline(paper), results_page(paper)
    assert len(top.parts) == (3 if runs(paper) else 2) and all(run in str(page) for run in runs(paper))
    assert len(str(top).splitlines()) < 20 and max(len(p.splitlines()) for p in page.parts if isinstance(p, str)) < 100
