"""A program that loads a Llama with transformers; run as `python load_llama.py FOLDER`.

Prints `loading` right before `from_pretrained`, then one JSON line: when the load ended on the machine's
monotonic clock, and a digest of all weights and of the logits for a fixed input.
"""

import hashlib
import json
import sys
import time
from typing import Any


def fingerprint(model: Any) -> str:
    """SHA-256 over every weight and over the logits that they give: equal only if all bits are."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    with torch.no_grad():
        logits = model(input_ids=torch.arange(32).reshape(2, 16)).logits
    digest.update(logits.numpy().tobytes())
    return digest.hexdigest()


def main(folder: str) -> None:
    """Loads the model of `folder` and prints the two lines described above."""
    from transformers import LlamaForCausalLM

    print("loading", flush=True)
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    found = fingerprint(model)  # the weights are memory-mapped: only reading them all ends the load
    print(json.dumps({"ended": time.monotonic(), "digest": found}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
