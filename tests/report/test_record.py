"A run's numbers, in all shapes that notebooks have them."
import numpy as np
import pandas as pd
import pytest
import torch

from medgan.report.ledger import PAPERS, read_results, run_numbers
from medgan.report.record import Record, metric, table_metrics

DATA = dict(name="phantom", size=32, n=10, fingerprint="abc")

@pytest.fixture
def toy(tmp_path):
    "An empty ledger."
    (tmp_path/"published").mkdir()
    header = "table,row,column,value,low,high,unit,kind,data,interval,reference,note\n"
    for p in PAPERS: (tmp_path/"published"/f"{p}.csv").write_text(header)
    return tmp_path

@pytest.fixture
def record(): return Record("cdcgan", dict(epochs=2, results="x", out_dir="y"), [np.int64(3)], DATA)

def short(metrics): return {(m["table"], m["row"], m["column"]): (m["value"], m["low"], m["high"]) for m in metrics}

@pytest.mark.parametrize("value", [.5, np.float32(.5), torch.tensor(.5), np.array(.5)])
def test_any_number(record, value):
    "Catches numbers of numpy and torch that JSON does not know."
    assert record.number("T", "a", "acc", value, value, value, over="seeds") is value
    assert record.metrics["T", "a", "acc"]["low"] == .5

def test_nan_is_left_out(record):
    "Catches a NaN that stops a run at its very end, and an interval with one end."
    record.number("T", "a", "acc", float("nan"), .1, .2, over="seeds")
    record.number("T", "b", "acc", .5, float("nan"), float("nan"))
    record.table("T", {"c": dict(acc=(float("nan"),)*3)}, over="seeds")
    assert list(record.metrics) == [("T", "b", "acc")] and record.metrics["T", "b", "acc"]["low"] is None

@pytest.mark.parametrize("numbers, message", [((.5, .6, .4), "above high"), ((50., .4, .6), "one unit"), ((float("inf"),), "value is inf"),
                                              ((.5, .4, .6), "repeated over")])
def test_refused_where_it_stands(record, numbers, message):
    "Catches swapped ends, per cent with the interval of a share, and an interval without its unit of repetition, in the cell that has it."
    with pytest.raises(ValueError, match=message): record.number("T", "a", "acc", *numbers)
    assert not record.metrics

def test_widened_not_silently():
    "Catches an interval that is changed without a word."
    m = metric("T", "a", "f1", .39, .4, .5, over="subjects", note="five seeds")
    assert (m["low"], m["high"], m["note"]) == (.39, .5, "five seeds; interval widened to hold its value")

def test_evaluate_shape():
    "Catches floors that land in the wrong row, and a sample size that is lost."
    frame = pd.DataFrame(dict(value=[9., .5], low=[8., np.nan], high=[10., np.nan], floor=[1., .9], n_generated=[100., np.nan]))
    frame.index = ["fid", "recall"]
    of = dict(also=["floor"], unit=dict(fid="FID (skin)"), over="images", n=7)
    by_dict, by_index = table_metrics("T", {"gan": frame}, **of), table_metrics("T", pd.concat({"gan": frame}), **of)
    assert by_dict == by_index
    assert short(by_dict) == {("T", "gan", "fid"): (9, 8, 10), ("T, floor", "gan", "fid"): (1, None, None),
                              ("T", "gan", "recall"): (.5, None, None), ("T, floor", "gan", "recall"): (.9, None, None)}
    assert [m["n"] for m in by_dict] == [100, 100, None, None] and [m["over"] for m in by_dict] == ["images", "", "", ""]

def test_columns_and_scale():
    "Catches a scale that forgets the interval, and columns that were not asked for."
    frame = pd.DataFrame(dict(detected=[.5], low=[.4], high=[.6], n=[20], confidence=[.9]), ["mel"])
    got = table_metrics("Table III", frame, "detected", unit="%", over="images", scale=100)
    assert short(got) == {("Table III", "mel", "detected"): (50, 40, 60)} and got[0]["n"] == 20
    rows = {"a": dict(fid=(5., 4., 6.), kid=1.)}
    assert list(short(table_metrics("T", rows, columns=["kid"], over="images"))) == [("T", "a", "kid")]

def test_rows_only():
    "Catches counts and series whose index are rows."
    counts = table_metrics("Sizes", pd.Series(dict(train=9, test=3)), "n")
    assert short(counts) == {("Sizes", "train", "n"): (9, None, None), ("Sizes", "test", "n"): (3, None, None)}
    assert short(table_metrics("Leak", dict(by_image=(.9, .8, 1.)), "auc", over="seeds")) == {("Leak", "by_image", "auc"): (.9, .8, 1.)}
    floors = {f"real, as {k}": pd.Series(dict(fid=1.)) for k in ("gan", "copy")}
    assert list(short(table_metrics("T", floors))) == [("T", "real, as gan", "fid"), ("T", "real, as copy", "fid")]

def test_notes_of_rows():
    "Catches a verdict of the privacy report that is not stored beside its number."
    frame = pd.DataFrame(dict(value=[.1], low=[0.], high=[.2], note=["no sign of copies"]), ["copies"])
    assert table_metrics("Privacy", frame, over="images")[0]["note"] == "no sign of copies"

def test_tests_shape():
    "Catches a p that is stored without the difference it belongs to."
    frame = pd.DataFrame(dict(difference=[.1], low=[0.], high=[.2], p=[.04], p_holm=[.1]), ["paired against CycleGAN"])
    got = short(table_metrics("Tests", frame, "difference", also=["p", "p_holm"], over="subjects"))
    assert [k[2] for k in got] == ["difference", "p", "p_holm"] and list(got.values()) == [(.1, 0, .2), (.04, None, None), (.1, None, None)]

def test_twice_in_one_table():
    "Catches two rows of one name, of which one would be lost."
    with pytest.raises(ValueError, match="twice the same number"): table_metrics("T", pd.DataFrame(dict(value=[1., 2.]), ["a", "a"]))

def test_write(record, toy, capsys):
    "Catches a run that is stored without a name, and one whose name is told nowhere."
    record.table("T", {"a": dict(acc=(.5, .4, .6))}, over="seeds")
    record.write("", toy)
    assert "not stored" in capsys.readouterr().out and not (toy/"results").exists()
    record.write("first", toy, device="GPU")
    assert "data/results/cdcgan/first" in capsys.readouterr().out
    stored = read_results("cdcgan", "first", toy)
    assert (stored["parameters"], stored["seeds"], stored["device"]) == (dict(epochs=2), [3], "GPU")
    assert len(run_numbers("cdcgan", "first", toy)) == 1

def test_pictures(record, toy):
    "Catches a picture without its caption, and a name that leads out of the folder."
    import matplotlib.pyplot as plt
    fig, _ = plt.subplots(figsize=(1, 1))
    assert record.picture("fig_a.png", fig, "A.")._repr_png_()[:4] == b"\x89PNG" and not plt.fignum_exists(fig.number)
    record.write("first", toy)
    assert read_results("cdcgan", "first", toy)["captions"] == {"fig_a.png": "A."} and (toy/"results"/"cdcgan"/"first"/"fig_a.png").exists()
    for name in ("../a.png", "a.svg", "a", ""):
        with pytest.raises(ValueError, match="file name"): record.picture(name, fig)
