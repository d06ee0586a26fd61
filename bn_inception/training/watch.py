"""Ends a process of several when another one has failed or hangs, also out of a wait without end.

torch's timeouts and torchrun end such waits too, but neither names the one that hangs or was
killed, and ranks whose torchrun was killed would train on and keep the run locked.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_FAILURE, _SIGN_OF_LIFE = "bn_inception/failure", "bn_inception/alive"
_WATCH_SECONDS = 1.0
"""How often a process asks whether another one has failed, and gives a sign of life."""
_SILENT_SECONDS = 3.0
"""A process without a sign of life for so long does not run: stopped, killed, or cut off."""
_GRACE_SECONDS = 6.0
"""What a process that waits for a failed one is given to end by itself; more than the one above."""
_CONTINUE = "continue with run.resume=must"


class Watch:
    """Every process tells the store each second that it lives and how far it has come.

    One that waits looks at what the others tell, so that it can name the one that it waits for.

    Args:
        rank: of this process.
        size: processes.
        begun: counts the exchanges that this process has begun; all begin the same ones.
        store: a connection that nobody else uses, free while this process waits in the other one.
        timeout: seconds after which a process that does not come counts as failed.
    """

    def __init__(
        self, rank: int, size: int, begun: Callable[[], int], store: Any, timeout: float
    ) -> None:
        self._rank, self._size, self._begun = rank, size, begun
        self._store, self._timeout = store, timeout
        self._beats = 0
        self._changed: dict[int, tuple[str, float]] = {}
        self._lock = threading.Lock()
        self._done, self._lost = threading.Event(), threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch while entered."""
        thread = threading.Thread(target=self._run, name="watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            # A thread that is in a call to the store when Python ends aborts the process; one
            # whose store does not answer any more may not keep it.
            thread.join(_SILENT_SECONDS)

    def tell(self, text: str) -> None:
        """Let the others know why this process ends; the first to tell is heard."""
        self._done.set()
        self._tell(text)

    def cause(self) -> str | None:
        """Why the others cannot be reached any more, as one line; None if nobody knows."""
        self._lost.set()
        said = self._heard(_GRACE_SECONDS)
        # Without torchrun the first process holds the store.
        if said is None and self._lock.locked() and "TORCHELASTIC_RUN_ID" not in os.environ:
            return self._failed(0, "hangs, or its machine has gone")
        return said

    def _run(self) -> None:
        while not self._done.wait(_WATCH_SECONDS):
            said = self._heard(0)
            if said is None:
                try:
                    with self._lock:
                        found = self._missing()
                except RuntimeError:
                    said = f"process 0 or torchrun, which has gone; {_CONTINUE}"
                else:
                    if found is not None:
                        self._tell(found)
                    continue
            if not self._done.wait(_GRACE_SECONDS):
                here = f"process {self._rank} of {self._size}"
                with suppress(OSError):
                    print(
                        f"bn-inception: {here} ends, because of {said}", file=sys.stderr, flush=True
                    )
                os._exit(2)

    def _heard(self, seconds: float) -> str | None:
        """What a failed process said, as one line; None if nothing comes within `seconds`."""
        until = time.monotonic() + seconds
        while True:
            # The thread may hold it for ever, in a call to a store that does not answer.
            if not self._lock.acquire(timeout=max(0.1, until - time.monotonic())):
                return None
            try:
                if self._store.check([_FAILURE]):
                    return str(self._store.get(_FAILURE).decode())
            except RuntimeError:
                return None
            finally:
                self._lock.release()
            if time.monotonic() >= until:
                return None
            time.sleep(0.1)

    def _tell(self, text: str) -> None:
        # The store may have gone, and with it those who would listen.
        with suppress(RuntimeError), self._lock:
            self._store.compare_set(_FAILURE, "", text)

    def _missing(self) -> str | None:
        """Give a sign of life, and name a process that does not come, as one line; or None."""
        begun = self._begun()
        self._beats += 1
        self._store.set(f"{_SIGN_OF_LIFE}/{self._rank}", f"{begun} {self._beats}")
        waited = self._since(self._rank, str(begun))
        lost = self._lost.is_set()  # an exchange with the others has failed: silence is enough
        if not (lost or waited > 2 * _WATCH_SECONDS):
            return None
        late, behind = waited >= self._timeout, None
        for rank in (rank for rank in range(self._size) if rank != self._rank):
            key = f"{_SIGN_OF_LIFE}/{rank}"
            said = self._store.get(key).decode() if self._store.check([key]) else "0 0"
            if self._since(rank, said) > _SILENT_SECONDS and (lost or late):
                return self._failed(rank, "does not run: stopped, killed, or its machine has gone")
            if behind is None and int(said.split()[0]) < begun:
                behind = rank
        if behind is not None and late:
            seconds = f"{self._timeout:g} s (machine.timeout)"
            return self._failed(behind, f"hangs: the others have waited for it {seconds}")
        return None

    def _since(self, rank: int, said: str) -> float:
        """Seconds for which `rank` has said the same."""
        now = time.monotonic()
        if rank not in self._changed or self._changed[rank][0] != said:
            self._changed[rank] = (said, now)
        return now - self._changed[rank][1]

    def _failed(self, rank: int, what: str) -> str:
        return f"process {rank} of {self._size} {what}; {_CONTINUE}"
