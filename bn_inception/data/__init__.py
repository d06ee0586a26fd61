"""Images: where they come from, their order, decoding, crops, distortion and the loader.

`intake` prepares and audits a data set, once. `pixels` turns bytes into a network's input.
"""

from bn_inception.data.config import DataConfig, DataKind, OnError, refuse_unread
from bn_inception.data.loader import (
    TrainingBatch,
    ValidationBatch,
    training_batches,
    validation_batches,
)
from bn_inception.data.opening import Sources, open_sources
from bn_inception.data.order import OrderConfig, TrainingOrder, stored_order
from bn_inception.data.parallel import default_workers
from bn_inception.data.pixels import preprocessing
from bn_inception.data.pixels.backend import Backend
from bn_inception.data.pixels.decode import UnreadableImage
from bn_inception.data.pixels.photometric import AugmentationConfig, Photometric, to_input
from bn_inception.data.source import FolderSource, ImageSource

__all__ = [
    "AugmentationConfig",
    "Backend",
    "DataConfig",
    "DataKind",
    "FolderSource",
    "ImageSource",
    "OnError",
    "OrderConfig",
    "Photometric",
    "Sources",
    "TrainingBatch",
    "TrainingOrder",
    "UnreadableImage",
    "ValidationBatch",
    "default_workers",
    "open_sources",
    "preprocessing",
    "refuse_unread",
    "stored_order",
    "to_input",
    "training_batches",
    "validation_batches",
]
