"""Small real models and data sets, each written by the library that owns its format.

Every `make_*` writes into the folder it is given and returns what to publish: that folder, or one file
in it. Weights are random but seeded, nothing is downloaded. Sizes are a compromise: large enough for
several 4 MiB chunks per file (and, for transformers, several shards with an index), small enough that the
whole folder of tests is done in a couple of minutes. The libraries are imported inside the functions,
so that a machine without one of them still runs the other cases.
"""

import io
import json
import pickle
import random
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 2**20
NEEDLE = "a line that grep must find"


def _save_sharded(model: Any, folder: Path, max_shard_size: str) -> Path:
    model.eval().save_pretrained(folder, max_shard_size=max_shard_size)
    assert (folder / "model.safetensors.index.json").exists(), "the sample must be a sharded model"
    assert len(list(folder.glob("model-*.safetensors"))) >= 3, "too few shards to be a test"
    return folder


def make_bert(folder: Path) -> Path:
    """A BERT encoder of about 22 MB in shards of at most 8 MB."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=8000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024
    )
    return _save_sharded(BertModel(config), folder, "8MB")


def make_resnet(folder: Path) -> Path:
    """A ResNet classifier of about 20 MB in shards of at most 6 MB."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(2)
    config = ResNetConfig(hidden_sizes=[128, 256, 512, 1024], depths=[2, 2, 4, 2], num_labels=100)
    return _save_sharded(ResNetForImageClassification(config), folder, "6MB")


def make_llama(folder: Path, seed: int = 3, layers: int = 4) -> Path:
    """A Llama of 25 MB and 7 MB per layer in shards of at most 12 MB; another seed gives all other bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=8000,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=layers,
        num_attention_heads=6,
        num_key_value_heads=2,
    )
    return _save_sharded(LlamaForCausalLM(config), folder, "12MB")


def make_torch_file(folder: Path) -> Path:
    """One `.pt` file (not a folder) with a state dict of about 24 MB, views of one storage included."""
    import torch

    generator = torch.Generator().manual_seed(4)
    whole = torch.randn(1024, 4096, generator=generator)
    state = {
        "whole": whole,
        "view": whole[16:48],
        "half": torch.randn(1024, 2048, generator=generator).to(torch.bfloat16),
        "steps": torch.arange(1_000_000),
        "empty": torch.empty(0, 7),
    }
    path = folder / "weights.pt"
    torch.save(state, path)
    return path


@dataclass(frozen=True)
class PickledModel:
    """A two-layer network in plain numpy: a stand-in for any class that people pickle whole."""

    hidden: Any
    output: Any

    def predict(self, inputs: Any) -> Any:
        """The network's answer for a batch of rows."""
        import numpy as np

        return np.maximum(inputs @ self.hidden, 0) @ self.output


def make_pickle(folder: Path) -> Path:
    """A pickled model of about 18 MB. Reading it back runs code, so only our own pickle is ever read."""
    import numpy as np

    rng = np.random.default_rng(5)
    model = PickledModel(hidden=rng.standard_normal((1024, 2048)), output=rng.standard_normal((2048, 64)))
    (folder / "model.pkl").write_bytes(pickle.dumps(model, protocol=5))
    return folder


def make_safetensors(folder: Path) -> Path:
    """A torch file with five element types and a numpy file, about 20 MB together."""
    import numpy as np
    import torch
    from safetensors.numpy import save_file as save_numpy
    from safetensors.torch import save_file as save_torch

    generator = torch.Generator().manual_seed(6)
    matrix = torch.randn(2048, 1536, generator=generator)
    tensors = {
        "matrix": matrix,
        "bfloat": matrix[:256].to(torch.bfloat16).clone(),
        "half": matrix[256:512].to(torch.float16).clone(),
        "mask": (matrix[:64] > 0).clone(),
        "steps": torch.arange(77_777),
    }
    save_torch(tensors, folder / "torch.safetensors", metadata={"format": "pt"})
    rng = np.random.default_rng(6)
    arrays = {
        "floats": rng.standard_normal((1024, 1024), dtype=np.float32),
        "bytes": rng.integers(-128, 128, size=999_999, dtype=np.int8),
    }
    save_numpy(arrays, folder / "numpy.safetensors")
    return folder


def make_numpy(folder: Path) -> Path:
    """A 64 MiB `.npy`, and one stored and one compressed `.npz`."""
    import numpy as np

    rng = np.random.default_rng(7)
    np.save(folder / "large.npy", rng.integers(0, 2**32, size=(4096, 4096), dtype=np.uint32))
    arrays: dict[str, Any] = {
        "a": rng.standard_normal(500_000),
        "b": np.arange(300_000),
        "c": np.array(["x", "yz"]),
    }
    np.savez(folder / "stored.npz", **arrays)
    np.savez_compressed(folder / "packed.npz", **arrays)
    return folder


def make_shared_file(folder: Path) -> Path:
    """One 48 MiB `.npy` with bytes of its own, so that no other case has brought it into a cache."""
    import numpy as np

    rng = np.random.default_rng(12)
    np.save(folder / "shared.npy", rng.integers(0, 2**32, size=(3072, 4096), dtype=np.uint32))
    return folder


def make_gguf(folder: Path) -> Path:
    """A GGUF file of about 15 MB with text, number and list fields and plain and quantised tensors."""
    import gguf
    import numpy as np

    rng = np.random.default_rng(8)
    matrix = rng.standard_normal((2048, 1024), dtype=np.float32)
    quantised = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_name("sample")
    writer.add_block_count(2)
    writer.add_token_list([f"token-{number}" for number in range(2000)])
    writer.add_tensor("output.weight", matrix)
    writer.add_tensor("token_embd.weight", matrix.astype(np.float16))
    writer.add_tensor("blk.0.attn_q.weight", gguf.quants.quantize(matrix, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


def make_onnx(folder: Path) -> Path:
    """Two matrix products whose 17 MB of weights lie in a second file next to the graph."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(9)
    first = rng.standard_normal((1024, 2048), dtype=np.float32)
    second = rng.standard_normal((2048, 1024), dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["mixed"]),
            helper.make_node("Relu", ["mixed"], ["kept"]),
            helper.make_node("MatMul", ["kept", "second"], ["y"]),
        ],
        "sample",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1024])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1024])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin")
    assert (folder / "weights.bin").stat().st_size >= 16 * MIB, "the weights must be external"
    return folder


def make_dataset(folder: Path) -> Path:
    """Two hundred samples with labels in a tar of about 13 MB, and 32 MiB of training rows."""
    import numpy as np

    chance = random.Random(10)
    with tarfile.open(folder / "train.tar", "w") as archive:
        for number in range(200):
            payload = chance.randbytes(chance.randrange(1, 128 * 1024))
            label = json.dumps({"label": chance.randrange(10), "size": len(payload)}).encode()
            for suffix, content in (("bin", payload), ("json", label)):
                member = tarfile.TarInfo(f"train/{number:06}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    rng = np.random.default_rng(10)
    np.save(folder / "rows.npy", rng.integers(0, 2**16, size=(16_384, 1024), dtype=np.uint16))
    return folder


def make_tree(folder: Path) -> Path:
    """A folder for plain tools: depth, sizes around the chunk size, an empty file, unusual names."""
    chance = random.Random(11)
    for name, size in {
        "exactly.bin": 4 * MIB,
        "one-more.bin": 4 * MIB + 1,
        "one-less.bin": 4 * MIB - 1,
        "empty": 0,
        "shards/deep/er/data.bin": 9 * MIB + 17,
        "names/with space.bin": 3000,
        "names/-dash.bin": 100,
        "names/größe-模型.bin": 100,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(size))
    (folder / "config.json").write_text(json.dumps({"hidden_size": 4}) + "\n")
    lines = [f"line {number}" for number in range(50_000)]
    lines[31_234] = NEEDLE
    (folder / "shards" / "notes.txt").write_text("\n".join(lines) + "\n")
    return folder
