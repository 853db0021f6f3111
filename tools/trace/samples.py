"""Models to be loaded, large but of zeros: a chunk of zeros is a hole, stored nowhere, so that recording is cheap.

Where bytes lie in a file does not depend on their values. The libraries that own the formats write them, but for the
safetensors file in an order of its own, which they do not write.
"""

import json
from pathlib import Path
from typing import Any

MIB = 2**20


def llama(folder: Path) -> Path:
    """A Llama in bfloat16 of about 170 MB in shards of at most 48 MB, with its index."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8000,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        dtype="bfloat16",
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.save_pretrained(folder, max_shard_size="48MB")
    assert len(list(folder.glob("*.safetensors"))) >= 3
    return folder


def state() -> dict[str, Any]:
    """The tensors of seven layers: two of 8 MiB, two of one MiB and two small ones each, and an embedding; 134 MiB."""
    import torch

    shapes = {"mlp.up": (2048, 1024), "mlp.down": (1024, 2048), "attn.q": (512, 512), "attn.k": (512, 512),
              "norm": (1024,), "bias": (512,)}  # fmt: skip
    tensors = {f"layers.{n}.{name}": torch.zeros(shape) for n in range(7) for name, shape in shapes.items()}
    return {"embed": torch.zeros(2000, 1024), **tensors}


def safetensors(folder: Path) -> Path:
    """One file, in the order of its library."""
    from safetensors.torch import save_file

    save_file(state(), folder / "model.safetensors")
    return folder


def shuffled(folder: Path) -> Path:
    """One file whose tensors lie in the order of the layers, each from last to first: no order of names."""
    tensors = [(name, list(t.shape), t.numel() * 4) for name, t in state().items()]
    tensors = tensors[1:] + tensors[:1]
    tensors.sort(key=lambda t: (t[0].rpartition(".")[2], -int((t[0] + ".0.0").split(".")[1])))
    header, at = {}, 0
    for name, shape, size in tensors:
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.truncate(8 + len(encoded) + at)
    return folder


def torch_file(folder: Path) -> Path:
    import torch

    torch.save(state(), folder / "weights.pt")
    return folder


def numpy_file(folder: Path) -> Path:
    """96 MiB of rows of 16 KiB."""
    import numpy as np

    np.save(folder / "rows.npy", np.zeros((6 * 1024, 4096), dtype=np.uint32))
    return folder


def gguf_file(folder: Path) -> Path:
    """A GGUF file of about 60 MiB, with 32,000 tokens in its header."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_token_list([f"token-{number}" for number in range(32_000)])
    for number in range(8):
        writer.add_tensor(f"blk.{number}.ffn_up.weight", np.zeros((1536, 1024), dtype=np.float32))
        writer.add_tensor(f"blk.{number}.attn_q.weight", np.zeros((768, 1024), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


def plain_file(folder: Path) -> Path:
    """256 MiB of nothing."""
    with (folder / "plain.bin").open("wb") as file:
        file.truncate(256 * MIB)
    return folder
