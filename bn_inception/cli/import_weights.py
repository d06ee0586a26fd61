"""`bn-inception import-weights`: published weights into a run folder that `evaluate` takes."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from bn_inception.cli.command import Call, Command
from bn_inception.config import compose, write_yaml
from bn_inception.errors import UserError

RECIPE = "published"
"""Recipe name of imported networks: not one of this project's."""


@dataclass
class ImportConfig:
    """The keys of `configs/import_weights.yaml`."""

    file: str
    output: str | None
    classes: str | None


def run(call: Call[ImportConfig]) -> int:
    """Import; return 0."""
    from bn_inception.files import write_text
    from bn_inception.network import checkpoint
    from bn_inception.network.pretrained import import_weights
    from bn_inception.record import RunFolder, RunStatus, Summary, describe, write_environment

    config = call.config
    file = Path(config.file)
    output = Path("outputs") / file.stem if config.output is None else Path(config.output)
    network = import_weights(file)
    classes = None if config.classes is None else class_names(config.classes, network.num_classes)
    settings = checkpoint.plain(network.config)
    composed = compose(
        "train", ["recipe=bn_x30", "scale=paper", "data=imagenet", f"recipe.name={RECIPE}"]
    )
    composed["network"] = settings
    composed["run"] |= {"name": output.name, "root": str(output.parent)}
    composed["train"]["steps"] = 0  # refused by train: there is nothing to continue
    state = {
        "step": 0,
        "network": network.state_dict(),
        "network_config": settings,
        "recipe": RECIPE,
    }
    if classes is not None:
        state["classes"] = classes
    summary = Summary(
        recipe=RECIPE,
        scale="paper",
        seed=0,
        classes=network.num_classes,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        planned_steps=0,
        status=RunStatus.finished,
    )
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    environment = {
        **describe(""),
        "data_fingerprint": None,
        "imported": {"file": file.name, "sha256": sha256},
    }
    folder = RunFolder(output.parent, output.name)
    folder.create()
    with folder:
        folder.write_config(write_yaml(composed))
        write_environment(folder.environment, environment)
        write_text(folder.metrics, "")
        for name in (checkpoint.LAST, checkpoint.BEST):
            checkpoint.save(state, folder.checkpoints, name)
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
    return 0


def class_names(path: str, count: int) -> list[str]:
    """The names of a network's outputs: the first word of every line, or class folders' names.

    Raises:
        UserError: unreadable, or not `count` different names.
    """
    from bn_inception.data.source import class_order

    place = Path(path).expanduser()
    try:
        if place.is_dir():
            names = class_order(
                entry.name
                for entry in place.iterdir()
                if entry.is_dir() and not entry.name.startswith(".")
            )
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


COMMAND = Command("import-weights", ImportConfig, run, plain="file")
