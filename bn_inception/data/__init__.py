"""Images: where they come from, their order, decoding, crops, distortion and the loader."""

from bn_inception.data.backend import Backend
from bn_inception.data.decode import UnreadableImage
from bn_inception.data.loader import (
    TrainingBatch,
    ValidationBatch,
    default_workers,
    training_batches,
    validation_batches,
)
from bn_inception.data.order import OrderConfig, TrainingOrder, image_generator, stored_order
from bn_inception.data.photometric import AugmentationConfig, Photometric, to_input
from bn_inception.data.source import (
    DataConfig,
    DataKind,
    FolderSource,
    ImageSource,
    OnError,
    Sources,
    open_sources,
    refuse_unread,
)

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
    "image_generator",
    "open_sources",
    "refuse_unread",
    "stored_order",
    "to_input",
    "training_batches",
    "validation_batches",
]
