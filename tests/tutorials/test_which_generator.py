"What the race's notebook is told: its cell says what the class says, and nonsense is refused by name."
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medgan.analysis.race import standings
from medgan.core.checks import ParameterError
from medgan.report.record import Record
from medgan.training.parameters import parameters_cell
from medgan.tutorials.which_generator import METHODS, RaceStudy, race_metrics, stored_race

NOTEBOOK = Path(__file__).parents[2]/"nbs/tutorials/00_which_generator.ipynb"

def test_parameters_cell():
    "Catches a default, or a description, that the notebook and the class give differently."
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    cell, = (c for c in cells if "parameters" in c["metadata"].get("tags", []))
    assert "".join(cell["source"]) == parameters_cell(RaceStudy)

@pytest.mark.parametrize("methods", ["", " ", "diffusion", "cdcgan cdcgan", "cdcgan,stylegan2_ada", "CDCGAN"])
def test_unknown_methods(methods):
    "Catches a method that nobody knows, found after the others have been trained."
    with pytest.raises(ParameterError, match="must be some of cdcgan, stylegan2_ada, projected_gan"): RaceStudy(methods=methods)

def test_methods_as_given():
    "Catches blanks that matter."
    assert RaceStudy(methods="  projected_gan   cdcgan ").methods == "projected_gan cdcgan" and RaceStudy().methods.split() == list(METHODS)

@pytest.mark.parametrize("wrong", [dict(minutes=0), dict(minutes=float("nan")), dict(n_marks=0), dict(n_seeds=0), dict(n_images=99),
                                   dict(size=48), dict(data="ham1000"), dict(results="a/b")])
def test_nonsense(wrong):
    "Catches a race that could not begin, or not end."
    name, = wrong
    with pytest.raises(ParameterError, match=f"{name}="): RaceStudy(**wrong)

def test_a_race_comes_back_from_the_ledger(tmp_path):
    "Catches numbers of one training that stand under another's name, and a race that other tables of the run disturb."
    (tmp_path/"published").mkdir()
    of = dict(kimg=1.5, low=np.nan, high=np.nan, floor=.5, ceiling=900.)
    judged = pd.DataFrame([dict(contestant=c, seed=s, mark=m, features=f, metric=k, value=float(100*s + m/60 + i)) | of
                           for c in METHODS for s in (0, 12) for m in (1200., 13333.3) for f in ("CNN, ImageNet, 64 px", "random")
                           for i, k in enumerate(("fid", "kid"))])
    record = Record("race", {}, [0, 12], dict(name="toy", size=32, n=9, fingerprint="0"))
    record.add(race_metrics(judged))
    record.number("facts, cdcgan", "sharpness", "value", 3.)
    record.write("toy", root=tmp_path)
    back = stored_race("toy", tmp_path)
    order = ["contestant", "seed", "mark", "features", "metric"]
    pd.testing.assert_frame_equal(back.sort_values(order, ignore_index=True), judged.sort_values(order, ignore_index=True), check_like=True)
    assert set(standings(back).n) == {2}
