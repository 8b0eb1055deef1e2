"The real dermoscopic sets beside HAM10000, where $MEDGAN_DATA names them: counts, masks, pairs, and what they share."
import itertools
import warnings

import numpy as np
import pytest

from medgan.data.images import load_data
from medgan.data.splits import group_sides

def real(root, name, folder="", **options):
    "A set at 32 px; what it warns of is tested elsewhere. The cache is that of all tests, so that none prepares a set again."
    for part in (folder or name).removeprefix("join(").removesuffix(")").split(", "):
        if not any(root.glob(f"**/{part}")): pytest.skip(f"{part} is not in MEDGAN_DATA")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return load_data(name, str(next(root.glob(f"**/{folder}")) if folder else root), size=32, **options)

@pytest.mark.parametrize("name, n, n_groups, malignant, by_diagnosis", [
    ("isic18_task2", 2594, 2559, 519, dict(mel=519, nv=1866, bkl=208)), ("isic20_part", 2701, 130, 39, dict(melanoma=39, nevus=35)),
    ("milk10k_derm", 1883, 1883, 450, dict(mel=450, nv=746, bkl=544, df=52, vasc=47, ben_oth=44)),
    ("milk10k_clinic", 1883, 1883, 450, dict(mel=450, nv=746, bkl=544, df=52, vasc=47, ben_oth=44)),
    ("pad_ufes20_part", 406, 315, 44, dict(mel=44, nev=218, sek=144))])
def test_real_counts(real_data, name, n, n_groups, malignant, by_diagnosis):
    "Catches lost images, groups that are images, and labels that are not those of the sets' own descriptions."
    data = real(real_data, name)
    assert len(data) == n and data.table.group.nunique() == n_groups
    assert data.table.dx.value_counts().to_dict() == dict(benign=n - malignant, malignant=malignant)
    assert by_diagnosis.items() <= data.table.diagnosis.value_counts().to_dict().items()

@pytest.mark.parametrize("name, published", [("globules", 603), ("streaks", 100)])
def test_real_attributes(real_data, name, published):
    "Catches the bit of another attribute: which masks are empty is told by the set's own counts of pixels."
    lesion, data = real(real_data, "isic18_task2"), real(real_data, "isic18_task2", mask=name)
    assert lesion.masks.any((1, 2)).all() and data.table.id.tolist() == lesion.table.id.tolist()
    assert (data.table[name] > 0).sum() == published
    marked = data.masks.any((1, 2))
    assert not marked[data.table[name] == 0].any() and marked[data.table[name] > 2000].mean() > .99
    assert np.corrcoef(data.masks.mean((1, 2)), data.table[name]/data.table.px)[0, 1] > .9     # not 1: the centre square is shown

def test_real_pairs(real_data):
    "Catches a partner of another lesion, and the overlap with HAM10000 that gets lost."
    derm, clinic = real(real_data, "milk10k_derm").table, real(real_data, "milk10k_clinic").table.set_index("id")
    assert (clinic.group[derm.partner].to_numpy() == derm.group).all() and (clinic.partner[derm.partner].to_numpy() == derm.id).all()
    assert derm.ham_overlap.value_counts().to_dict() == {0: 1257, 1: 180, 2: 446} and derm.ham_match.notna().sum() == 626

def test_real_join(real_data):
    "Catches a joined set that loses images, and a lesion on two sides: of the split of one set and of another, or of the joined one."
    both = real(real_data, "join(ham10000, isic18_task2, milk10k_derm)")
    assert both.table.set.value_counts().to_dict() == dict(ham10000=10015, isic18_task2=2593, milk10k_derm=1883)   # one has no diagnosis
    assert both.table.dx.value_counts().to_dict() == dict(nv=9317, mel=2082, bkl=1851, bcc=514, akiec=327, vasc=189, df=167, ben_oth=44)
    with pytest.warns(UserWarning, match="are in no part"): parts = both.split()
    for name, part in parts.items():
        atoms = [atom for group in set(part.table.group) for atom in group.split(" = ")]
        assert (group_sides(atoms) == name).all()                            # where each stands alone
    image = {name: set(part.table.id) for name, part in parts.items()}
    pairs = both.table.loc[both.table.ham_match.notna(), ["id", "ham_match"]]
    assert len(pairs) == 626
    for (_, there), (_, too) in itertools.permutations(image.items(), 2):
        assert not (pairs.id.isin(there) & ("ham10000/" + pairs.ham_match).isin(too)).any()

def test_real_archive(real_data):
    "Catches an image of the ISIC Archive that two sets hold under one number, and that is a group of another name in the second."
    one, other = real(real_data, "isic18_task2").table.set_index("id"), real(real_data, "isic", "isic_uda1").table.set_index("id")
    shared = one.index.intersection(other.index)
    assert len(shared) == 458 and (one.group[shared] == other.group[shared])[one.lesion_id[shared].isna()].mean() > .9
