"Answers of a reader study are read strictly and scored as by hand."
import numpy as np
import pandas as pd
import pytest
from reader_study_cases import CLASSES, items_of, value, write_answers
from sklearn.metrics import cohen_kappa_score

from medgan.analysis.reader_study import (
    EVERY,
    agreement,
    guessing_test,
    plot_readers,
    rate_difference,
    read_answers,
    score_readers,
    share_difference,
    study_page,
)
from medgan.core.checks import ParameterError
from medgan.core.statistics import bootstrap_interval, wilson_interval

# ---- answers that are refused

def test_refused_answers(tmp_path, real, generated):
    "Catches files of another study, damaged by a spreadsheet, half filled or given twice."
    key = study_page(tmp_path/"a.html", real, generated, n=2)
    other = study_page(tmp_path/"b.html", real, generated, n=2, seed=1)
    good, table = write_answers(key, "Ada"), pd.read_csv(write_answers(key, "Ada"), dtype=str)
    def refused(words, change=None, name="bad.csv", text=None):
        path = tmp_path/name
        if text is None: change(table.copy()).to_csv(path, index=False)
        else: path.write_text(text)
        with pytest.raises(ValueError, match=words): read_answers([path], key)
    refused("columns missing: ms; a file of answers has study, reader, item, answer, ms", lambda t: t.drop(columns="ms"))
    refused("1 of 12 rows have item: not in the key; got 'x1'", lambda t: t.assign(item=["x1", *t.item[1:]]))
    refused("12 of 12 rows have answer: must be 'yes' or 'no'; got 'maybe'", lambda t: t.assign(answer="maybe"))
    refused("1 of 12 rows have item: answered twice", lambda t: t.assign(item=[t.item[1], *t.item[1:]]))
    refused("reader 'Ada' answered 11 of 12 items; complete=False accepts that", lambda t: t[1:])
    refused("rows have study: must be", lambda t: t.assign(study="s0"))
    refused("rows have reader: must be a name; got ' '", lambda t: t.assign(reader=" "))
    refused("rows have ms: must be a number from 0; got '-3'", lambda t: t.assign(ms=-3))
    refused("rows have ms: must be a number from 0; got ''", lambda t: t.assign(ms=""))
    refused("no answers", lambda t: t[:0])
    refused("bad.csv is no file of answers", text="")
    refused("bad.json is no file of answers", name="bad.json", text="{}")
    refused("bad.json is no file of answers", name="bad.json", text="[1")
    refused("bad.txt: answers are .csv or .json", name="bad.txt", text="")
    with pytest.raises(ValueError, match="reader 'Ada' stands already in Ada.csv"): read_answers([good, good], key)
    with pytest.raises(ValueError, match="rows have study: must be"): read_answers(write_answers(other, "Bob"), key)
    with pytest.raises(ValueError, match="paths is empty"): read_answers([], key)
    with pytest.raises(ValueError, match="Ada.csv is no key file"): read_answers(good, good)
    with pytest.raises(ValueError, match="bad.json is no key file of a study: study, design, items missing"):
        (tmp_path/"bad.json").write_text("{}")
        read_answers(good, tmp_path/"bad.json")
    with pytest.raises(FileNotFoundError): read_answers(tmp_path/"none.csv", key)
    table[1:].to_csv(tmp_path/"part.csv", index=False)
    assert len(read_answers(tmp_path/"part.csv", key, complete=False)) == 11

# ---- scoring

@pytest.fixture(scope="module")
def panel(tmp_path_factory, real, generated):
    "Six readers of 72 images: r0 always right, r1 always wrong, r2 says yes to all, the others guess."
    key = study_page(tmp_path_factory.mktemp("panel")/"a.html", real, generated, n=12)
    rng = np.random.default_rng(0)
    flip = dict(yes="no", no="yes")
    rules = [None, lambda item, t: flip[t], lambda item, t: "yes"] + [lambda item, t: rng.choice(["yes", "no"])]*3
    return read_answers([write_answers(key, f"r{i}", rule) for i, rule in enumerate(rules)], key)

def test_rates_of_known_readers(panel):
    "Catches TPR and FPR swapped, a rate over the wrong images, and an interval of another kind."
    scores = score_readers(panel)
    for reader, rates in dict(r0=(1, 0, 1), r1=(0, 1, 0), r2=(1, 1, .5)).items():
        assert tuple(value(scores, m, reader)["value"] for m in ("TPR", "FPR", "accuracy")) == rates
    row = value(scores, "TPR", "r0", "mel")
    assert (row.k, row.n, row.interval) == (12, 12, "Wilson") and (row.low, row.high) == wilson_interval(12, 12)
    yes = panel[panel.kind == "real"]
    row = value(scores, "TPR", EVERY["reader"])
    assert row.k == yes.yes.sum() and row.n == 6*36 and row["value"] == pytest.approx(yes.yes.mean())
    whole = bootstrap_interval(yes.yes.to_numpy(float), groups=yes.reader.to_numpy())
    assert (row.low, row.high) == pytest.approx(whole[1:]) and row.interval == "bootstrap, 6 readers"
    over_items = value(score_readers(panel, unit="item"), "TPR", EVERY["reader"])
    assert over_items.interval == "bootstrap, 36 items" and over_items.high - over_items.low < row.high - row.low
    assert set(scores.measure) == {"TPR", "FPR", "accuracy"} and len(scores) == 3*(1 + 6)*(1 + 3)
    with pytest.raises(ParameterError, match="unit='image': must be one of 'reader', 'item'"):
        score_readers(panel, unit="image")

def test_few_readers_get_no_interval(panel):
    "Catches a bootstrap over two readers."
    row = value(score_readers(panel[panel.reader.isin(["r0", "r3"])]), "TPR", EVERY["reader"])
    assert np.isnan(row.low) and row.interval == "2 readers: too few"

def test_recall_of_real_and_generated_apart(tmp_path, real, generated):
    "Catches recalls that mix the kinds, and a condition taken from the image instead of the question."
    key = study_page(tmp_path/"a.html", real, generated, design="condition", n=4)
    items = items_of(key)
    says_yes_to_real = write_answers(key, "r", lambda item, t: "yes" if items.kind[item] == "real" else "no")
    scores = score_readers(read_answers(says_yes_to_real, key))
    rates = {m: value(scores, m, "r")["value"] for m in scores.measure.unique()}
    assert rates == {"recall, real": 1, "recall, generated": 0, "FPR, real": 1, "FPR, generated": 0, "accuracy": .5}
    sees_mel = write_answers(key, "s", lambda item, t: "yes" if items.asked[item] == "mel" else "no")
    scores = score_readers(read_answers(sees_mel, key))
    assert [value(scores, "FPR, real", "s", c)["value"] for c in CLASSES] == [0, 1, 0]
    assert [value(scores, "recall, generated", "s", c).n for c in CLASSES] == [4]*3

def test_guessing(panel):
    "Catches a one-sided test, and the number of readers forgotten."
    table = guessing_test(panel)
    assert table.p["r0"] == pytest.approx(2*.5**72) and table.p["r1"] == pytest.approx(table.p["r0"]) and table.p["r2"] == 1
    assert table.p_holm["r0"] == pytest.approx(6*table.p["r0"])
    assert table.accuracy["r2"] == .5 and (table.low["r2"], table.high["r2"]) == wilson_interval(36, 72)

def test_rate_difference_by_hand():
    "Catches rates that are not paired by reader. Differences of 1 and .5: mean .75, t = 3, one degree of freedom."
    images = pd.DataFrame(dict(item=list("wxyz"), kind=["real"]*2 + ["generated"]*2, condition="c", asked="",
                               truth=[True, True, False, False]))
    yes = dict(a=[1, 1, 0, 0], b=[1, 1, 1, 0])
    answers = pd.concat([images.assign(reader=reader, yes=np.array(y, bool)) for reader, y in yes.items()])
    test = rate_difference(answers)
    assert (test["readers"], test["difference"]) == (2, .75)
    assert test["p"] == pytest.approx(1 - 2*np.arctan(3)/np.pi)            # Student's t with one degree of freedom is Cauchy's
    with pytest.raises(ParameterError, match="b='recall': must be one of 'TPR', 'FPR', 'accuracy'"):
        rate_difference(answers, b="recall")
    with pytest.raises(ValueError, match="1 reader.s. with both rates"): rate_difference(answers[answers.reader == "a"])

def test_agreement_of_known_readers(panel):
    "Catches kappa over the wrong axis, pairs mixed up, and a crash where all say the same."
    table = agreement(panel).set_index(["a", "b"])
    assert len(table) == 1 + 15
    assert table.kappa["r0", "r1"] == -1 and table.kappa["r0", "r2"] == 0
    wide = panel.pivot(index="item", columns="reader", values="yes")
    assert table.kappa["r3", "r4"] == pytest.approx(cohen_kappa_score(wide.r3.astype(int), wide.r4.astype(int)))
    twins = pd.concat([panel[panel.reader == "r3"].assign(reader=r) for r in "abc"])
    assert agreement(twins).kappa.tolist() == pytest.approx([1]*4)
    constant = pd.concat([panel[panel.reader == "r2"].assign(reader=r) for r in "ab"])
    assert agreement(constant).kappa.tolist() == [0, 0] and agreement(constant).same.tolist() == [1, 1]
    with pytest.raises(ValueError, match="1 reader"): agreement(panel[panel.reader == "r0"])
    partial = panel[(panel.reader != "r0") | (panel.item == panel.item.iloc[0])]
    with pytest.raises(ValueError, match="1 image"): agreement(partial)

def test_coin_tossers_do_not_agree(tmp_path):
    "Catches kappa that is not 0 by chance, and a test that finds skill where there is none."
    rng = np.random.default_rng(0)
    rows = [(f"r{r}", f"i{i}", rng.random() < .5, i < 200) for r in range(8) for i in range(400)]
    answers = pd.DataFrame(rows, columns=["reader", "item", "yes", "truth"])
    answers = answers.assign(kind=np.where(answers.truth, "real", "generated"), condition="c", asked="")
    table = agreement(answers)
    assert table.low[0] < 0 < table.high[0] and table.kappa.abs().max() < .15
    assert guessing_test(answers).p_holm.min() > .05 and rate_difference(answers)["p"] > .05

def test_share_difference_is_refused_for_impossible_counts():
    with pytest.raises(ValueError, match="k=4, n=3"): share_difference(4, 3, 1, 3)

def test_plot_has_a_bar_for_each_rate(panel):
    "Catches bars over the wrong condition."
    scores = score_readers(panel)
    ax = plot_readers(scores)
    assert [t.get_text() for t in ax.get_xticklabels()] == [EVERY["condition"], *CLASSES]
    heights = [bar.get_height() for bar in ax.patches]
    rates = [value(scores, "TPR", EVERY["reader"], c)["value"] for c in (EVERY["condition"], *CLASSES)]
    assert heights[:4] == pytest.approx(rates)
