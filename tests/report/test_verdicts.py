"Verdicts with known answers, on a toy ledger; and what the real ledger may never say."
import itertools
import json

import pandas as pd
import pytest
from scipy import stats

from medgan.core.statistics import paired_test
from medgan.report.ledger import (
    OVER,
    PAPERS,
    claims,
    ledger_dir,
    published,
    read_results,
    run_numbers,
    runs,
    write_results,
)
from medgan.report.verdicts import (
    VERDICTS,
    claim_verdicts,
    claims_summary,
    contrast_table,
    difference_interval,
    is_met,
    number_verdicts,
    numbers_summary,
    paper_claims,
    parse_contrast,
    undecided_reasons,
)

HEADER = "table,row,column,value,low,high,unit,kind,data,interval,reference,note\n"
CLAIMS = "paper,id,where,claim,contrast,unit,testable,why,note\n"

def M(row, value, low=None, high=None, over="seeds", column="acc", unit="", n=None):
    "A metric of the table T."
    repeated = low is not None or column == "difference"
    return dict(table="T", row=row, column=column, value=value, low=low, high=high, unit=unit, n=n, over=over if repeated else "")

@pytest.fixture
def toy(tmp_path):
    "A ledger in which nothing is printed and nothing claimed."
    (tmp_path/"published").mkdir()
    for p in PAPERS: (tmp_path/"published"/f"{p}.csv").write_text(HEADER)
    return tmp_path

@pytest.fixture
def save(toy):
    "Store a run of cdcgan."
    def write(run, *metrics, data="ham10000"):
        about = dict(data=dict(name=data, size=32, n=10, fingerprint="abc"), parameters={}, seeds=[0], wall_s=1., device="CPU", root=toy)
        return write_results("cdcgan", run, metrics, **about)
    return write

def claim(toy, contrast, unit="seeds", testable="yes", why=""):
    "Make this the only claim."
    (toy/"published"/"claims.csv").write_text(CLAIMS + f'cdcgan,c,T,It is so.,"{contrast}",{unit},{testable},{why},\n')

def verdict(toy, contrast, unit="seeds", **more):
    "Verdict and reason of a contrast over all runs."
    claim(toy, contrast, unit, **more)
    row = paper_claims("cdcgan", toy).iloc[0]
    return row.verdict, row.why

def number(toy, save, printed, ours, data="ham10000"):
    "Verdict and reason of one printed number beside one of ours."
    (toy/"published"/"cdcgan.csv").write_text(HEADER + printed + "\n")
    save("first", ours, data=data)
    row = number_verdicts("cdcgan", root=toy).iloc[0]
    return row.verdict, row.why

PLAIN = "T,a,acc,0.80,,,,result,ham10000,,,"

@pytest.mark.parametrize("printed, ours, expected", [
    (PLAIN, M("a", .7, .6, .8), ("reproduced", "")),                                            # at the very edge
    (PLAIN, M("a", .7, .6, .79), ("not reproduced", "")),
    (PLAIN, M("a", .8, .8, .8), ("reproduced", "")),
    (PLAIN, M("a", .8), ("", "no interval")),                                                   # equal to the last digit, and yet
    ("T,a,acc,0.80,0.75,0.85,,result,ham10000,95 % CI,,", M("a", .7, .6, .76), ("reproduced", "")),
    ("T,a,acc,0.80,0.75,0.85,,result,ham10000,unstated,,", M("a", .7, .6, .76), ("not reproduced", "")),
    ("T,a,acc,0.80,0.75,0.85,,result,ham10000,unstated,,", M("a", .7, .6, .81), ("reproduced", "")),
    ("T,a,fid,8,,,FID (Inception),result,ham10000,,,", M("a", 8., 7., 9., column="fid", unit="FID (skin)"), ("", "other features")),
    ("T,a,fid,8,,,FID,result,ham10000,,,", M("a", 8., 7., 9., column="fid", unit="FID (skin)"), ("", "other features")),
    ("T,a,acc,0.80,,,,result,private,,,", M("a", .8, .7, .9), ("", "other data")),
    ("T,a,fid,8,,,FID (Inception),result,private,,,", M("a", 8., column="fid", unit="FID (skin)"),
     ("", "other features and other data and no interval")),
    ("T,a,acc,12e3,,,images,setup,private,,,", M("a", 12400., unit="images"), ("same", "setup")),
    ("T,a,acc,12e3,,,images,setup,private,,,", M("a", 12600., unit="images"), ("differs", "setup")),
    ("T,b,acc,0.80,,,,result,ham10000,,,", M("a", .8, .7, .9), ("", "not run")),
])
def test_numbers(toy, save, printed, ours, expected):
    "Catches a verdict on what is not the same quantity, and each rule one by one."
    assert number(toy, save, printed, ours) == expected

def test_phantoms_are_other_data(toy, save):
    "Catches drawn images that reproduce a paper's number."
    assert number(toy, save, PLAIN, M("a", .8, .7, .9), data="phantom") == ("", "other data")

def test_runs_of_a_number(toy, save):
    "Catches a run that counts for being newest, or for being last in the alphabet."
    (toy/"published"/"cdcgan.csv").write_text(HEADER + PLAIN + "\n")
    save("b", M("a", .7, .6, .9))
    save("a", M("a", .7, .6, .75))
    assert number_verdicts("cdcgan", root=toy).verdict.tolist() == ["not reproduced", "reproduced"]
    assert number_verdicts("cdcgan", ["b"], toy).verdict.tolist() == ["reproduced"]
    row = numbers_summary(["cdcgan"], toy).iloc[0]
    assert (row["numbers"], row["reproduced"], row["not reproduced"], row["runs disagree"]) == (1, 0, 0, 1)

@pytest.mark.parametrize("contrast, message", [
    ("", "is empty"), ("paper: ", "is empty"), ("T / a / acc", "compares nothing"), ("T / a / acc>0", "compares nothing"),
    ("T / a / acc = 0", "compares nothing"), ("T / a > 0", "'T / a' is neither"), ("a > b", "'a' is neither"),
    ("T / a / acc > T / b / acc < 1", "both < and >"), ("1 > 0", "names no stored number"),
    ("T / a / acc > 0 and T / b", "'T / b' compares nothing"), ("-2 * T / a / acc > 0", "is neither"),
    ("T / a / acc > 0 and ", "is neither"), ("T / a / b / acc > 0", "is neither"), ("T / a / acc > nan", "is neither"),
])
def test_contrast_refuses(contrast, message):
    "Catches a contrast that would be read as something else; the message names the claim."
    with pytest.raises(ValueError, match="claim cdcgan/c: ") as caught: parse_contrast(contrast, "cdcgan/c")
    assert message in str(caught.value)

def test_contrast():
    "Catches a chain of which only the ends are compared, a sign that is lost, and a name that holds ' and '."
    last = "Real skin and lesion / c / z > 100 * D / d / w"
    of_paper, pairs = parse_contrast(f"paper: A / a / x < B / b / y < .5 and {last}")
    assert of_paper and [p.text for p in pairs] == ["A / a / x < B / b / y", "B / b / y < .5", last]
    assert (pairs[0].larger.key, pairs[0].smaller.key) == (("B", "b", "y"), ("A", "a", "x"))
    assert (pairs[1].larger.factor, pairs[2].larger.key[0], pairs[2].smaller.factor) == (.5, "Real skin and lesion", 100)

@pytest.mark.parametrize("contrast, unit, expected", [
    ("T / a / acc > T / b / acc", "seeds", ("supported", "")),
    ("T / a / acc < T / b / acc", "seeds", ("contradicted", "")),
    ("T / a / acc > T / c / acc", "seeds", ("undecided", "no difference below 0.21 could be seen")),
    ("T / a / acc > T / b / acc and T / a / acc > T / c / acc", "seeds", ("undecided", "no difference below 0.21 could be seen")),
    ("T / a / acc > T / c / acc and T / b / acc > T / a / acc", "seeds", ("contradicted", "but T / b / acc < T / a / acc")),
    ("T / b / acc < T / a / acc < 0.9", "seeds", ("supported", "")),
    ("T / b / acc < T / a / acc < 0.7", "seeds", ("contradicted", "but T / a / acc > 0.7")),
    ("100 * T / a / acc > 70", "seeds", ("supported", "")),
    ("T / a / acc > T / d / acc", "seeds", ("undecided", "no interval")),
    ("T / a / acc > T / e / acc", "seeds", ("undecided", "one training: repeated over images only")),
    ("T / a / acc < T / e / acc", "seeds", ("undecided", "one training: repeated over images only")),  # nor can it be contradicted
    ("T / a / acc > T / e / acc", "images", ("supported", "")),
    ("T / a / acc > T / s / acc", "seeds", ("undecided", "repeated over subjects only, not over seeds")),
    ("T / a / acc > T / b / acc", "subjects", ("undecided", "repeated over seeds only, not over subjects")),
    ("T / h / acc > 0", "seeds", ("supported", "")),
    ("T / h / acc > 0", "subjects", ("supported", "")),
    ("T / z / acc > 0", "seeds", ("not run", "no run has its numbers")),
    ("T / a / acc > T / z / acc", "seeds", ("not run", "no run has its numbers")),
    ("", "seeds", ("not run", "")),
])
def test_claims(toy, save, contrast, unit, expected):
    "Catches each verdict and each reason gone wrong."
    save("first", M("a", .8, .75, .85), M("b", .6, .55, .65), M("c", .7, .5, .9), M("d", .1), M("e", .1, .09, .11, "images"),
         M("s", .1, .09, .11, "subjects"), M("h", .1, .09, .11, "seeds and subjects"))
    assert verdict(toy, contrast, unit) == expected

def test_not_testable(toy, save):
    "Catches a verdict on what cannot be tested here, whatever is stored."
    save("first", M("a", .8, .75, .85))
    assert verdict(toy, "T / a / acc > 0", testable="no", why="needs readers") == ("not testable here", "needs readers")

def test_difference_faces():
    "Catches the halves of the intervals that do not face each other, which make skewed intervals decide too much or too little."
    d, low, high = difference_interval((1., .9, 9.), (0., -9., .1))
    assert (d, low) == (1, pytest.approx(1 - .02**.5)) and high == pytest.approx(1 + (8**2 + 9**2)**.5)

def test_paired_difference(toy, save):
    "Catches a stored difference without interval that is thrown away although its test is stored, and one that decides without a test."
    t = paired_test([.5, .62, .71, .4], [.45, .5, .6, .42])
    difference = M("a - b", t["difference"], column="difference", over="subjects", n=4)
    save("first", difference, M("a - b", t["p"], column="p", n=4))
    claim(toy, "T / a - b / difference > 0", "subjects")
    got = contrast_table("cdcgan", "c", "first", toy).iloc[0]
    assert (got.low, got.high) == (pytest.approx(t["low"]), pytest.approx(t["high"])) and got.verdict == "open"
    save("second", difference)
    assert claim_verdicts("cdcgan", ["second"], toy).why.tolist() == ["no interval"]

@pytest.mark.parametrize("p, expected", [(.049, "supported"), (.051, "undecided"), (0., "undecided"), (1., "undecided")])
def test_p_decides_at_5_per_cent(toy, save, p, expected):
    "Catches an interval from p of another level; a p of 0 or 1 implies none."
    save("first", M("a - b", .1, column="difference", over="subjects", n=9), M("a - b", p, column="p", n=9))
    assert verdict(toy, "T / a - b / difference > 0", "subjects")[0] == expected

@pytest.mark.parametrize("order", list(itertools.permutations(("good", "bad", "wide"))))
def test_order_of_runs(toy, save, order):
    "Catches a verdict that depends on which run came last."
    of = dict(good=M("a", .8, .75, .85), bad=M("a", .2, .15, .25), wide=M("a", .6, .3, .9))
    for i, kind in enumerate(order): save(f"run{i}", of[kind])
    got = verdict(toy, "T / a / acc > 0.5")
    assert got == ("undecided", f"runs disagree: supported by run{order.index('good')}, contradicted by run{order.index('bad')}")

@pytest.mark.parametrize("kinds, expected", [(("good", "wide"), "supported"), (("bad", "wide"), "contradicted"),
                                             (("wide", "wide"), "undecided"), (("good", "none"), "supported")])
def test_several_runs(toy, save, kinds, expected):
    "Catches an undecided run that outvotes one that decides, and a run without the numbers that counts."
    of = dict(good=M("a", .8, .75, .85), bad=M("a", .2, .15, .25), wide=M("a", .6, .3, .9), none=M("b", .1))
    for i, kind in enumerate(kinds): save(f"run{i}", of[kind])
    assert verdict(toy, "T / a / acc > 0.5")[0] == expected

@pytest.mark.parametrize("contrast, expected", [
    ("paper: T / a / acc > T / b / acc", "supported"), ("paper: T / b / acc > T / a / acc", "contradicted"),
    ("paper: T / a / acc > T / c / acc", "undecided"),  # equal as printed
    ("paper: T / d / acc > T / b / acc", "undecided"),  # the paper's own intervals overlap too far
    ("paper: T / e / acc > T / b / acc", "supported"),  # a ± without meaning is none
])
def test_arithmetic(toy, contrast, expected):
    "Catches printed numbers that are compared with ours, or by intervals that the paper does not explain."
    rows = ["a,acc,0.9,,,,result,x,,,", "b,acc,0.8,,,,result,x,,,", "c,acc,0.9,,,,result,x,,,", "d,acc,0.9,0.7,1,,result,x,95 % CI,,",
            "e,acc,0.9,0.7,1,,result,x,unstated,,"]
    (toy/"published"/"cdcgan.csv").write_text(HEADER + "".join(f"T,{r}\n" for r in rows))
    assert verdict(toy, contrast, "", testable="paper")[0] == expected
    assert claim_verdicts("cdcgan", root=toy).run.tolist() == ["the paper itself"]

def test_arithmetic_of_unprinted(toy):
    "Catches a misspelt name of a printed number."
    claim(toy, "paper: T / a / acc > 0", "", testable="paper")
    with pytest.raises(ValueError, match="claim cdcgan/c: the paper prints no T / a / acc"): claim_verdicts("cdcgan", root=toy)

def test_units_of_repetition():
    "Catches images that count as trainings."
    met = {unit: [over for over in (*OVER, "") if is_met(unit, over)] for unit in OVER[:3]}
    assert met == dict(seeds=["seeds", "seeds and subjects"], subjects=["subjects", "seeds and subjects"], images=list(OVER))

def test_texts(toy, save):
    "Catches numbers in a cell that cannot be told apart, and the paper's own under ours."
    (toy/"published"/"cdcgan.csv").write_text(HEADER + "T,a,acc,80.0,,,%,result,x,,,\nT,b,acc,60,,,%,result,x,,,\n")
    save("first", M("a", 70., 60., 80., unit="%"), M("b", 50., 45., 55., unit="%"))
    claim(toy, "T / a / acc > T / b / acc > 40")
    row = claim_verdicts("cdcgan", root=toy).iloc[0]
    assert (row.paper, row.ours) == ("a 80.0, b 60 % against 40", "a 70 [60, 80], b 50 [45, 55] % against 40")

# the real ledger

def test_nothing_reproduced_that_is_not_the_same():
    "Catches a number counted as reproduced that has other features, other data or no interval of ours: read from the files themselves."
    n = 0
    for paper in PAPERS:
        printed = {(p["table"], p["row"], p["column"]): p for p in published(paper).to_dict("records")}
        for row in number_verdicts(paper).itertuples():
            if row.verdict not in ("reproduced", "not reproduced"): continue
            key = (row.table, row.row, row.column)
            p, stored = printed[key], json.loads((ledger_dir()/"results"/paper/row.run/"metrics.json").read_text(encoding="utf-8"))
            m, = (m for m in stored["metrics"] if (m["table"], m["row"], m["column"]) == key)
            assert p["kind"] == "result" and m["unit"] == p["unit"] and stored["data"]["name"] == p["data"], row
            assert m["low"] is not None and m["high"] is not None and m["over"], row
            inside = m["low"] <= p["value"] <= m["high"]
            assert (row.verdict == "reproduced") == inside or p["interval"] not in ("", "unstated"), row
            n += 1
    assert n, "nothing has a verdict: the test has looked at nothing"

def test_every_number_is_accounted_for():
    "Catches a number that is in no column of the summary."
    for r in numbers_summary().to_dict("records"):
        assert r["numbers"] + r["setup"] == len(published(r["paper"]))
        assert r["numbers"] == r["reproduced"] + r["not reproduced"] + r["runs disagree"] + r["no verdict"]
    for r in claims_summary().to_dict("records"): assert r["claims"] == len(claims(r["paper"])) == sum(r[v] for v in VERDICTS)

@pytest.mark.parametrize("paper", PAPERS)
def test_contrasts_of_the_ledger(paper):
    "Catches a contrast that cannot be read, and a name in it that no run has stored: a claim would stay 'not run' for a misspelling."
    stored = [set(run_numbers(paper, run)) for run in runs(paper)]
    for c in claims(paper).itertuples():
        if not c.contrast: continue
        of_paper, pairs = parse_contrast(c.contrast, f"{paper}/{c.id}")
        needed = {t.key for pair in pairs for t in pair.terms if t.key}
        assert of_paper or any(needed <= have for have in stored), f"{paper}/{c.id}: no run has all of {sorted(needed)}; leave it empty"

@pytest.mark.parametrize("paper", PAPERS)
def test_decided_claims_have_their_repetition(paper):
    "Catches a claim on a method that one training decides: read from the files."
    units = claims(paper).set_index("id")
    for row in claim_verdicts(paper).itertuples():
        if row.verdict not in ("supported", "contradicted") or row.run == "the paper itself": continue
        stored = run_numbers(paper, row.run)
        pairs = contrast_table(paper, row.id, row.run)
        decisive = pairs[pairs.verdict == ("holds" if row.verdict == "supported" else "fails")]
        assert len(decisive) and ((decisive.low > 0) | (decisive.high < 0)).all()
        for pair in parse_contrast(units.contrast[row.id])[1]:
            if pair.text not in set(decisive.comparison): continue
            assert all(units.unit[row.id] in stored[t.key]["over"] or units.unit[row.id] == "images" for t in pair.terms if t.key), row

@pytest.mark.parametrize("paper, run", [(p, r) for p in PAPERS for r in runs(p)])
def test_stored_p_and_intervals_agree(paper, run):
    "Catches a stored p of a paired test that contradicts the interval stored beside it."
    numbers = run_numbers(paper, run)
    for (table, row, column), m in numbers.items():
        p = numbers.get((table, row, "p"))
        if column != "difference" or p is None or m["low"] is None: continue
        t = m["value"]/((m["high"] - m["low"])/2/stats.t.ppf(.975, m["n"] - 1))
        assert 2*stats.t.sf(abs(t), m["n"] - 1) == pytest.approx(p["value"], rel=1e-3), (table, row)

def test_reasons():
    "Catches a claim that is undecided for no reason."
    for paper in PAPERS: assert undecided_reasons(paper).sum() == (paper_claims(paper).verdict == "undecided").sum()
    assert isinstance(paper_claims("cdcgan"), pd.DataFrame) and read_results("cdcgan", runs("cdcgan")[0])["paper"] == "cdcgan"
