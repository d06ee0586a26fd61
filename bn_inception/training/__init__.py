"""Training: durations, schedule, optimizer groups, the step, the loop, checkpoints, signals."""

from bn_inception.training.console import Console
from bn_inception.training.distributed import joined, world_from_environment
from bn_inception.training.loop import train
from bn_inception.training.machine import choose_device
from bn_inception.training.opening import open_session
from bn_inception.training.session import Session
from bn_inception.training.signals import StopRequest

__all__ = [
    "Console",
    "Session",
    "StopRequest",
    "choose_device",
    "joined",
    "open_session",
    "train",
    "world_from_environment",
]
