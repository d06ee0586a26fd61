"""`bn-inception export`: a trained network for other programs."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from bn_inception.cli.command import Call, Command
from bn_inception.errors import UserError
from bn_inception.record.run_folder import refuse_links


class Which(Enum):
    """Which checkpoint of a run: of its best evaluation, or of its last step."""

    best = "best"
    last = "last"


class Format(Enum):
    """What to write."""

    safetensors = "safetensors"
    onnx = "onnx"


@dataclass
class ExportConfig:
    """The keys of `configs/export.yaml`."""

    run: str | None
    checkpoint: str | None
    which: Which
    format: Format
    output: str

    def __post_init__(self) -> None:
        if (self.run is None) == (self.checkpoint is None):
            raise UserError("export: give one of run=FOLDER and checkpoint=FILE")


def checkpoint_file(run: str | None, checkpoint: str | None, which: Which) -> Path:
    """The file `checkpoint`, else the checkpoint of a run folder.

    Raises:
        UserError: the folder has none of this name, or a link leads out of it.
    """
    if checkpoint is not None:
        return Path(checkpoint)
    assert run is not None
    refuse_links(Path(run))
    folder = Path(run) / "checkpoints"
    file = folder / f"{which.value}.pt"
    if not file.is_file():
        others = [other.value for other in Which if (folder / f"{other.value}.pt").is_file()]
        remedy = f"choose which={others[0]}" if others else "give a run folder"
        raise UserError(f"{run}: has no checkpoints/{file.name}; {remedy}")
    return file


def run(call: Call[ExportConfig]) -> int:
    """Export; return 0."""
    from bn_inception.fields import read_object
    from bn_inception.files import make_folder, write_bytes, write_json
    from bn_inception.network import export
    from bn_inception.network.checkpoint import load_network

    config = call.config
    if config.format is Format.onnx:
        export.require_onnx()
    loaded = load_network(checkpoint_file(config.run, config.checkpoint, config.which))
    if config.format is Format.safetensors:
        name, content = export.WEIGHTS, export.safetensors_content(loaded.network)
    else:
        content, parity = export.onnx_content(loaded.network)
        name = export.ONNX
        print(parity)
    folder = Path(config.output)
    make_folder(folder, "output")
    described = folder / export.CONFIG
    if described.exists():
        # One config.json stands for all that lies beside it.
        before = read_object(described, "choose another folder").get(
            "checkpoint_sha256", str | None
        )
        if before != loaded.sha256:
            raise UserError(f"output: {folder} holds another network; choose another folder")
    write_bytes(folder / name, content)
    write_json(described, export.description(loaded))
    print(folder / name)
    print(described)
    return 0


COMMAND = Command("export", ExportConfig, run)
