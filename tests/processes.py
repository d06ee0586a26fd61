"""Several processes on loopback that act as the ranks of one run, without starting torch anew."""

import importlib
import os
import socket
import traceback
from contextlib import closing
from multiprocessing import Pipe
from multiprocessing.context import ForkProcess

# What every rank would import for itself, seconds of CPU each: torch's optimizers and
# DistributedDataParallel import torch._dynamo.
for _module in (
    "torch._dynamo",
    "bn_inception.cli.train",
    "bn_inception.training",
    "tensorboard.compat.proto.event_pb2",
    "tensorboard.plugins.hparams.summary_v2",
    "tensorboard.summary.writer.record_writer",
):
    importlib.import_module(_module)

SECONDS = 240
"""Generous: the tests share the machine with each other."""


def free_port():
    """A TCP port that nobody listens on at this moment."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def rank_environment(rank, size, port):
    """What torchrun sets for a process of several on this machine."""
    return {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip


def run_ranks(size, action):
    """What `action(rank)` returns on each of `size` processes, torchrun's variables set.

    An exception is returned as its text, so that a test can look at every rank's.
    """
    port = free_port()
    started = []
    for rank in range(size):
        receiver, sender = Pipe(duplex=False)
        child = ForkProcess(target=_act, args=(action, rank, size, port, sender), daemon=True)
        child.start()
        sender.close()
        started.append((receiver, child))
    results = []
    for receiver, _ in started:
        try:
            results.append(receiver.recv() if receiver.poll(SECONDS) else "nothing came")
        except EOFError:
            results.append("ended without a word")
    for _, child in started:
        child.join(10)
        child.kill()
    return results


def _act(action, rank, size, port, sender):
    os.environ |= rank_environment(rank, size, port)
    try:
        sender.send(action(rank))
    except BaseException as error:
        traceback.print_exc()
        sender.send(f"{type(error).__name__}: {error}")
    finally:
        sender.close()
        os._exit(0)
