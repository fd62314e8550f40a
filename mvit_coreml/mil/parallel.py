"""Runs many images in parallel, on one thread for each of the processor's cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from mvit_coreml.errors import InputError

if TYPE_CHECKING:
    from mvit_coreml.mil.interpreter import Runtime
    from mvit_coreml.mil.predictor import Predictor

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_images(
    runner: Runtime | Predictor,
    images: Iterable[Item],
    *,
    load: Callable[[Item], Any] | None = None,
    workers: int | None = None,
    outputs: Sequence[str] | None = None,
    **options: Any,
) -> Generator[dict[str, Any], None, None]:
    """Run every image and yield the results in the order of the images.

    Images are read from the iterable only a little ahead of the results, so any number of them
    fits into memory. Each worker is a thread that runs whole images with one torch thread:
    torch releases Python's lock while it computes, and two images at a time keep two cores
    busier than two cores on one image do. Results do not depend on the number of workers.

    Args:
        runner: runtime or predictor of a package with a single input.
        images: the images, or anything that ``load`` turns into one.
        load: called in the worker; reading and fitting images is spread over the cores this way.
        workers: number of threads, the number of usable cores if None.
        outputs: names of the outputs to compute, all if None.
        **options: further arguments of ``run``.

    Raises:
        InputError: the package has several inputs, or ``workers`` is not positive.
        MvitCoremlError: whatever a run raises, when its turn comes.
    """
    names = [feature.name for feature in runner.function.inputs]
    if len(names) != 1:
        raise InputError(f"images need a package with one input; this one has {len(names)}")

    def run(item: Item) -> dict[str, Any]:
        image = load(item) if load is not None else item
        return runner.run({names[0]: image}, outputs, **options)

    return parallel_map(run, images, workers)


def parallel_map(
    run: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Generator[Result, None, None]:
    """Call a function that computes with torch for every item, on threads of one core each.

    Args:
        run: called with an item, in a worker.
        items: read only a little ahead of the results.
        workers: number of threads, the number of usable cores if None.

    Returns:
        The results, in the order of the items.

    Raises:
        InputError: ``workers`` is not positive.
    """
    count = _usable_cores() if workers is None else workers
    if count < 1:
        raise InputError(f"workers must be positive, not {count}")
    return _in_order(run, items, count)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: faster for many small steps, and the same on any machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _in_order(
    run: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    threads = torch.get_num_threads()
    pending: deque[Future[Result]] = deque()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                for item in items:
                    pending.append(pool.submit(run, item))
                    if len(pending) > 2 * workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()
    finally:
        torch.set_num_threads(threads)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
