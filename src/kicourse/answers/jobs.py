"""Asynchronous jobs that say when they begin and end, so that a check can see in what order an answer runs them.

No job takes real time: it gives way to the others for a number of turns of the event loop, or until enough of the
others have begun. One that waits in vain goes on after `patience` seconds, so that nobody waits for ever.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any

_TURNS = 100  # of the event loop, in which whatever need not wait happens


class Jobs:
    """One job for each number in `turns`.

    `begin(number)` and `end(number)` are the check's: what `end` returns, or raises, is what the job returns or raises.
    `stopped(number)` is called when a job is cancelled. Job i waits until `crowd[i]` jobs have begun, if there is a
    crowd, and then for `turns[i]` turns.
    """

    def __init__(
        self,
        turns: Sequence[int],
        begin: Callable[[int], Any],
        end: Callable[[int], Any],
        stopped: Callable[[int], Any],
        crowd: Sequence[int] = (),
        patience: float = 0.5,
    ) -> None:
        self.turns, self.begin, self.end, self.stopped = turns, begin, end, stopped
        self.crowd, self.patience = crowd, patience
        self.begun = 0

    def as_list(self) -> list[Callable[[], Awaitable[Any]]]:
        """Return the jobs, each an asynchronous function without arguments."""
        return [self._job(number) for number in range(len(self.turns))]

    async def until_begun(self, count: int) -> None:
        """Wait until so many jobs have begun, or until there is no more patience."""
        start, turns = time.monotonic(), 0
        # Turns are counted too: when the whole machine stood still, the others have had none.
        while self.begun < count and (turns < _TURNS or time.monotonic() < start + self.patience):
            await asyncio.sleep(0)
            turns += 1

    def _job(self, number: int) -> Callable[[], Awaitable[Any]]:
        async def job() -> Any:
            self.begin(number)
            self.begun += 1
            try:
                if self.crowd:
                    await self.until_begun(self.crowd[number])
                for _turn in range(self.turns[number]):
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                self.stopped(number)
                raise
            return self.end(number)

        return job


def cancel(
    answer: Callable[[Any, int], Any], jobs: Jobs, limit: int, cancelling: Callable[[], Any], over: Callable[[str], Any]
) -> None:
    """Call `answer` with jobs, cancel it once `limit` of them have begun, and report how it ended.

    The jobs have more patience than this, and lose it some turns after the cancellation: so what happens, and in what
    order, does not depend on how fast the machine is.
    """
    patience, jobs.patience = jobs.patience, 20 * jobs.patience

    async def call() -> None:  # so that any awaitable will do
        await answer(jobs.as_list(), limit)

    async def main() -> None:
        task = asyncio.create_task(call())
        start = time.monotonic()
        while jobs.begun < limit and not task.done() and time.monotonic() < start + patience:
            await asyncio.sleep(0)
        cancelling()
        task.cancel()
        for _turn in range(_TURNS):
            await asyncio.sleep(0)
        jobs.patience = 0
        done, _pending = await asyncio.wait({task}, timeout=patience)
        over("cancelled" if task.cancelled() else "ended" if done else "running")
        if done and not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain of it

    asyncio.run(main())


def run_within(answer: Callable[[Any, int], Any], jobs: Jobs, limit: int, seconds: float) -> list[list[Any]] | None:
    """Call `answer` with jobs and describe what it returns; None if it is not over after `seconds`."""

    async def main() -> list[list[Any]] | None:
        try:
            return described(await asyncio.wait_for(answer(jobs.as_list(), limit), seconds))
        except TimeoutError:
            return None

    return asyncio.run(main())


def described(results: Sequence[Any]) -> list[list[Any]]:
    """Return results as data: ["value", x], or the name and the text of an exception."""
    return [
        ["exception", type(result).__name__, str(result)] if isinstance(result, BaseException) else ["value", result]
        for result in islice(results, 1000)
    ]
