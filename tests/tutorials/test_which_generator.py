"What the race's notebook is told: its cell says what the class says, and nonsense is refused by name."
import json
from pathlib import Path

import pytest

from medgan.core.checks import ParameterError
from medgan.training.parameters import parameters_cell
from medgan.tutorials.which_generator import METHODS, RaceStudy

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
