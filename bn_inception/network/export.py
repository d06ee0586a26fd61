"""A trained network as a folder for other programs, for inference only.

`config.json` holds the network's settings, its classes and what it takes as input;
`model.safetensors` its parameters and statistics, without the auxiliary head. `load` reads it.
"""

from dataclasses import replace
from pathlib import Path

import safetensors
import safetensors.torch

from bn_inception.errors import UserError
from bn_inception.fields import read_object
from bn_inception.files import write_bytes, write_json
from bn_inception.network.checkpoint import LoadedNetwork, TensorFile, described_network, plain

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 1
_REMEDY = "give a folder that bn-inception export has written"


def save_exported(loaded: LoadedNetwork, folder: Path) -> list[Path]:
    """Write both files into `folder`; UserError if it holds another network."""
    weights, described = folder / WEIGHTS, folder / CONFIG
    if described.exists():
        before = read_object(described, "choose another folder")
        if before.get("checkpoint_sha256", str | None) != loaded.sha256:
            raise UserError(f"output: {folder} holds another network; choose another folder")
    elif weights.exists():
        raise UserError(f"output: {weights} is no export of ours; choose another folder")
    tensors = {
        name: tensor.contiguous()
        for name, tensor in loaded.network.state_dict().items()
        if not name.startswith("auxiliary.")
    }
    write_bytes(weights, safetensors.torch.save(tensors, metadata={"format": "pt"}))
    config = replace(loaded.network.config, auxiliary_head=False)
    description = {
        "format": FORMAT,
        "architecture": "BN-Inception (Ioffe and Szegedy 2015, Figure 5)",
        "network_config": plain(config),
        "num_classes": loaded.network.num_classes,
        "classes": list(loaded.classes),
        "input": {
            "shape": ["N", 3, config.image_size, config.image_size],
            "colours": "RGB",
            "range": [-1.0, 1.0],
            "crop": "shorter side to 256/224 of the image size, centre (bilinear, antialiased)",
        },
        "preprocessing": loaded.preprocessing,
        "output": "logits (N, num_classes); softmax gives probabilities",
        "recipe": loaded.recipe,
        "step": loaded.step,
        "checkpoint_sha256": loaded.sha256,
    }
    write_json(described, description)
    return [weights, described]


def load_exported(folder: Path) -> LoadedNetwork:
    """Read a network that `bn-inception export` has written."""
    said, file = read_object(folder / CONFIG, _REMEDY), TensorFile(folder / WEIGHTS, _REMEDY)
    if said.values.get("format") != FORMAT:
        raise UserError(
            f"{said.where}: not written by bn-inception export (format {FORMAT}); {_REMEDY}"
        )
    try:
        tensors = safetensors.torch.load_file(file.path)
    except (OSError, safetensors.SafetensorError) as error:
        file.refuse(f"cannot be read as safetensors ({error})", error)
    return described_network(said, tensors, file)
