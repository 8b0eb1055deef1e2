"""What it does to a FID that its extractor was trained on the held-out images: an old extractor's weights against the shipped one's.

    git show 084c508:medgan/evaluate/weights/skin.safetensors > old.safetensors
    MEDGAN_DATA=<folder> python tests/benchmarks/bench_extractor_leak.py old.safetensors
"""
import sys

from medgan.data.images import load_data
from medgan.data.splits import share_known
from medgan.evaluate.features import Extractor, FeatureCNN, image_features, weights_file
from medgan.evaluate.generators import noise_like
from medgan.evaluate.metrics import compare_features
from medgan.training.checkpoints import load_checkpoint

def measured(file, parts):
    "Floor and ceiling of FID with these weights, and what they have seen of the test part, where that is known."
    state, card = load_checkpoint(file)
    net = FeatureCNN(card["channels"], len(card["classes"]), card["width"])
    net.load_state_dict(state["net"])
    extractor = Extractor(card["name"], card["channels"], net.eval().features, str(file))
    sets = dict(parts, noise=noise_like(parts["test"]))
    features = {name: image_features(data, extractor, keep=False) for name, data in sets.items()}
    for name, what in (("test", "floor"), ("noise", "ceiling")):
        fid = compare_features(features[name], features["train"], parts["train"].table.group).loc["fid"]
        print(f"{card['name']}: {what} {fid.value:.2f} [{fid.low:.2f}, {fid.high:.2f}]")
    if "seen" not in state: return
    seen = share_known(parts["test"].table.group, state["seen"]["groups"].numpy())
    print(f"{card['name']}: {seen:.1%} of the test images are of groups that trained it")

if __name__ == "__main__":
    parts = load_data("ham10000", size=64).split()
    for file in (sys.argv[1], weights_file("skin")): measured(file, parts)
