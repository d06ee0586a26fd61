"""`bn-inception export`: networks for other programs."""

from enum import Enum
from pathlib import Path

from bn_inception.cli.command import command
from bn_inception.errors import UserError
from bn_inception.fields import read_object
from bn_inception.files import make_folder, write_bytes, write_json
from bn_inception.network import checkpoint as checkpoints
from bn_inception.network import export as exports
from bn_inception.record.run_folder import refuse_links


class Which(Enum):
    """Which checkpoint of a run: of its best evaluation, or of its last step."""

    best = "best"
    last = "last"


def checkpoint_file(run: str | None, checkpoint: str | None, which: Which) -> Path:
    """The file `checkpoint`, else the checkpoint of a run folder."""
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


def require_one(command: str, run: str | None, checkpoint: str | None) -> None:
    """Refuse a command that is given both a run and a checkpoint, or neither."""
    if (run is None) == (checkpoint is None):
        raise UserError(f"{command}: give one of run=FOLDER and checkpoint=FILE")


@command("export")
def export(run: str | None, checkpoint: str | None, which: Which, output: str) -> None:
    """Write a trained network as safetensors with its description."""
    require_one("export", run, checkpoint)
    loaded = checkpoints.load_network(checkpoint_file(run, checkpoint, which))
    folder = Path(output)
    make_folder(folder, "output")
    weights, described = folder / exports.WEIGHTS, folder / exports.CONFIG
    if described.exists():
        before = read_object(described, "choose another folder")
        if before.get("checkpoint_sha256", str | None) != loaded.sha256:
            raise UserError(f"output: {folder} holds another network; choose another folder")
    write_bytes(weights, exports.safetensors_content(loaded.network))
    write_json(described, exports.description(loaded))
    print(weights, described, sep="\n")
