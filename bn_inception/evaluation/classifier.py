"""A trained network as a person uses it: images in, their likeliest classes out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bn_inception.data import Backend, UnreadableImage, preprocessing, to_input
from bn_inception.data.pixels.backend import as_picture, open_picture
from bn_inception.data.pixels.crops import cut_single
from bn_inception.errors import UserError
from bn_inception.evaluation.evaluate import require_finite
from bn_inception.files import first_line, read_bytes
from bn_inception.network import Inception
from bn_inception.network.checkpoint import BEST, LAST, load_network
from bn_inception.network.export import CONFIG, load_exported
from bn_inception.record.run_folder import refuse_links

MAX_BYTES = 1 << 28
"""Of an image file: as many as the largest image that is decoded has as plain RGB."""


@dataclass(frozen=True)
class Classifier:
    """A trained network with what it takes and what it tells.

    Attributes:
        network: in evaluation mode, on the CPU: images (N, 3, S, S) to logits (N, classes).
        classes: the name of each output.
        backend: what decodes image files and resizes, as in training.
    """

    network: Inception
    classes: tuple[str, ...]
    backend: Backend

    def transform(self, image: Image.Image | str | Path) -> Tensor:
        """From an image to the network's input: evaluation's single crop (BN section 4.2).

        Returns float32 (3, S, S), RGB in [-1, 1]; UnreadableImage where it cannot be decoded.
        """
        if isinstance(image, Image.Image):
            name = str(getattr(image, "filename", "")) or "the image"
            picture = as_picture(image, name, self.backend)
        else:
            try:
                data = read_bytes(Path(image), MAX_BYTES)
            except (OSError, ValueError) as error:
                raise UnreadableImage(str(image), first_line(error)) from error
            picture = open_picture(data, str(image), self.backend)
        pixels = np.array(cut_single(picture, self.network.config.image_size))
        return to_input(torch.from_numpy(pixels)[None])[0]

    @torch.inference_mode()
    def predict(
        self, images: Sequence[Image.Image | str | Path], top: int = 5
    ) -> list[list[tuple[str, float]]]:
        """The `top` likeliest classes of each image with their probabilities, likeliest first.

        One image at a time, so that memory does not grow. UnreadableImage names a broken one.
        """
        if isinstance(images, str):
            raise UserError(f"predict: {images!r} is one path; give a list, [{images!r}]")
        predicted = []
        for image in images:
            values = self.transform(image)[None]
            logits = self.network(values.to(self.network.classifier.weight.device))[0]
            require_finite(logits)
            # Of equal probabilities the lower class number comes first, as in evaluation.
            found, classes = logits.double().softmax(0).sort(descending=True, stable=True)
            pairs = zip(classes[:top].tolist(), found[:top].tolist(), strict=True)
            predicted.append([(self.classes[number], probability) for number, probability in pairs])
        return predicted


def load(path: str | Path) -> Classifier:
    """Load a trained network; nothing in the files is executed.

    `path` is a run folder (its `best.pt` is taken), a checkpoint, or what `export` has written.
    """
    path = Path(path)
    if (path / CONFIG).is_file():
        found = load_exported(path)
    else:
        found = load_network(run_checkpoint(path) if path.is_dir() else path)
    backend = preprocessing.backend_of(found.preprocessing)
    return Classifier(found.network, found.classes, backend)


def run_checkpoint(run: Path, name: str = BEST) -> Path:
    """A checkpoint of a run folder; UserError where it has none of this name."""
    refuse_links(run)
    folder = run / "checkpoints"
    if not (folder / name).is_file():
        remedy = "give a run folder, one that bn-inception export has written, or a FILE.pt"
        if (folder / LAST).is_file():
            remedy = f"take {folder / LAST}, in `evaluate` by which=last"
        raise UserError(f"{run}: has no checkpoints/{name}; {remedy}")
    return folder / name
