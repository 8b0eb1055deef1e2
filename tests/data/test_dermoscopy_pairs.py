"MILK10k, derm7pt and PH2 in the layouts of their publishers: pairs of images, official splits, tables that are no CSV."
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_sets import jpeg, labelled, refused

from medgan.data.dermoscopy import MILK10K_CLASSES, PH2_CLASSES
from medgan.data.images import load_data

# ---- MILK10k

def milk(folder, n=4):
    "Lesions with a clinical and a dermoscopic image each, in folders of their own; metadata in no order."
    rng, rows = np.random.default_rng(1), []
    for i in range(n):
        place = folder/"MILK10k_Training_Input"/f"IL_{i:07d}"
        place.mkdir(parents=True)
        for k, kind in enumerate(("clinical: close-up", "dermoscopic")):
            rows.append((f"IL_{i:07d}", kind, f"ISIC_{2*i + (k + i) % 2:07d}", 5*i, 3))
            (place/f"{rows[-1][2]}.jpg").write_bytes(jpeg(rng))
    table = pd.DataFrame(rows, columns=["lesion_id", "image_type", "isic_id", "age_approx", "skin_tone_class"]).iloc[rng.permutation(2*n)]
    table.to_csv(folder/"MILK10k_Training_Metadata.csv", index=False)
    truth = pd.DataFrame(dict(lesion_id=[f"IL_{i:07d}" for i in range(n)]))
    for k, name in enumerate(MILK10K_CLASSES): truth[name.upper()] = [float((7 + i) % 11 == k) for i in range(n)]
    truth.to_csv(folder/"MILK10k_Training_GroundTruth.csv", index=False)
    return folder

def edit(path, change):
    "A CSV, changed."
    change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)

def test_milk(tmp_path, cache):
    "Catches the other view, a diagnosis of another lesion, a partner that is the image itself, and a pair that parts."
    folder = milk(tmp_path/"milk10k")
    derm, clinic, both = (load_data("milk10k", str(tmp_path), size=16, view=view) for view in ("dermoscopic", "clinical", "both"))
    assert derm.classes == MILK10K_CLASSES and (len(derm), len(clinic), len(both)) == (4, 4, 8)
    table = both.table.set_index("id")
    assert set(derm.table.id) == set(table.index[table["view"] == "dermoscopic"]) == set(clinic.table.partner)
    for name, row in table.iterrows():
        assert table.group[row.partner] == row.group == "milk10k/" + next(folder.rglob(f"{name}.jpg")).parent.name
        assert table.partner[row.partner] == name and table["view"][row.partner] != row["view"]
        assert row.dx == MILK10K_CLASSES[(7 + int(row.group[-1])) % 11]
    by_name = dict(zip(both.table.id, both.images))
    assert all(np.array_equal(pixels, by_name[name]) for name, pixels in zip(derm.table.id, derm.images))

@pytest.mark.parametrize("file, change, message", [
    ("Metadata", lambda t: t[~((t.lesion_id == "IL_0000002") & (t.image_type == "dermoscopic"))],
     "milk10k: IL_0000002 has 0 dermoscopic and 1 clinical images, one of each is needed (1 of 4 cases are no pairs)"),
    ("Metadata", lambda t: t.assign(image_type=t.image_type.where(t.lesion_id != "IL_0000001", "dermoscopic")),
     "IL_0000001 has 2 dermoscopic and 0 clinical images"),
    ("Metadata", lambda t: t.assign(image_type=t.image_type.str.replace("clinical: close-up", "overview")), "image_type is 'overview'"),
    ("Metadata", lambda t: t.drop(columns="lesion_id"), "column lesion_id is missing"),
    ("GroundTruth", lambda t: t[:3], "IL_0000003 stands not in MILK10k_Training_GroundTruth.csv"),
    ("GroundTruth", lambda t: t.assign(NV="1.0"), "has 2 diagnoses, one is allowed"),
    ("GroundTruth", lambda t: t.drop(columns="SCCKA"), "column SCCKA is missing")], ids=range(7))
def test_bad_milk(tmp_path, cache, file, change, message):
    "Catches a lesion without its partner, kinds of images that are not known, and lesions with no diagnosis or several."
    folder = milk(tmp_path/"milk10k")
    edit(folder/f"MILK10k_Training_{file}.csv", change)
    with refused(cache, message): load_data("milk10k", str(tmp_path), size=16)

def test_milk_without_images(tmp_path, cache):
    "Catches the wrong view misspelt, and images that are not there."
    folder = milk(tmp_path/"milk10k")
    with refused(cache, "milk10k: view='derm'", "'dermoscopic', 'clinical', 'both'"):
        load_data("milk10k", str(tmp_path), size=16, view="derm")
    for path in (folder/"MILK10k_Training_Input"/"IL_0000000").iterdir(): path.unlink()
    with refused(cache, "milk10k: 1 of 4 images are missing"): load_data("milk10k", str(tmp_path), size=16)

def test_milk_parts(tmp_path, cache):
    "Catches a partner by position, and a lesion that is known by two names because its images lie in two folders."
    labelled(tmp_path/"milk10k_derm", ids=["a", "b", "c", "d"], group=["g1", "g2", "g3", "g4"], ham_overlap=[0, 1, 2, 0])
    assert "partner" not in load_data("milk10k_derm", str(tmp_path), size=16).table
    labelled(tmp_path/"milk10k_clinic", ids=["p", "q", "r", "s"], group=["g4", "g3", "g2", "g1"])
    derm, clinic = (load_data(f"milk10k_{view}", str(tmp_path), size=16) for view in ("derm", "clinic"))
    assert derm.table.partner.tolist() == ["s", "r", "q", "p"] and set(derm.table.group) == set(clinic.table.group)
    assert derm.table.ham_overlap.tolist() == [0, 1, 2, 0]
    assert set(derm.table["view"]) == {"dermoscopic"} and set(clinic.table["view"]) == {"clinical"}
    edit(tmp_path/"milk10k_clinic"/"labels.csv", lambda t: t[1:])
    with refused(tmp_path/"empty", "milk10k_derm: g4 has no image in", "1 of 4 lesions"): load_data("milk10k_derm", str(tmp_path), size=16)

# ---- derm7pt

def derm7pt(folder, n=6):
    "Cases with both images, in folders of letters; endings in capitals here and there. The last two share their clinical image."
    rng, rows = np.random.default_rng(1), []
    for i in range(n):
        rows.append(dict(case_num=i + 1, diagnosis=("Clark nevus", "melanoma (in situ)")[i % 2], seven_point_score=i,
                         clinic=f"NEL/NEL{10 + i:03d}.JPG", derm=f"F{'AB'[i % 2]}L/Fal{i:03d}.jpg", case_id="", notes=""))
    rows[-1]["clinic"] = rows[-2]["clinic"]
    for name in {row[c] for row in rows for c in ("derm", "clinic")}:
        (path := folder/"images"/name).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(rng))
    (folder/"meta").mkdir()
    pd.DataFrame(rows).to_csv(folder/"meta"/"meta.csv", index=False)
    for part, places in (("train", (0, 3, 4)), ("valid", (1,)), ("test", (2, 5))):
        pd.DataFrame(dict(indexes=places)).to_csv(folder/"meta"/f"{part}_indexes.csv", index=False)
    return folder

def test_derm7pt(tmp_path, cache):
    "Catches an official split counted from 1, the clinical image for the dermoscopic one, and cases of one image that part."
    derm7pt(tmp_path/"derm7pt")
    data = load_data("derm7pt", str(tmp_path), size=16)
    by_case = data.table.set_index("case_num")
    assert by_case.id.to_dict() == {str(i + 1): f"F{'AB'[i % 2]}L/Fal{i:03d}" for i in range(6)}
    assert by_case.official.to_dict() == {"1": "train", "2": "valid", "3": "test", "4": "train", "5": "train", "6": "test"}
    assert by_case.dx["1"] == "clark nevus" and by_case.partner["2"] == "NEL/NEL011" and by_case.seven_point_score["6"] == 5
    assert by_case.group["5"] == by_case.group["6"] == "derm7pt/5" and data.table.group.nunique() == 5
    for row in data.table.itertuples(): assert row.image.endswith(f"images/{row.derm}")

def test_derm7pt_clinical(tmp_path, cache):
    "Catches an image that stands there twice, or goes without a word, where two cases share it."
    derm7pt(tmp_path/"derm7pt")
    with pytest.warns(UserWarning, match="1 images are listed for several cases, such as NEL/NEL014; each is taken once") as caught:
        data = load_data("derm7pt", str(tmp_path), size=16, view="clinical")
    assert len(data) == 5 and set(data.table["view"]) == {"clinical"} and caught[0].filename == __file__
    with pytest.warns(UserWarning): both = load_data("derm7pt", str(tmp_path), size=16, view="both")
    assert len(both) == 11 and both.table.group.nunique() == 5
    partner = both.table.set_index("id").partner
    assert all(partner[partner[name]] == name for name in partner.index if name != "FBL/Fal005")

@pytest.mark.parametrize("file, change, message", [
    ("meta", lambda t: t.assign(derm=t.derm.where(t.case_num != "3")), "meta.csv: derm is empty in line 4"),
    ("meta", lambda t: t.assign(clinic=t.clinic.where(t.case_num != "3")), "meta.csv: clinic is empty in line 4"),
    ("meta", lambda t: t.drop(columns="clinic"), "column clinic is missing"),
    ("meta", lambda t: t.assign(derm=t.derm.replace("FAL/Fal002.jpg", "FAL/Fal092.jpg")), "derm7pt: 1 of 6 images are missing"),
    ("test_indexes", lambda t: t.assign(indexes=["2", "6"]), "there is no row 6; meta.csv has 6"),
    ("test_indexes", lambda t: t.assign(indexes=["2", "3"]), "row 3 is of the part train too"),
    ("valid_indexes", lambda t: t.assign(indexes="x"), "indexes is 'x' in line 2; a number is needed")], ids=range(7))
def test_bad_derm7pt(tmp_path, cache, file, change, message):
    "Catches a case without its partner, images that are not there, and a case in two official parts."
    folder = derm7pt(tmp_path/"derm7pt")
    edit(folder/"meta"/f"{file}.csv", change)
    with refused(cache, message): load_data("derm7pt", str(tmp_path), size=16)

def test_derm7pt_without_a_part(tmp_path, cache):
    "Catches an official split whose file was forgotten."
    (derm7pt(tmp_path/"derm7pt")/"meta"/"valid_indexes.csv").unlink()
    with refused(cache, "valid_indexes.csv is not there"): load_data("derm7pt", str(tmp_path), size=16)

# ---- PH2

def ph2(folder, diagnoses=(0, 1, 2, 0)):
    "The text table and bitmaps, each image in folders of its own."
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    lines = ["||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network | Dots/Globules ||   Colors ||"]
    for i, code in enumerate(diagnoses):
        name = f"IMD{3 + i:03d}"
        histology = "Melanoma" if code == 2 else ""
        lines.append(f"|| {name} ||  {histology:20} ||                  {code} ||         0 |           T |        AT ||     3  4 ||")
        image, mask = np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40), bool)
        mask[5:10 + i, 10:20] = True
        image[...], image[mask] = rng.integers(100, 200, 3), 40*code
        for kind, ending, pixels in (("Dermoscopic_Image", "", image), ("lesion", "_lesion", mask), ("roi", "_R1", ~mask)):
            (place := folder/"PH2 Dataset images"/name/f"{name}_{kind}").mkdir(parents=True)
            Image.fromarray(pixels).save(place/f"{name}{ending}.bmp")
    (folder/"PH2_dataset.txt").write_text("\n".join([*lines, "", "Legends:", "Clinical diagnosis: 0 - Common Nevus; 1 - Atypical Nevus"]))
    return folder

@pytest.mark.parametrize("place", ["ph2", "ph2/PH2Dataset"])
def test_ph2(tmp_path, cache, place):
    "Catches codes of another column where a cell is empty, a region of interest for the lesion, and the legend read as a row."
    ph2(tmp_path/place)
    with pytest.warns(UserWarning, match="PH2_dataset.txt names no lesion or patient"): data = load_data("ph2", str(tmp_path), size=30)
    assert data.classes == PH2_CLASSES and data.table.id.tolist() == ["IMD003", "IMD004", "IMD005", "IMD006"]
    assert data.labels.tolist() == [0, 1, 2, 0] and data.table["Dots/Globules"].tolist() == ["AT"]*4
    for i in range(4):
        assert data.masks[i].sum() == (5 + i)*10 and (data.images[i][data.masks[i]] == 40*data.labels[i].item()).all()

@pytest.mark.parametrize("change, message", [
    (lambda text: text.replace("       2 ||", "       7 ||"), "the clinical diagnosis of IMD005 is '7'; allowed are 0 (common nevus)"),
    (lambda text: text.replace("Clinical Diagnosis", "Diagnosis"), "column Clinical Diagnosis is missing"),
    (lambda text: text.replace("AT ||     3  4 ||", "AT ||"), "IMD003 has 6 cells, the header 7"),
    (lambda text: "", "no table between double bars"),
    (lambda text: text.replace("IMD006", "IMD060"), "ph2: 1 of 4 images are missing")], ids=range(5))
def test_bad_ph2(tmp_path, cache, change, message):
    "Catches an unknown code, shifted cells and an image that is not there."
    path = ph2(tmp_path/"ph2")/"PH2_dataset.txt"
    path.write_text(change(path.read_text()))
    with refused(cache, message): load_data("ph2", str(tmp_path), size=30)

def test_ph2_without_masks(tmp_path, cache):
    "Catches an image without its mask, for which that of its region of interest would be taken."
    next(ph2(tmp_path/"ph2").rglob("IMD004_lesion.bmp")).unlink()
    with refused(cache, "ph2 (lesion masks): 1 of 4", "IMD004_lesion"): load_data("ph2", str(tmp_path), size=30)
