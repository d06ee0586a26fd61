"""Which data set this is, whatever it is stored in."""

import hashlib
from collections.abc import Iterable, Sequence


def content_fingerprint(classes: Sequence[str], images: Iterable[tuple[bytes, int, int]]) -> str:
    """SHA-256 over class names and every image's relative path, size and label.

    Sizes stand for contents: hashing ImageNet's 140 GB would take many minutes. So an image whose
    bytes changed and whose size did not leaves it as it is; the checksums of shards and the
    audit's SHA-256 see that. A folder and the unmodified shards made of it have the same
    fingerprint.

    Args:
        classes: names in label order.
        images: (path below the split, bytes, label) of every image, in the order of the indices.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256("\n".join(classes).encode(errors="surrogateescape"))
    for name, size, label in images:
        digest.update(b"\n%s\t%d\t%d" % (name, size, label))
    return digest.hexdigest()
