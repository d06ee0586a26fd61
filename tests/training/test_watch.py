"""The watch of a process of several, by itself."""

import threading
import time

from torch.distributed import HashStore

from bn_inception.training.watch import Watch


def test_no_thread_is_left_in_a_call_to_the_store() -> None:
    """Python's end would abort the process: a finished run would look like one that failed."""
    entered = threading.Event()

    class Slow(HashStore):
        def check(self, keys: list[str]) -> bool:
            entered.set()
            time.sleep(0.3)
            return bool(super().check(keys))

    with Watch(0, 1, int, Slow(), timeout=60).running():
        assert entered.wait(30)
    assert "watch" not in [thread.name for thread in threading.enumerate()]
