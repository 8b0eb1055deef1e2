"The list of all kinds of input names tests that are there; a set tells how its files were written."
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medgan.data.images import load_data
from medgan.data.inputs import how_written
from medgan.data.registry import DataError

ROOT = Path(__file__).parent.parent.parent

def test_each_kind_has_its_test():
    "Catches a kind whose test was renamed or removed, and a list that was not made anew."
    cells = json.loads((ROOT/"nbs"/"data"/"16_inputs.ipynb").read_text(encoding="utf-8"))["cells"]
    shown = "".join("".join(o.get("data", {}).get("text/markdown", [])) for c in cells for o in c.get("outputs", []))
    rows = [line for line in shown.splitlines() if line.startswith("| ") and not line.startswith("| kind |")]
    named = {row.rsplit("`", 2)[1] for row in rows}
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT/"tests"/"data").glob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)", tests, re.M))
    assert len(rows) > 100 and not named - there, named - there

@pytest.mark.filterwarnings("ignore:.*names no lesion", "ignore:.*16 bits")
def test_how_written(tmp_path, cache):
    "Catches kinds that are counted together, a first image of another kind, the report on a part that speaks of the whole."
    for dx, name, kind in (("a", "1.png", np.uint8), ("a", "2.png", np.uint16), ("b", "3.bmp", np.uint8), ("b", "4.png", np.uint8)):
        (tmp_path/"set"/dx).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16), np.iinfo(kind).max, kind)).save(tmp_path/"set"/dx/name)
    data = load_data("folder", str(tmp_path/"set"), size=16)
    told = how_written(data)
    assert told.images.to_dict() == {"PNG, 8 bits, grey": 2, "BMP, 8 bits, grey": 1, "PNG, 16 bits, grey; 65535 is shown as 255": 1}
    assert told["first"]["PNG, 8 bits, grey"] == "a/1" and told["first"]["BMP, 8 bits, grey"] == "b/3"
    assert how_written(data.select(["b"])).images.to_dict() == {"PNG, 8 bits, grey": 1, "BMP, 8 bits, grey": 1}
    with pytest.raises(DataError, match="phantom was not read from files"): how_written(load_data("phantom", size=16, n=8))
