"Weights under NVIDIA's names: read, written, refused."
import pytest
import torch

from medgan.models.stylegan2 import Discriminator, Generator
from medgan.models.stylegan2_weights import export_weights, import_weights, read_tensors
from medgan.training.checkpoints import CheckpointError

def names_of(size, classes):
    "The names in a state dict of NVIDIA's generator and discriminator, from their release."
    sizes, weight_bias = [2**i for i in range(2, size.bit_length())], ("weight", "bias")
    mapping = ["embed"]*bool(classes) + ["fc0", "fc1"]
    G = ["mapping.w_avg"] + [f"mapping.{layer}.{p}" for layer in mapping for p in weight_bias]
    of_layer = ("weight", "bias", "noise_strength", "noise_const", "resample_filter", "affine.weight", "affine.bias")
    for s in sizes:
        G += [f"synthesis.b{s}.resample_filter"] + ["synthesis.b4.const"]*(s == 4)
        G += [f"synthesis.b{s}.{layer}.{p}" for layer in ("conv0",)*(s > 4) + ("conv1",) for p in of_layer]
        G += [f"synthesis.b{s}.torgb.{p}" for p in ("weight", "bias", "affine.weight", "affine.bias")]
    D = [f"mapping.{m}.{p}" for m in ["embed"] + [f"fc{i}" for i in range(8)] for p in weight_bias]*bool(classes)
    for s in sizes[1:]:
        D += [f"b{s}.resample_filter", f"b{s}.skip.weight", f"b{s}.skip.resample_filter"]
        D += [f"b{s}.{layer}.{p}" for layer in ("fromrgb",)*(s == size) + ("conv0", "conv1") for p in (*weight_bias, "resample_filter")]
    return G, D + [f"b4.{layer}.{p}" for layer in ("conv", "fc", "out") for p in weight_bias] + ["b4.conv.resample_filter"]

@pytest.mark.parametrize("classes", [0, 3])
def test_names_of_weights(classes, tmp_path):
    "Catches a weight that NVIDIA's networks do not know, or miss, and a file that does not give it back."
    nets = Generator(16, 3, classes, 8, 8, 128, 8), Discriminator(16, 3, classes, 128, 8)
    for net, names in zip(nets, names_of(16, classes)):
        state = export_weights(net, str(tmp_path/"w.safetensors"))
        assert sorted(state) == sorted(names)
        fresh = type(net)(16, 3, classes, **(dict(z_dim=8, w_dim=8) if type(net) is Generator else {}), base=128, most=8)
        import_weights(fresh, read_tensors(tmp_path/"w.safetensors"))
        assert all(torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), net.state_dict().values()))

FILES = [("evil.pt", "more than tensors"), ("list.pt", "no state dict"), ("short.safetensors", "cut short"), ("short.pt", "cut short"),
         ("gone.pt", "not there"), ("net.pkl", "could run code")]

def test_files_that_are_refused(tmp_path):
    "Catches a reader that opens pickles, and one that dies of a damaged file without naming it."
    class Evil:
        def __reduce__(self): return (print, ("ran",))
    torch.save(dict(a=Evil()), tmp_path/"evil.pt")
    torch.save([1], tmp_path/"list.pt")
    (tmp_path/"short.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    (tmp_path/"short.pt").write_bytes(b"PK\3\4")
    for name, message in FILES:
        with pytest.raises(CheckpointError, match=message): read_tensors(tmp_path/name)

def test_weights_of_other_widths():
    "Catches a state dict that is read in part, and torch's own list of hundreds of lines."
    wide, narrow = (Generator(16, 3, 2, 8, 8, base=base, most=16) for base in (256, 128))
    with pytest.raises(CheckpointError, match="Generator is another architecture.*the first is synthesis.b16"):
        import_weights(narrow, export_weights(wide))
    with pytest.raises(CheckpointError, match="Discriminator is another architecture"):
        import_weights(Discriminator(16, 3, 2, 128, 16), export_weights(Discriminator(16, 3, 2, 256, 16)))
