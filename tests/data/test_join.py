"Several sets as one: classes, pixels, masks, and no lesion on two sides of any split."
import itertools
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from small_sets import ham, labelled, refused, slices, volumes

from medgan.data import registry
from medgan.data.images import load_data
from medgan.data.join import JOINT_CLASSES
from medgan.data.registry import DataError, data_spec, register
from medgan.data.sources import FileSource, Originals
from medgan.training.parameters import Study

def joined_sets(root, *names, size=16, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return load_data(f"join({', '.join(names)})", str(root), size=size, **options)

@pytest.fixture
def two(tiny_ham, cache):
    "HAM10000 and a part of MILK10k, whose first image is of HAM10000's first lesion and whose last one perhaps of its second."
    labelled(tiny_ham.parent/"milk10k_derm", ids=[f"ISIC_900000{i}" for i in range(4)], group=[f"IL_{i}" for i in range(4)],
             dx=["NV", "MEL", "BEN_OTH", "NV"], ham_match=["ISIC_0000000", "", "", "ISIC_0000103"], ham_overlap=[2, 0, 0, 1])
    return tiny_ham.parent

def test_joined(two, cache):
    "Catches images, labels or groups of one set that come under the name of another, and options that change the order."
    both, alone = joined_sets(two, "milk10k_derm", "ham10000"), ham(two/"ham10000")
    assert both.name == "join(ham10000, milk10k_derm)" and len(both) == 46
    assert both.table.id.tolist() == sorted(both.table.id) and set(both.table.set) == {"ham10000", "milk10k_derm"}
    rows = np.flatnonzero(both.table.set == "ham10000")
    assert np.array_equal(both.images[rows], alone.images) and both.table.dx[rows].tolist() == alone.table.dx.tolist()
    assert (both.table.id[rows] == "ham10000/" + alone.table.id.to_numpy()).all()
    milk = load_data("milk10k_derm", str(two), size=16, label="dx")
    rest = np.flatnonzero(both.table.set == "milk10k_derm")
    assert np.array_equal(both.images[rest], milk.images) and both.table.dx[rest].tolist() == milk.table.dx.tolist()
    assert both.classes == tuple(sorted({*alone.classes, "ben_oth"})) and both.table.ham_overlap[rest].tolist() == [2, 0, 0, 1]

def test_name_of_joined(two, cache):
    "Catches another set, prepared again, where only the names' order or blanks differ; and a notebook that refuses the name."
    one, other = joined_sets(two, "ham10000", "milk10k_derm"), load_data("join(milk10k_derm,ham10000)", str(two), size=16)
    assert one.fingerprint == other.fingerprint and len(list(cache.glob("join*"))) == 1
    assert Study(data="join(milk10k_derm,ham10000)").data == one.name

@pytest.mark.parametrize("name, message", [
    ("join(ham10000)", "at least two sets"), ("join(ham10000, ham10000)", "at least two sets"), ("join(ham10000, ham)", "data='ham'"),
    ("join(join(ham10000, lgg), soop)", "no such data set"), ("join(ham10000, phantom)", "phantom is drawn"), ("join()", "data=''")])
def test_bad_names(two, cache, name, message):
    "Catches one set twice, which would be in training and test, names that are unknown, and drawn images without files."
    with refused(cache, message): load_data(name, str(two), size=16)

# ---- classes

def test_joint_classes():
    "Catches a name with two meanings, and common names that do not keep those of HAM10000 and MILK10k."
    names = [name for joint, others in JOINT_CLASSES.items() for name in (joint, *others)]
    assert len(names) == len(set(names)) and names == [name.lower() for name in names]
    assert {*data_spec("ham10000").classes, *data_spec("milk10k").classes} - {"sccka"} <= JOINT_CLASSES.keys()

@pytest.mark.parametrize("label", ["", "dx"])
def test_diagnoses_that_are_told(two, cache, label):
    "Catches benign naevi that are no naevi because the set's class is benign, and a part's own option that changes the joint classes."
    both = joined_sets(two, "ham10000", "milk10k_derm", label=label)
    assert both.table.dx[both.table.set == "milk10k_derm"].tolist() == ["nv", "mel", "ben_oth", "nv"]

def test_diagnoses_that_are_not_told(two, cache):
    "Catches malignant images of ISIC 2020 that are refused though they are melanomas, and a benign one that becomes a naevus."
    labelled(two/"isic20_part", dx=["unknown", "melanoma", "unknown", "unknown"])
    both = joined_sets(two, "ham10000", "isic20_part")
    assert both.table.dx[both.table.set == "isic20_part"].tolist() == ["benign", "mel", "benign", "benign"]

def test_a_diagnosis_is_missing(two, cache):
    "Catches one image without a diagnosis that becomes a class of its own, in silence."
    labelled(two/"isic20_part", dx=["nevus", "melanoma", "", "nevus"])
    with pytest.warns(UserWarning, match="isic20_part: 1 of 4 images have no diagnosis and are left out .* isic20_part/img2") as caught:
        both = load_data("join(ham10000, isic20_part)", str(two), size=16)
    assert both.table.dx[both.table.set == "isic20_part"].tolist() == ["nv", "mel", "nv"] and {w.filename for w in caught} == {__file__}

def test_strangers(two, cache):
    "Catches a diagnosis that has no common class, put anywhere or dropped; and a choice of classes that does not help."
    labelled(two/"isic20_part", dx=["nevus", "melanoma", "lentigo NOS", "nevus"])
    with refused(cache, "isic20_part: 'lentigo nos' (1 images) cannot be joined", "akiec", "classes="):
        joined_sets(two, "ham10000", "isic20_part")
    both = joined_sets(two, "ham10000", "isic20_part", classes=["mel", "nv"])
    assert both.classes == ("mel", "nv") and (both.table.set == "isic20_part").sum() == 3

def test_only_strangers(tmp_path, cache):
    "Catches an empty set, where all images are left out for want of a common class."
    for name in ("milk10k_derm", "pad_ufes20_part"): labelled(tmp_path/name, dx=["WART", "SCAR", "WART", "WART"])
    with refused(cache, "milk10k_derm: no image has one of the common classes (mel, nv,"):
        joined_sets(tmp_path, "milk10k_derm", "pad_ufes20_part", label="dx", classes=["nv", "mel"])

def test_same_classes(tmp_path, cache):
    "Catches sets whose classes have the same names, refused because the common table knows none of them."
    for name in ("milk10k_derm", "pad_ufes20_part"): labelled(tmp_path/name, dx=["WART", "SCAR", "WART", "WART"])
    assert joined_sets(tmp_path, "milk10k_derm", "pad_ufes20_part").classes == ("benign", "malignant")
    assert joined_sets(tmp_path, "milk10k_derm", "pad_ufes20_part", label="dx").classes == ("scar", "wart")

def test_other_classes_than_the_same(tmp_path, cache):
    "Catches naevi and melanomas that cannot be had because all sets call them benign and malignant."
    for name in ("milk10k_derm", "pad_ufes20_part"): labelled(tmp_path/name)
    both = joined_sets(tmp_path, "milk10k_derm", "pad_ufes20_part", classes=["nv", "mel"])
    assert both.classes == ("nv", "mel") and both.table.dx.tolist() == ["nv", "mel", "nv"]*2

# ---- groups

def test_matches(two, cache):
    "Catches a lesion of HAM10000 that is another one in MILK10k, certain or possible."
    with pytest.warns(UserWarning, match="groups show the same lesions or patients as others"):
        both = load_data("join(ham10000, milk10k_derm)", str(two), size=16).table.set_index("id")
    for milk, other in (("ISIC_9000000", "ISIC_0000000"), ("ISIC_9000003", "ISIC_0000103")):
        lesion = ham(two/"ham10000").table.set_index("id").group[other]
        assert both.group[f"milk10k_derm/{milk}"] == both.group[f"ham10000/{other}"] == f"{lesion} = milk10k/IL_{milk[-1]}"
    assert both.group["milk10k_derm/ISIC_9000001"] == "milk10k/IL_1"

def test_same_name_in_the_archive(two, cache):
    "Catches one image of the ISIC Archive in two sets that is two groups, and other images' numbers taken for such a name."
    labelled(two/"isic20_part", ids=["ISIC_0000000", "0000001", "x_ISIC_0000002", "ISIC_00000030"])
    table = joined_sets(two, "ham10000", "isic20_part").table.set_index("id")
    assert table.group["isic20_part/ISIC_0000000"] == table.group["ham10000/ISIC_0000000"]
    assert table.group.str.contains(" = ").sum() == (table.group == table.group["ham10000/ISIC_0000000"]).sum()

@pytest.mark.parametrize("pack", [False, True])
def test_same_file(two, cache, pack):
    "Catches a copy of a file under another name that is another patient, in folders and archives; files of one size taken for copies."
    folder = two/"pad_ufes20_part"
    labelled(folder, ids=["copy", "other", "third", "fourth"])
    archive = zipfile.ZipFile(two/"ham10000"/"HAM10000_images_part_1.zip")
    first = next(name for name in archive.namelist() if name.endswith(".jpg"))
    data = archive.read(first)
    (folder/"images"/"copy.jpg").write_bytes(data)
    (folder/"images"/"other.jpg").write_bytes(data[:-3] + b"\x00" + data[-2:])           # of the same size
    if pack: shutil.make_archive(str(folder/"images"), "zip", folder, "images")
    if pack: shutil.rmtree(folder/"images")
    table = joined_sets(two, "ham10000", "pad_ufes20_part").table.set_index("id")
    assert table.group["pad_ufes20_part/copy"] == table.group[f"ham10000/{Path(first).stem}"]
    assert table.group["pad_ufes20_part/other"] == "pad_ufes_20/other"

def test_families_joined(tmp_path, cache):
    "Catches a lesion whose two views, in two folders, are two groups."
    for view in ("derm", "clinic"):
        labelled(tmp_path/f"milk10k_{view}", ids=[f"{view}{i}" for i in range(4)], group=[f"IL_{i}" for i in range(4)])
    assert joined_sets(tmp_path, "milk10k_derm", "milk10k_clinic").table.group.nunique() == 4

# ---- masks, sources, options

def test_masks(two, cache):
    "Catches masks of one set beside images of another, and masks that are gone without a word."
    with pytest.warns(UserWarning, match="there are masks in ham10000 alone; the joined set has none"):
        assert load_data("join(ham10000, milk10k_derm)", str(two), size=16).masks is None
    shutil.copytree(two/"ham10000", two/"folder"/"ham10000")
    register("ham_copy", classes=data_spec("ham10000").classes, marker="HAM10000_metadata*")(data_spec("ham10000").read)
    (two/"folder"/"ham10000").rename(two/"ham_copy")
    try: both = joined_sets(two, "ham10000", "ham_copy")
    finally: del registry._SPECS["ham_copy"]
    assert np.array_equal(both.masks, np.concatenate([ham(two/"ham10000").masks]*2)) and both.table.group.nunique() == 28

def test_brains(tmp_path, cache):
    "Catches slices with the classes of another set's masks, and volumes that stay healthy because a set beside them tells no shares."
    alone = [volumes(tmp_path/"nifti", "nifti", cases=("p1", "p2")), slices(tmp_path/"slices", 26)]
    both = joined_sets(tmp_path, "nifti", "slices", size=26)
    assert data_spec("join(nifti, slices)").classes == both.classes == ("healthy", "pathological")
    assert both.images.shape[-1] == 1 and np.array_equal(both.images, np.concatenate([data.images for data in alone]))
    assert both.table.dx.tolist() == [dx for data in alone for dx in data.table.dx]
    assert both.labels.tolist() == [label for data in alone for label in data.labels]
    assert both.table.is_pathological.dtype == bool and (~both.table.is_pathological == (both.table.dx == "healthy")).all()
    assert np.array_equal(both.masks, np.concatenate([data.masks for data in alone]))
    framed = joined_sets(tmp_path, "nifti", "slices", size=26, frame=(30, 20))
    assert framed.shape == (26, 17)

def test_different_images(two, cache):
    "Catches colours beside grey slices."
    np.savez(two/"toy.npz", flair=0)
    slices(two/"slices", 16)
    shutil.rmtree(cache)
    with refused(cache, "sets of different images are not joined", "ham10000 has 3 channel(s)", "slices has 1"):
        joined_sets(two, "ham10000", "slices")

def test_options(two, cache):
    "Catches an option that goes to a set which does not take it, or to none in silence."
    with refused(cache, "middle=3 is no option of this set; it has label"): joined_sets(two, "ham10000", "milk10k_derm", middle=3)
    assert len(joined_sets(two, "ham10000", "milk10k_derm", label="benign_malignant", groups=None)) == 46

def test_one_folder_for_two(tmp_path, cache):
    "Catches one folder read as two sets, because it lies where both are looked for."
    labelled(tmp_path/"mine")
    with refused(cache, "would be read from the same folder", "isic20_part and milk10k_derm"):
        joined_sets(tmp_path/"mine", "isic20_part", "milk10k_derm")

def test_boxes_of_joined(two, cache):
    "Catches boxes that find no image of a joined set, or are cut as another's."
    (two/"boxes.csv").write_text("id,x0,y0,x1,y1\nham10000/ISIC_0000000,5,0,35,30\n")
    both = joined_sets(two, "ham10000", "milk10k_derm", boxes=str(two/"boxes.csv"))
    assert both.table.boxes[both.table.id == "ham10000/ISIC_0000000"].item() == ((0, 0, 16, 16),)

# ---- no lesion on two sides, whatever is put together

NAMES, CLASSES, TABLES = ("toy_a", "toy_b", "toy_c"), ("mel", "nv", "bkl"), {}

class EmptySource(FileSource):
    "Black images."
    def decode(self, name, table, size, images, masks): return Originals(np.full((len(table), 2), size, np.int32))

@pytest.fixture(scope="module")
def toy_root(tmp_path_factory):
    "Sets whose tables are in `TABLES`, with 300 files each, and 80 files that any of them may hold; each of another size."
    root = tmp_path_factory.mktemp("toys")
    def read(folder): return TABLES[folder.name], EmptySource()
    for k, name in enumerate((*NAMES, "shared")):
        (root/name).mkdir()
        for i in range(300 if name in NAMES else 80): (root/name/f"{i}.bin").write_bytes(bytes(300*k + i))
    for name in NAMES: register(name, classes=CLASSES, marker="0.bin", family="toy" if name == "toy_c" else "")(read)
    yield root
    for name in NAMES: del registry._SPECS[name]

@st.composite
def tables(draw, folder):
    "Images of 60 to 150 groups by names of the ISIC Archive; some are said to match another, some are of a file that other sets hold too."
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n, n_groups = draw(st.integers(150, 300)), draw(st.integers(60, 150))
    groups = rng.integers(0, n_groups, n)
    table = pd.DataFrame(dict(id=[f"ISIC_{k:07d}" for k in rng.choice(6000, n, replace=False)], dx=np.take(CLASSES, groups % 3)))
    shared = rng.random(n) < .03
    table["group"] = [f"g{g}" for g in groups]
    table["image"] = [str(folder.parent/"shared"/f"{i % 80}.bin" if is_shared else folder/f"{i}.bin") for i, is_shared in enumerate(shared)]
    table["ham_match"] = [f"ISIC_{k:07d}" if hit else np.nan for k, hit in zip(rng.integers(0, 6000, n), rng.random(n) < .05)]
    return table.iloc[rng.permutation(n)]

CALLS = ("toy_a", "toy_b", "toy_c", "join(toy_a, toy_b)", "join(toy_c, toy_a)", "join(toy_a, toy_b, toy_c)")

def of_joined(name, table):
    "The names of a set's images as a joined set has them."
    return table.id if "set" in table else f"{name}/" + table.id

@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(st.data(), st.integers(0, 3))
def test_no_group_on_two_sides(toy_root, data, seed):
    "Catches a group that one call trains on and another one tests on: alone, joined with any others, of any classes, at any size."
    for name in NAMES: TABLES[name] = data.draw(tables(toy_root/name))
    group_of = {f"{name}/{image}": f"{name}/{group}" for name, table in TABLES.items() for image, group in zip(table.id, table.group)}
    sides = []
    for name in CALLS:
        classes = data.draw(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=3, unique=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try: parts = load_data(name, str(toy_root), data.draw(st.sampled_from([8, 16])), classes=classes).split(seed=seed)
            except DataError: continue                               # a part without a class is refused: nothing can leak
        sides.append({side: {group_of[image] for image in of_joined(name, part.table)} for side, part in parts.items()})
        archive = {side: set(part.table.id.str.rpartition("/")[2]) for side, part in parts.items()}
        assert not any(archive[a] & archive[b] for a, b in itertools.combinations(archive, 2))
    for one, other in itertools.product(sides, sides):
        assert not one["train"] & other["test"] and not one["val"] & other["test"] and not one["train"] & other["val"]
