"""The ways that `benchmark input` compares, a file for each package."""

from bn_inception.benchmark.peers import dali, ours, reference, timm, webdataset
from bn_inception.benchmark.ways import Peer
from bn_inception.training.settings import Device


def all_peers(device: Device, name: str) -> tuple[Peer, ...]:
    """Everything that is measured, in the order of the table; ours distorts on the device."""
    return (ours.peer(device, name), reference.PEER, timm.PEER, webdataset.PEER, dali.PEER)
