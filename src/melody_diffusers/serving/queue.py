"""Who is next: one thread makes music for many requests, a part of it at a time.

A `Job` is a request that passed all checks. Its work is a generator that rests between parts, so that streams play side
by side. Whole pieces that wait and are alike become one batch.
"""

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What a server accepts, checked before a model runs.

    Args:
        max_body_bytes: of a request without a recording. max_upload_bytes: of one with it.
        max_seconds: of music that is asked for, and of a recording.
        max_live_seconds: after which a live stream ends.
        max_steps: reverse steps of the diffusion.
        max_waiting: requests that wait; the next is told to come back.
        max_playing: streams that are made side by side.
        max_batch: requests that are rendered at once.
        deadline_seconds: within which a request must have its answer, or a stream its first sound.
        lead_seconds: by which a live stream is ahead of what is heard.
    """

    max_body_bytes: int = 1 << 20
    max_upload_bytes: int = 20 << 20
    max_seconds: float = 300.0
    max_live_seconds: float = 3600.0
    max_steps: int = 100
    max_waiting: int = 16
    max_playing: int = 4
    max_batch: int = 8
    deadline_seconds: float = 120.0
    lead_seconds: float = 6.0


class Stopped(Exception):
    """Nobody waits for this work any more."""


class Overdue(Exception):
    """The work was not done in time."""


class Full(Exception):
    """There is no room for another request; `retry_after` seconds may help."""

    def __init__(self, message: str, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(message)


_END = object()
MAX_UNREAD = 4  # parts of a stream that lie ready for a client; then it rests


class Job:
    """A request on its way.

    Args:
        run: the work, a generator function of the jobs that are done at once. It calls their `give`, and rests where it
            yields.
        client: whose it is.
        arguments: of the work.
        alike: jobs with an equal value may be done at once; None for none.
        size: share of the largest batch that it takes, 0 to 1.
    """

    def __init__(
        self,
        run: Callable[[list["Job"]], Generator[None, None, None]],
        client: str,
        arguments: dict[str, Any],
        alike: Any = None,
        size: float = 1.0,
    ) -> None:
        self.run, self.client, self.arguments, self.alike, self.size = run, client, arguments, alike, size
        self.is_stopped = False
        self.not_before = 0.0  # by the clock of `time.monotonic`
        self.unread_since: float | None = None
        self._unread = 0
        self._parts: asyncio.Queue[Any] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: Callable[[], None] = lambda: None

    def give(self, part: Any) -> None:
        """Hands on a part of the result; called by the work."""
        self._unread += 1
        self.unread_since = time.monotonic() if self._unread >= MAX_UNREAD else None
        self._put(part)

    def check(self) -> None:
        """Ends the work by an exception if nobody waits for it; called by the work before each pass of a network."""
        if self.is_stopped:
            raise Stopped

    def is_ready(self, now: float) -> bool:
        return self.is_stopped or (self._unread < MAX_UNREAD and now >= self.not_before)

    def end(self, error: BaseException | None = None) -> None:
        self._put(_END if error is None else error)

    def _put(self, item: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._parts.put_nowait, item)

    async def parts(self, deadline_seconds: float) -> AsyncIterator[Any]:
        """The parts as they come; the first within the deadline.

        Raises:
            Overdue: it was not.
            Exception: what the work ended with.
        """
        timeout: float | None = deadline_seconds
        while True:
            try:
                part = await asyncio.wait_for(self._parts.get(), timeout)
            except asyncio.TimeoutError:
                raise Overdue from None
            timeout = None
            if part is _END:
                return
            if isinstance(part, BaseException):
                raise part
            self._unread, self.unread_since = self._unread - 1, None
            self._changed()
            yield part


Turn = tuple[list[Job], Generator[None, None, None], float]
"""Jobs that are done at once, their work, and when it began."""


class Queue:
    """The jobs of a server, and the thread that does them, from the first job until `close`.

    Args:
        limits: `max_waiting`, `max_playing`, `max_batch` and `deadline_seconds` count here.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.refused = 0
        self.places = 0  # requests at the door or further, until they are answered
        self.batches: Counter[int] = Counter()  # how many had how many jobs
        self.seconds_a_job = 1.0  # lately
        self._waiting: list[Job] = []
        self._turns: list[Turn] = []
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return sum(len(jobs) for jobs, *_ in self._turns)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one request, from before its body is read until its answer has been sent.

        Raises:
            Full: as many wait as may.
        """
        waiting = self.places - self.num_running
        if waiting >= self.limits.max_waiting:
            self.refused += 1
            seconds = min(60, max(1, math.ceil(waiting * self.seconds_a_job)))
            raise Full(f"{waiting} requests wait already; try again in {seconds} s.", seconds)
        self.places += 1
        try:
            yield
        finally:
            self.places -= 1

    def add(self, job: Job) -> None:
        job._changed, job._loop = self._notify, asyncio.get_running_loop()
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
            if self._thread is None:
                self._is_closed = False
                self._thread = threading.Thread(target=self._work, name="melody-queue", daemon=True)
                self._thread.start()

    def stop(self, job: Job) -> None:
        """Ends a job before the next pass of a network, or before it begins."""
        job.is_stopped = True
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
            self._changed.notify()

    def close(self) -> None:
        """Ends all jobs and the thread; another job begins anew."""
        with self._changed:
            self._is_closed = True
            for job in [*self._waiting, *(job for jobs, *_ in self._turns for job in jobs)]:
                job.is_stopped = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout=10)
            self._thread = None

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._is_closed and not self._admit() and not self._is_any_ready():
                    self._changed.wait(self._rest())
                if self._is_closed:
                    for jobs, steps, _ in self._turns:
                        steps.close()
                        for job in jobs:
                            job.end(Stopped())
                    for job in self._waiting:
                        job.end(Stopped())
                    self._turns, self._waiting = [], []
                    return
                ready = next(
                    (turn for turn in self._turns if any(job.is_ready(time.monotonic()) for job in turn[0])), None
                )
            if ready is not None:
                self._take(ready)

    def _take(self, turn: Turn) -> None:
        """One part of the work of a turn, which then goes to the end of the line."""
        jobs, steps, started = turn
        error: BaseException | None = None
        try:
            next(steps)
            is_over = False
        except StopIteration:
            is_over = True
        except Exception as caught:
            is_over, error = True, caught
        with self._changed:
            self._turns.remove(turn)
            if not is_over:
                self._turns.append(turn)
        if is_over:
            if error is None and len(jobs) * self.seconds_a_job > 0:
                taken = (time.monotonic() - started) / len(jobs)
                self.seconds_a_job += 0.2 * (taken - self.seconds_a_job)
            for job in jobs:
                job.end(error)

    def _is_any_ready(self) -> bool:
        now = time.monotonic()
        for jobs, *_ in self._turns:
            for job in jobs:
                if job.unread_since is not None and now - job.unread_since > self.limits.deadline_seconds:
                    job.is_stopped = True  # whoever listened does not read
        return any(job.is_ready(now) for jobs, *_ in self._turns for job in jobs)

    def _rest(self) -> float | None:
        """Seconds until something may be ready by itself."""
        now = time.monotonic()
        times = [job.not_before - now for jobs, *_ in self._turns for job in jobs if job.not_before > now]
        if any(job.unread_since is not None for jobs, *_ in self._turns for job in jobs):
            times.append(1.0)
        return max(0.001, min(times)) if times else None

    def _admit(self) -> bool:
        """Begins what waits and may begin: one job for each client, and with it those like it."""
        if len(self._turns) >= self.limits.max_playing:
            return False
        busy = {job.client for jobs, *_ in self._turns for job in jobs}
        first = next((job for job in self._waiting if job.client not in busy), None)
        if first is None:
            return False
        jobs, room = [first], 1.0 - first.size
        if first.alike is not None:
            for job in self._waiting:
                fits = len(jobs) < self.limits.max_batch and job.size <= room
                if job is not first and job.alike == first.alike and job.client not in busy and fits:
                    jobs.append(job)
                    room -= job.size
        self._waiting = [job for job in self._waiting if job not in jobs]
        self.batches[len(jobs)] += 1
        self._turns.append((jobs, first.run(jobs), time.monotonic()))
        return True
