"""`bn-inception export` and `import-weights`: networks for other programs, and from them."""

from enum import Enum
from pathlib import Path

from bn_inception.cli.command import command
from bn_inception.config import compose, write_yaml
from bn_inception.data.source import class_order
from bn_inception.errors import UserError
from bn_inception.fields import read_object
from bn_inception.files import file_sha256, make_folder, write_bytes, write_json, write_text
from bn_inception.network import checkpoint as checkpoints
from bn_inception.network import export as exports
from bn_inception.network import pretrained
from bn_inception.record.environment import describe, write_environment
from bn_inception.record.run_folder import RunFolder, refuse_links
from bn_inception.record.summary import RunStatus, Summary

RECIPE = "published"
"""Recipe name of imported networks: not one of this project's."""


class Which(Enum):
    """Which checkpoint of a run: of its best evaluation, or of its last step."""

    best = "best"
    last = "last"


class Format(Enum):
    """What to write."""

    safetensors = "safetensors"
    onnx = "onnx"


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
def export(
    run: str | None, checkpoint: str | None, which: Which, format: Format, output: str
) -> None:
    """Write a trained network as safetensors or ONNX."""
    require_one("export", run, checkpoint)
    if format is Format.onnx:
        exports.require_onnx()
    loaded = checkpoints.load_network(checkpoint_file(run, checkpoint, which))
    if format is Format.safetensors:
        name, content = exports.WEIGHTS, exports.safetensors_content(loaded.network)
    else:
        name = exports.ONNX
        content, parity = exports.onnx_content(loaded.network)
        print(parity)
    folder = Path(output)
    make_folder(folder, "output")
    described = folder / exports.CONFIG
    if described.exists():
        # One config.json stands for all that lies beside it.
        before = read_object(described, "choose another folder")
        if before.get("checkpoint_sha256", str | None) != loaded.sha256:
            raise UserError(f"output: {folder} holds another network; choose another folder")
    write_bytes(folder / name, content)
    write_json(described, exports.description(loaded))
    print(folder / name, described, sep="\n")


@command("import-weights", plain="file")
def import_weights(file: str, output: str | None, classes: str | None) -> None:
    """Make a run folder of published weights, which evaluate takes."""
    published = Path(file)
    place = Path("outputs") / published.stem if output is None else Path(output)
    network = pretrained.import_weights(published)
    settings = checkpoints.plain(network.config)
    state = {
        "step": 0,
        "network": network.state_dict(),
        "network_config": settings,
        "recipe": RECIPE,
    }
    if classes is not None:
        state["classes"] = _class_names(classes, network.num_classes)
    composed = compose(
        "train", ["recipe=bn_x30", "scale=paper", "data=imagenet", f"recipe.name={RECIPE}"]
    )
    composed["network"] = settings
    composed["run"] |= {"name": place.name, "root": str(place.parent)}
    composed["train"]["steps"] = 0  # refused by train: there is nothing to continue
    summary = Summary(
        recipe=RECIPE,
        scale="paper",
        seed=0,
        classes=network.num_classes,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        planned_steps=0,
        status=RunStatus.finished,
    )
    imported = {"file": published.name, "sha256": file_sha256(published)}
    environment = {**describe(""), "data_fingerprint": None, "imported": imported}
    folder = RunFolder(place.parent, place.name)
    folder.create()
    with folder:
        write_environment(folder, write_yaml(composed), environment)
        write_text(folder.metrics, "")
        for name in (checkpoints.LAST, checkpoints.BEST):
            checkpoints.save(state, folder.checkpoints, name)
        summary.write(folder.summary)
    print(
        f"{network.num_classes} classes, {summary.parameters:,} parameters; BGR of 0 to 255 less "
        "the mean colour is folded into the first convolution, epsilon into gamma"
    )
    if classes is None:
        print(
            "classes are not named: outputs are taken to be in the order of the data set's classes"
        )
    print(folder.path)


def _class_names(path: str, count: int) -> list[str]:
    """The names of a network's outputs: the first word of every line, or class folders' names."""
    place = Path(path).expanduser()
    try:
        if place.is_dir():
            folders = (entry for entry in place.iterdir() if entry.is_dir())
            names = class_order(entry.name for entry in folders if entry.name[0] != ".")
        else:
            lines = place.read_text(encoding="utf-8").splitlines()
            names = [line.split()[0] for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"classes: {path} cannot be read as text ({error})") from error
    if len(names) != count or len(set(names)) != count:
        raise UserError(
            f"classes: {path} holds {len(names)} names, {len(set(names))} of them different; the "
            f"network has {count} outputs"
        )
    return names
