"""Weight files of all kinds, read tensor by tensor; liars, cut-off files and pickled code refused in one line."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
import torch

from trials.errors import UserError
from trials.safetensors import DTYPES
from trials.weightfiles import stored_tensors

NAMES = {dtype: name for name, dtype in DTYPES.items()}


def draw(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def write_safetensors(path, tensors, metadata=None):
    """An independent writer, straight from the format's description."""
    header, data = {} if metadata is None else {"__metadata__": metadata}, b""
    for name, tensor in tensors.items():
        raw = bytes(tensor.contiguous().flatten().view(torch.uint8).numpy()) if tensor.numel() else b""
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return write_raw(path, header, data)


def write_raw(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def loaded(path):
    return {name: stored.load() for name, stored in stored_tensors(path).items()}


def same(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name].flatten().view(torch.uint8), tensor.flatten().view(torch.uint8))


ALL = {name: draw(3, 5).to(dtype) for name, dtype in DTYPES.items() if name not in ("F8_E8M0", "BOOL")} | {
    "scalar": torch.tensor(2.5), "nothing": torch.zeros(0, 4), "four": draw(2, 3, 2, 2, dtype=torch.bfloat16)}


def test_safetensors_of_every_type(tmp_path):
    path = write_safetensors(tmp_path / "m.safetensors", ALL, {"format": "pt"})
    same(loaded(path), ALL)
    assert stored_tensors(path)["four"].shape == (2, 3, 2, 2) and stored_tensors(path)["four"].dtype == torch.bfloat16
    os.rename(path, tmp_path / "no_ending")
    same(loaded(tmp_path / "no_ending"), ALL)


def test_bfloat16_is_what_numpy_says(tmp_path):
    """The upper half of a float32, from raw bytes: no torch in the writing."""
    bits = np.random.default_rng(0).integers(0, 2**15, (40, 30), dtype=np.uint16)
    header = {"w": {"dtype": "BF16", "shape": [40, 30], "data_offsets": [0, 2400]}}
    found = loaded(write_raw(tmp_path / "m.safetensors", header, bits.tobytes()))["w"].float().numpy()
    np.testing.assert_array_equal(found, (bits.astype(np.uint32) << 16).view(np.float32))


@pytest.mark.parametrize("wrap", [
    lambda s: s, lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": draw(2, 2)}}}},
    lambda s: {"model": s}, lambda s: {"model": {"state_dict": s}}, lambda s: {**s, "note": "not a tensor"}])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(tmp_path, wrap, zipped):
    state = {"a.weight": draw(4, 3), "a.bias": draw(4), "b": draw(2, 2, 3, 3, dtype=torch.bfloat16), "t": draw(5, 4).T}
    torch.save(wrap(state), tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    found = loaded(tmp_path / "m.pt")
    assert list(found) == list(state)
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in state.items())


def test_a_modules_state_dict_with_parameters(tmp_path):
    module = torch.nn.Linear(3, 4)
    torch.save(module.state_dict(keep_vars=True), tmp_path / "m.pt")
    found = loaded(tmp_path / "m.pt")
    assert torch.equal(found["weight"], module.weight) and not found["weight"].requires_grad


def test_a_torch_file_is_mapped_anew_without_changing_what_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("trials.weightfiles._MAPPED", 100)
    state = {f"w{k}": draw(6, 5, seed=k) for k in range(20)}
    torch.save(state, tmp_path / "m.pt")
    found = loaded(tmp_path / "m.pt")  # all 20 are alive after the maps they came from are gone
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


class Touch:
    """Writes a canary file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("how", ["zip", "old", "bare"])
def test_pickled_code_is_not_run(tmp_path, how, protocol):
    canary, path = tmp_path / "canary", tmp_path / "m.pt"
    content = {"w": draw(3, 3), "x": Touch(canary)}
    if how == "bare":
        path.write_bytes(pickle.dumps(content["x"], protocol))
    else:
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=how == "zip")
    refused(path, "pickled code|pickled objects|no PyTorch state dict")
    assert not canary.exists()
    if how == "bare":  # it would have worked
        pickle.loads(path.read_bytes()).close()
        assert canary.exists()


def refused(path, match):
    with pytest.raises(UserError, match=match) as caught:
        loaded(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value) and len(str(caught.value)) < 400


def test_a_whole_module_is_refused_with_the_fix(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "m.pt")
    refused(tmp_path / "m.pt", r"pickled code \(torch.nn.modules.linear.Linear\).*save the tensors alone")


@pytest.mark.parametrize("content, match", [
    (draw(2, 2), "an object of type Tensor, expected a state dict"), ([draw(2, 2)], "type list"),
    ({"lr": 0.1, "steps": 3}, "no state dict: there are no tensors beside 'lr', 'steps'"), ({}, "holds no tensors")])
def test_no_state_dict(tmp_path, content, match):
    torch.save(content, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", match)


def test_a_mapping_inside_itself(tmp_path):
    content = {"lr": 0.1}
    content["model"] = content
    torch.save(content, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "no tensors beside")


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:.*quantiz")
def test_tensors_that_cannot_be_read_leave_the_others(tmp_path):
    state = {"w": draw(4, 3), "expanded": torch.zeros(1).expand(10**6, 10**6), "sparse": torch.eye(3).to_sparse(),
             "meta": torch.empty(3, 3, device="meta"), "csr": torch.eye(3).to_sparse_csr(),
             "quantized": torch.quantize_per_tensor(draw(5, 4), 0.1, 3, torch.qint8)}
    torch.save(state, tmp_path / "m.pt")
    assert (tmp_path / "m.pt").stat().st_size < 20_000
    found = stored_tensors(tmp_path / "m.pt")
    assert {name: one.trouble for name, one in found.items()} == {
        "w": "", "expanded": "an expanded view", "sparse": "of layout sparse_coo", "meta": "without entries (meta)",
        "csr": "of layout sparse_csr", "quantized": ""}
    assert torch.equal(found["w"].load(), state["w"]) and found["meta"].dtype is None
    assert torch.equal(found["quantized"].load(), state["quantized"].dequantize())


def test_a_safetensors_type_that_is_not_known_leaves_the_others(tmp_path):
    header = {"a": entry(0, 8, (4, 4), "F4"), "b": entry(8, 24), "c": entry(24, 28, (2, 2), "F8_E4M3FNUZ")}
    data = bytes(8) + draw(2, 2).numpy().tobytes() + bytes([0x40, 0x48, 0x50, 0x38])
    found = stored_tensors(write_raw(tmp_path / "m.safetensors", header, data))
    assert found["a"].trouble == "of type F4" and found["a"].dtype is None and found["a"].shape == (4, 4)
    assert torch.equal(found["b"].load(), draw(2, 2))
    assert found["c"].load().float().tolist() == [[1.0, 2.0], [4.0, 0.5]]  # bias 8, three bits of mantissa


@pytest.mark.parametrize("content, names", [
    ({"net": {"a.weight": draw(2, 2)}}, ["a.weight"]),
    ({"epoch": 3, "best": torch.tensor(0.5), "net": {"a.weight": draw(2, 2)}}, ["best", "a.weight"]),
    ({"encoder": {"a.weight": draw(2, 2)}, "decoder": {"a.weight": draw(2, 2)}},
     ["encoder.a.weight", "decoder.a.weight"]),
    ({"model_state_dict": {"module.a.weight": draw(2, 2), "module.a.bias": draw(2)},
      "optimizer_state_dict": {"state": {0: {"exp_avg": draw(2, 2)}}, "param_groups": []}}, ["a.weight", "a.bias"]),
    ({"model": {"a.weight": draw(2, 2)}, "ema": {"a.weight": draw(2, 2)}, "opt": {"param_groups": [], "s": draw(3, 3)}},
     ["model.a.weight", "ema.a.weight"]),
    ({"x": {"net": {"fc1": {"weight": draw(2, 2)}, "fc2": {"weight": draw(2, 2)}}}}, ["fc1.weight", "fc2.weight"]),
    ({"layers": [{"w": draw(2, 2)}, {"w": draw(2, 2)}]}, ["0.w", "1.w"]),
    ({"a.b": draw(2, 2), "a": {"b": draw(3, 3)}}, ["a.b", "a.b#2"]),
    ({"_orig_mod.module.a.weight": draw(2, 2)}, ["a.weight"]),
    ({"module.a.weight": draw(2, 2), "b.weight": draw(2, 2)}, ["module.a.weight", "b.weight"])])
def test_names_in_checkpoints(tmp_path, content, names):
    torch.save(content, tmp_path / "m.pt")
    assert list(loaded(tmp_path / "m.pt")) == names


def compress(path, to):
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))


def test_a_compressed_torch_file_has_the_same_numbers(tmp_path, monkeypatch):
    """Mapped, it would have those of compressed bytes."""
    state = {f"w{k}": draw(30, 20, seed=k) for k in range(3)} | {"zeros": torch.zeros(50, 40)}
    torch.save(state, tmp_path / "m.pt")
    compress(tmp_path / "m.pt", tmp_path / "c.pt")
    same(loaded(tmp_path / "c.pt"), state)
    monkeypatch.setattr("trials.weightfiles.UNPACKED", 10_000)
    refused(tmp_path / "c.pt", "compressed, and .* bytes unpacked; 10,000 are allowed: save it with torch.save")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_numpy(tmp_path, save):
    arrays = {"a.weight": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(draw(4, 3).numpy()),
              "big": draw(3, 2).numpy().astype(">f4"), "half": draw(3, 3).numpy().astype("f2"), "ids": np.arange(3)}
    save(tmp_path / "m.npz", **arrays)
    found = loaded(tmp_path / "m.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].numpy(), array)
    np.save(tmp_path / "w.npy", arrays["f"])
    np.testing.assert_array_equal(loaded(tmp_path / "w.npy")["w"].numpy(), arrays["f"])


def test_arrays_that_are_none_of_numbers(tmp_path):
    canary = tmp_path / "canary"
    np.savez(tmp_path / "m.npz", o=np.array([Touch(canary)]), t=np.array(["x"]), w=np.eye(2))
    found = stored_tensors(tmp_path / "m.npz")
    assert {name: one.trouble for name, one in found.items()} == {
        "o": "pickled objects, which are never loaded", "t": "of NumPy's type <U1", "w": ""}
    np.save(tmp_path / "w.npy", np.eye(20))
    (tmp_path / "w.npy").write_bytes((tmp_path / "w.npy").read_bytes()[:1000])
    refused(tmp_path / "w.npy", "truncated or damaged")
    (tmp_path / "w.npy").write_bytes(b"\x93NUMPY\x01\x00 what")
    refused(tmp_path / "w.npy", "truncated or damaged")
    assert not canary.exists()


def test_no_files(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "pipe: a named pipe, expected a file or a folder")
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        refused(tmp_path / "s", "s: a socket, expected")
    with pytest.raises(UserError, match="/dev/null: a device, expected"):
        stored_tensors("/dev/null")


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 60, 300, -1])
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_files_that_are_cut_off(tmp_path, ending, cut):
    path = tmp_path / f"m.{ending}"
    if ending == "pt":
        torch.save({"w": draw(30, 20)}, path)
    else:
        write_safetensors(path, {"w": draw(30, 20)})
    path.write_bytes(path.read_bytes()[:cut])
    refused(path, "truncated|no weight file|no safetensors file")


def test_a_file_cut_off_while_it_is_read(tmp_path):
    path = write_safetensors(tmp_path / "m.safetensors", {"w": draw(30, 20)})
    stored = stored_tensors(path)["w"]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="truncated while it was read"):
        stored.load()


def entry(begin, end, shape=(2, 2), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize("header, match", [
    ({"w": entry(0, 1600, (20, 20))}, "truncated: its header speaks of"),
    ({"w": entry(-16, 0)}, "not two positions"), ({"w": entry(16, 0)}, "takes 16 bytes"),
    ({"w": entry(0, 16), "v": entry(8, 24)}, "'v' overlaps the one before it"),
    ({"w": entry(0, 16), "v": entry(0, 16)}, "overlaps"), ({"w": entry(8, 24)}, "'w' leaves a gap before it"),
    ({"w": entry(0, 16)}, "damaged: its header speaks of"), ({"w": entry(0, 24)}, "takes 16 bytes"),
    ({"w": entry(0, 24, (2, -3))}, "shape"), ({"w": entry(0, 16, (True, 4))}, "shape"),
    ({"w": entry(0, 16, (2, 2.0))}, "shape"), ({"w": entry(0, 16, (2**62, 2**62))}, "takes"),
    ({"w": entry(0, 16, (10**30, 4))}, "shape"), ({"w": entry(0, 16, [1] * 65)}, "shape"),
    ({"w": entry(0, 16, dtype=["F32"])}, "type"), ({"w": entry(16, 0, dtype="F4")}, "takes 0 bytes"),
    ({"w": entry(0, 16, dtype="F4")}, "damaged: its header speaks of"),
    ({"w": [0, 16]}, "expected dtype, shape and data_offsets"), ({"w": {"dtype": "F32", "shape": [2, 2]}}, "positions"),
    ([1, 2], "no JSON object"), (b"{not json", "no JSON"), (b"\xff\xfe{}", "no JSON"), (b"[" * 100_000, "no JSON"),
    (b'{"w": ' + b"1" * 5000 + b"}", "no JSON"),
    (b'{"w":{"dtype":"F32","shape":[6],"data_offsets":[0,24]},"w":{"dtype":"F32","shape":[6],"data_offsets":[0,24]}}',
     "a name is there twice")])
def test_headers_that_lie(tmp_path, header, match):
    refused(write_raw(tmp_path / "m.safetensors", header, bytes(24)), match)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**9, 200])
def test_a_header_longer_than_the_file(tmp_path, length):
    refused(write_raw(tmp_path / "m.safetensors", b"{}", length=length), "cannot hold its header")


def test_a_header_longer_than_allowed(tmp_path):
    path = write_raw(tmp_path / "m.safetensors", b"{}", length=200_000_000)
    os.truncate(path, 300_000_000)  # sparse
    refused(path, "a header of 200,000,000 bytes")


@pytest.mark.parametrize("content, match", [
    (b"", "empty"), (b"hello, world, I am text", "no weight file"), (b"PK\x03\x04 and then nothing", "truncated"),
    (bytes(range(256)) * 4, "no weight file"), (b"\x80\x02 nonsense", "damaged")])
def test_no_weight_files(tmp_path, content, match):
    (tmp_path / "m.pt").write_bytes(content)
    refused(tmp_path / "m.pt", match)


def test_no_file(tmp_path):
    write_safetensors(tmp_path / "model.safetensors", {"w": draw(2, 2)})
    refused(tmp_path / "modle.safetensors", "no such file; did you mean 'model.safetensors'")
    refused(tmp_path / "no" / "folder.pt", "no such file")


SHARDS = {"a-1": {"x": draw(3, 2), "y": draw(2, 2)}, "a-2": {"z": draw(4, 4)}}


def write_shards(folder, ending):
    for name, tensors in SHARDS.items():
        if ending == "safetensors":
            write_safetensors(folder / f"{name}.{ending}", tensors)
        else:
            torch.save(tensors, folder / f"pytorch_model-{name}.{ending}")


def write_index(folder, weight_map):
    (folder / "m.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder / "m.safetensors.index.json"


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_folder_of_shards(tmp_path, ending):
    write_shards(tmp_path, ending)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "training_args.bin").write_bytes(pickle.dumps(1))
    same(loaded(tmp_path), {**SHARDS["a-1"], **SHARDS["a-2"]})


def test_an_index_says_which_tensor_is_where(tmp_path):
    write_shards(tmp_path, "safetensors")
    write_safetensors(tmp_path / "other.safetensors", {"x": draw(9, 9)})
    index = write_index(tmp_path, {"z": "a-2.safetensors", "x": "a-1.safetensors"})
    expected = {"z": SHARDS["a-2"]["z"], "x": SHARDS["a-1"]["x"]}
    same(loaded(index), expected)
    same(loaded(tmp_path), expected)


@pytest.mark.parametrize("weight_map, match", [
    ({"x": "gone.safetensors"}, "its shard 'gone.safetensors' is not in the folder"),
    ({"x": "../m.safetensors"}, "is not in the folder"), ({"q": "a-1.safetensors"}, "'q' is not in its shard"),
    ([1], "no index of shards"), (None, "no index of shards"), ({}, "holds no tensors")])
def test_an_index_that_lies(tmp_path, weight_map, match):
    folder = tmp_path / "model"
    folder.mkdir()
    write_shards(folder, "safetensors")
    write_safetensors(tmp_path / "m.safetensors", {"x": draw(2, 2)})
    refused(write_index(folder, weight_map), match)


def test_folders_that_are_no_model(tmp_path):
    refused(tmp_path, "no weight files in this folder")
    for name in ("step1", "step2"):
        torch.save({"w": draw(2, 2)}, tmp_path / f"{name}.pt")
    refused(tmp_path, "step1.pt and step2.pt both hold 'w': several models")


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_memory_is_that_of_a_tensor_not_of_the_file(tmp_path, ending):
    """400 MB in 100 tensors, a hole on disk: reading all raises the peak by the 64 MB of a map and a few tensors."""
    path, count, shape = tmp_path / f"m.{ending}", 100, (1000, 1000)
    size = 4 * shape[0] * shape[1]
    if ending == "pt":
        with torch.serialization.skip_data():
            torch.save({f"w{k}": torch.empty(shape) for k in range(count)}, path)
    else:
        header = {f"w{k}": entry(k * size, (k + 1) * size, shape) for k in range(count)}
        start = write_raw(path, header).stat().st_size
        os.truncate(path, start + count * size)
    assert path.stat().st_size > 400e6
    code = textwrap.dedent("""
        import resource, sys, torch
        from trials.weightfiles import stored_tensors
        torch.ones(1000, 1000).sum()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        stored = stored_tensors(sys.argv[1])
        total = sum(float(one.load().abs().sum()) for one in stored.values())
        print(len(stored), total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    out = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout.split()
    assert out[:2] == ["100", "0.0"] and int(out[2]) < 110_000  # KiB; the file has 390,625
