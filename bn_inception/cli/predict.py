"""`bn-inception predict`: the likeliest classes of single images."""

from dataclasses import dataclass

from bn_inception.cli.command import Call, Command
from bn_inception.cli.help import WIDTH
from bn_inception.cli.main import BAD_INPUT
from bn_inception.errors import UserError
from bn_inception.quoting import printable


@dataclass
class PredictConfig:
    """The keys of `configs/predict.yaml`."""

    run: str | None
    checkpoint: str | None
    images: list[str]
    top: int

    def __post_init__(self) -> None:
        if (self.run is None) == (self.checkpoint is None):
            raise UserError("predict: give one of run=FOLDER and checkpoint=FILE")
        if not self.images:
            raise UserError("predict: no images; give files, such as cat.jpg")
        if self.top < 1:
            raise UserError(f"top: {self.top} is not 1 or more")


def run(call: Call[PredictConfig]) -> int:
    """Print a block an image; return 0, or 2 if an image could not be read."""
    from bn_inception.cli.evaluate import say
    from bn_inception.data import UnreadableImage
    from bn_inception.evaluation.classifier import load

    config, status = call.config, 0
    classifier = load(config.checkpoint or config.run or "")
    for image in config.images:
        try:
            (likeliest,) = classifier.predict([image], config.top)
        except UnreadableImage as error:
            say(f"bn-inception: {error.name} cannot be read: {error.reason}")
            status = BAD_INPUT
            continue
        rows = [f"{probability:8.2%}  {printable(name)}" for name, probability in likeliest]
        print(printable(image), *(row[:WIDTH] for row in rows), "", sep="\n", flush=True)
    return status


COMMAND = Command("predict", PredictConfig, run, plain="images")
