"""The software that turns a file into a network's input, and hashes of its results for one JPEG.

If evaluation uses another decoder or resize filter than training, accuracy drops by a tenth of a
point to a whole point, without an error.
"""

import base64
import hashlib
import importlib.metadata
from collections.abc import Mapping

import numpy as np
import simplejpeg
import torch
from PIL import features

from bn_inception.data.pixels.backend import Backend, open_picture
from bn_inception.data.pixels.crops import cut_single
from bn_inception.data.pixels.photometric import to_input

_SIZES = (24, 80)  # the first reduces the picture, the second enlarges it
_PICTURE = """
/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywt
QFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09P
T09PT09PT09PT09PT09PT09PT0//wAARCAAoADgDASIAAhEBAxEB/8QAGgAAAwEBAQEAAAAAAAAAAAAAAAMEBQIBBv/E
ADAQAAECAwYDBwQDAAAAAAAAAAEAAhESIQMyQXGR8AQTURQiIyQxM2FCQ6HhBWOi/8QAGQEBAQADAQAAAAAAAAAAAAAA
BQQCBgcD/8QAJBEAAgIBAwMFAQAAAAAAAAAAAQIAAwQRITEFEkITI3Gh4ZH/2gAMAwEAAhEDEQA/APlGcOWsNgbzqg4b
onCxmlgPZvfOWiqZZOLC5wPOF2lYZaqqwZIBL9cOb++mK23LzPTQtzPLA96wV66ayBjA15tyDK6gGO6JjOHLWGwMJnVB
w3RaIDS8sdDki7Wkc9V4C4sL3R5wu0rDLVCv1Nm8fv8AJsaYZXy+v2Sixmlh9m985aJzGBrzbkGV1AMd0TDSWX6vd/fT
FWMsGl5Y72Rd6Rz1Uz5ZbmUgmsjeRN4csYbEwmdUHDdELQbZOLC5wPNHpSsMtUKJsneWLcdNpC1k3mIQkpL13FdPZygP
7/xuKvFk0vD2gckXqUjlol8Rw1o662M0eXX06Q6JPKu7lInOujZCrlIXOg35+DIZJvLxhJWbruKJ5vMQhJSXruKo7BxZ
YGNszzhe7wjDOOS67BxBeHtsvBF6ohHLRGFgOTN2GXjnhx/RJbvzz/8AO4rbbw03l/SSs3XcVnj+N4zvTWN72u8PxWmC
3xYOLAxvvC91hnopcm5VA0MnyL0JXtIMkDJ/HhCWku80LR5TS4OaPCHrSkctEItsneZLdtIG8OGvFgLjqk47omssppo/
Zu/OeiEJy1zOYUsY1rC1gtwBO6hGG6JzeHDXiwFx1Scd0QhGWuYtSxjGWU00fs3fnPRNawtYLcATuoRhuiEIy1zFqWMb
2cNcLEXXVJx3RCEKBnOsRDkCf//Z
"""


def describe(backend: Backend) -> dict[str, str]:
    """Describe how this installation reads images with a backend, JSON-able.

    `decoded` is a hash of the fixed picture's pixels, `crops` of its single crops at two sizes,
    `values` of the network's input made from them.
    """
    picture = open_picture(base64.b64decode(_PICTURE), "the fixed picture", backend)
    crops = [np.ascontiguousarray(cut_single(picture, size)) for size in _SIZES]
    values = [to_input(torch.from_numpy(crop)[None]).numpy() for crop in crops]
    pillow, turbo = f"Pillow {features.version('pil')}", features.version("libjpeg_turbo")
    library = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    fast = backend is Backend.fast
    resize = f"cykooz-resizer {importlib.metadata.version('cykooz-resizer')}" if fast else "Pillow"
    return {
        "backend": backend.value,
        "decoder": f"simplejpeg {simplejpeg.__version__}, else {pillow}" if fast else pillow,
        "jpeg": f"simplejpeg's own, else {library}" if fast else library,
        "resize": f"{resize} bilinear, antialiased",
        "input": "RGB in [-1, 1]",
        "decoded": _hash(picture.pixels().tobytes()),
        "crops": _hash(*(crop.tobytes() for crop in crops)),
        "values": _hash(*(value.tobytes() for value in values)),
    }


def backend_of(described: Mapping[str, str] | None) -> Backend:
    """The backend of a description; Pillow if it names none, or an unknown one."""
    name = (described or {}).get("backend")
    return next((backend for backend in Backend if backend.value == name), Backend.pillow)


def differences(trained: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The differences of two descriptions: "decoder: Pillow 11.0 in training, ... now"."""
    trained = {"backend": backend_of(None).value, **trained}
    return [
        f"{key}: {trained.get(key, 'unknown')} in training, {now.get(key, 'unknown')} now"
        for key in dict.fromkeys([*now, *trained])
        if trained.get(key) != now.get(key)
    ]


def _hash(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16]
