"""What must hold for each sample: the copy on the mount reads exactly as the local one does.

Every `check_*` takes the local original and the mounted copy (both a folder or both a file) and loads both
through the unmodified library. Equal means bit-equal: the same bytes must give the same floats.
"""

import json
import pickle
import random
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from tests.frameworks.samples import PickledModel

READERS = Path(__file__).with_name("readers.py")


def _assert_same_tensors(local: dict[str, Any], mounted: dict[str, Any]) -> None:
    import torch

    assert list(local) == list(mounted)
    for name, tensor in local.items():
        other = mounted[name]
        assert other.dtype == tensor.dtype, name
        assert torch.equal(other, tensor), name


def _assert_same_arrays(local: dict[str, Any], mounted: dict[str, Any]) -> None:
    assert list(local) == list(mounted)
    for name, array in local.items():
        other = mounted[name]
        assert (other.dtype, other.shape) == (array.dtype, array.shape), name
        assert other.tobytes() == array.tobytes(), name


def _assert_same_pretrained(kind: Any, local: Path, mounted: Path, **inputs: Any) -> None:
    import torch

    ours, theirs = (kind.from_pretrained(folder).eval() for folder in (local, mounted))
    _assert_same_tensors(ours.state_dict(), theirs.state_dict())
    with torch.no_grad():
        assert torch.equal(ours(**inputs)[0], theirs(**inputs)[0])


def check_bert(local: Path, mounted: Path) -> None:
    """`from_pretrained` gives the same weights and the same hidden states."""
    import torch
    from transformers import BertModel

    _assert_same_pretrained(BertModel, local, mounted, input_ids=torch.arange(64).reshape(4, 16))


def check_resnet(local: Path, mounted: Path) -> None:
    """`from_pretrained` gives the same weights and the same logits."""
    import torch
    from transformers import ResNetForImageClassification

    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    _assert_same_pretrained(ResNetForImageClassification, local, mounted, pixel_values=pixels)


def check_llama(local: Path, mounted: Path) -> None:
    """`from_pretrained` gives the same weights, the same logits and the same generated text."""
    import torch
    from transformers import LlamaForCausalLM

    prompt = torch.arange(32).reshape(2, 16)
    _assert_same_pretrained(LlamaForCausalLM, local, mounted, input_ids=prompt)
    told = [
        LlamaForCausalLM.from_pretrained(folder).generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)
        for folder in (local, mounted)
    ]
    assert torch.equal(*told)


def check_torch_file(local: Path, mounted: Path) -> None:
    """`torch.load` agrees mapped and read, from a path and from an open file; a view stays a view."""
    import torch

    expected = torch.load(local, weights_only=True)
    for mapped in (True, False):
        state = torch.load(mounted, mmap=mapped, weights_only=True)
        _assert_same_tensors(expected, state)
        assert state["view"].untyped_storage().data_ptr() == state["whole"].untyped_storage().data_ptr()
    with mounted.open("rb") as stream:
        _assert_same_tensors(expected, torch.load(stream, weights_only=True))
    mapped_state = torch.load(mounted, mmap=True, weights_only=True)
    mapped_state["steps"] += 1  # a private mapping: the change must not reach the mount
    assert torch.equal(torch.load(mounted, mmap=True, weights_only=True)["steps"], expected["steps"])


def check_pickle(local: Path, mounted: Path) -> None:
    """The unpickled model predicts the same. Pickles run code: load them from trusted sources only."""
    import numpy as np

    models = []
    for folder in (local, mounted):
        with (folder / "model.pkl").open("rb") as stream:
            models.append(pickle.load(stream))  # written by this test a moment ago
    assert all(isinstance(model, PickledModel) for model in models)
    inputs = np.random.default_rng(1).standard_normal((8, 1024))
    assert np.array_equal(models[0].predict(inputs), models[1].predict(inputs))


def check_safetensors(local: Path, mounted: Path) -> None:
    """Whole files and parts of single tensors agree, for torch and for numpy."""
    import torch
    from safetensors import safe_open
    from safetensors.numpy import load_file as load_numpy
    from safetensors.torch import load_file as load_torch

    expected = load_torch(local / "torch.safetensors")
    _assert_same_tensors(expected, load_torch(mounted / "torch.safetensors"))
    with safe_open(mounted / "torch.safetensors", framework="pt") as opened:
        assert opened.metadata() == {"format": "pt"}
        assert set(opened.keys()) == set(expected)
        part = opened.get_slice("matrix")
        assert part.get_shape() == [2048, 1536]
        for rows, columns in ((slice(0, 1), slice(0, 1536)), (slice(700, 1300), slice(5, 9))):
            assert torch.equal(part[rows, columns], expected["matrix"][rows, columns])
        assert torch.equal(opened.get_tensor("mask"), expected["mask"])
    _assert_same_arrays(load_numpy(local / "numpy.safetensors"), load_numpy(mounted / "numpy.safetensors"))
    with safe_open(mounted / "numpy.safetensors", framework="np") as opened:
        expected_part = load_numpy(local / "numpy.safetensors")["bytes"][500_000:500_100]
        assert (opened.get_slice("bytes")[500_000:500_100] == expected_part).all()


def check_numpy(local: Path, mounted: Path) -> None:
    """A mapped array agrees in random windows and as a whole; so do both kinds of `.npz`."""
    import numpy as np

    expected = np.load(local / "large.npy", mmap_mode="r")
    mapped = np.load(mounted / "large.npy", mmap_mode="r")
    chance = random.Random(1)
    for _ in range(64):
        row, column = chance.randrange(4096), chance.randrange(4096)
        window = np.s_[row : row + chance.randrange(1, 64), column : column + chance.randrange(1, 512)]
        assert np.array_equal(mapped[window], expected[window])
    assert np.array_equal(mapped[::-97], expected[::-97])
    assert np.array_equal(np.load(mounted / "large.npy"), expected)
    for name in ("stored.npz", "packed.npz"):
        with np.load(local / name) as ours, np.load(mounted / name) as theirs:
            _assert_same_arrays(dict(ours), dict(theirs))


def check_gguf(local: Path, mounted: Path) -> None:
    """The reader finds the same fields and the same raw tensors, quantised ones included."""
    import gguf

    ours, theirs = (gguf.GGUFReader(folder / "model.gguf") for folder in (local, mounted))
    assert {name: field.contents() for name, field in ours.fields.items()} == {
        name: field.contents() for name, field in theirs.fields.items()
    }
    assert len(ours.tensors) == 3
    _assert_same_arrays(
        {tensor.name: tensor.data for tensor in ours.tensors},
        {tensor.name: tensor.data for tensor in theirs.tensors},
    )


def check_onnx(local: Path, mounted: Path) -> None:
    """onnxruntime finds the external weights next to the graph and computes the same; so does `onnx.load`."""
    import numpy as np
    import onnx
    import onnxruntime

    inputs = {"x": np.random.default_rng(1).standard_normal((4, 1024), dtype=np.float32)}
    answers = [
        onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"]).run(None, inputs)[0]
        for folder in (local, mounted)
    ]
    assert np.array_equal(*answers)
    ours, theirs = (
        onnx.load(folder / "model.onnx").SerializeToString(deterministic=True) for folder in (local, mounted)
    )
    assert ours == theirs


def check_dataset(local: Path, mounted: Path) -> None:
    """The tar reads the same as a stream and in random order; four worker processes see the same rows."""
    with tarfile.open(local / "train.tar") as archive:
        expected = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    with tarfile.open(mounted / "train.tar", "r|") as stream:
        streamed = {member.name: stream.extractfile(member).read() for member in stream}  # type: ignore[union-attr]
    assert streamed == expected
    order = sorted(expected)
    random.Random(1).shuffle(order)
    with tarfile.open(mounted / "train.tar") as archive:
        for name in order:
            assert archive.extractfile(name).read() == expected[name]  # type: ignore[union-attr]
    _check_four_processes("workers", local / "rows.npy", mounted / "rows.npy")


def check_forked_readers(local: Path, mounted: Path) -> None:
    """Four forked processes that share one descriptor read what they read locally."""
    _check_four_processes("fork", local / "shared.npy", mounted / "shared.npy")


def _check_four_processes(how: str, local: Path, mounted: Path) -> None:
    ours, theirs = (
        json.loads(subprocess.run([sys.executable, READERS, how, path], check=True, stdout=subprocess.PIPE).stdout)
        for path in (local, mounted)
    )
    assert len(set(ours)) == 4, "the parts must differ, or a mix-up could not be seen"
    assert theirs == ours
