"""The model of the demo: made up, about 64 MiB, the same on every machine, in the form that frameworks expect.

Two safetensors shards, their index and a config; the tensors are those of a tiny transformer, filled with noise.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

Tensors = dict[str, npt.NDArray[np.float16]]

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
_WIDTH = 1024


def make_sample_model(folder: Path) -> None:
    """Write the model into `folder`, over what an earlier run left there."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(20)
    shards: list[Tensors] = [
        {"model.embed_tokens.weight": _tensor(noise, 4 * _WIDTH), **_layer(noise, 0)},
        {**_layer(noise, 1), "lm_head.weight": _tensor(noise, 4 * _WIDTH)},
    ]
    for name, tensors in zip(SHARDS, shards, strict=True):
        save_file(tensors, folder / name, metadata={"format": "pt"})
    weights = {tensor: name for name, tensors in zip(SHARDS, shards, strict=True) for tensor in tensors}
    total = sum(tensor.nbytes for tensors in shards for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weights}
    config = {"architectures": ["Sample"], "hidden_size": _WIDTH, "num_hidden_layers": 2, "torch_dtype": "float16"}
    for file, document in (("model.safetensors.index.json", index), ("config.json", config)):
        (folder / file).write_text(json.dumps(document, indent=2) + "\n")


def _layer(noise: np.random.Generator, number: int) -> Tensors:
    rows = {"self_attn.qkv_proj": 3, "self_attn.o_proj": 1, "mlp.up_proj": 4, "mlp.gate_proj": 4}
    return {f"model.layers.{number}.{name}.weight": _tensor(noise, n * _WIDTH) for name, n in rows.items()}


def _tensor(noise: np.random.Generator, rows: int) -> npt.NDArray[np.float16]:
    return noise.random((rows, _WIDTH), dtype=np.float32).astype(np.float16)
