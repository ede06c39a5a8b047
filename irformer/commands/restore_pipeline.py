"""Reading and writing images in threads while the network works, with results in the order of the images."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event
from typing import Generic, TypeVar

from irformer.errors import UserError
from irformer.imaging.images import OutOfMemoryError

Item = TypeVar("Item")
Read = TypeVar("Read")
Computed = TypeVar("Computed")
Encoded = TypeVar("Encoded")
Written = TypeVar("Written")


class Pipeline(Generic[Item, Read, Computed, Encoded, Written]):
    """Reads items ahead, computes them one at a time in the calling thread, and encodes them behind it.

    At most `workers` items are read ahead, and as many wait to be written, so memory is bounded. Encoding runs in parallel; files are
    written one at a time, in order. A step that fails for lack of memory is repeated in the calling thread, where nothing else is computed
    at that time.

    Args:
        read: reads an item.
        compute: computes its result.
        encode: encodes the result.
        write: writes what was encoded.
        workers: threads that read, and threads that encode and write.
    """

    def __init__(
        self,
        read: Callable[[Item], Read],
        compute: Callable[[Item, Read], Computed],
        encode: Callable[[Item, Computed], Encoded],
        write: Callable[[Item, Encoded], Written],
        workers: int,
    ) -> None:
        self.read = read
        self.compute = compute
        self.encode = encode
        self.write = write
        self.workers = workers
        self._disk_failed = Event()

    def run(self, items: Sequence[Item], stopped: Callable[[], bool]) -> Iterator[tuple[Item, Written | UserError]]:
        """Yield each item with what `write` returned, or with the error that ended it, in order.

        An `OSError` of `write` is yielded as a `DiskError`. Nothing is written after it, and the iteration ends.

        Args:
            items: what to process.
            stopped: asked before each item is computed; if true, items that were computed are written, and the iteration ends.
        """
        readers, writers = (ThreadPoolExecutor(self.workers, name) for name in ("read", "write"))
        try:
            ahead = iter(items)
            reading: deque[tuple[Item, Future[Read]]] = deque()
            writing: deque[tuple[Item, Future[Written], Callable[[], Written]]] = deque()
            previous: Future[Written] | None = None
            for _ in items:
                while len(reading) < self.workers and (item := next(ahead, None)) is not None:
                    reading.append((item, readers.submit(self.read, item)))
                if stopped() or self._disk_failed.is_set():
                    break
                item, future = reading.popleft()
                previous, again = self._computed(item, future, writers, previous)
                writing.append((item, previous, again))
                while writing and (len(writing) > self.workers or writing[0][1].done()):
                    yield from self._collected(*writing.popleft())
            while writing:
                yield from self._collected(*writing.popleft())
        finally:
            # A second Ctrl-C does not wait for files that are being read.
            for executor in (readers, writers):
                executor.shutdown(wait=False, cancel_futures=True)

    def _computed(
        self, item: Item, future: Future[Read], writers: ThreadPoolExecutor, previous: Future[Written] | None
    ) -> tuple[Future[Written], Callable[[], Written]]:
        """Compute an item; return the future of its file, which follows the previous one, and a function that writes the file again."""
        try:
            try:
                read = future.result()
            except OutOfMemoryError:
                read = self.read(item)
            computed = self.compute(item, read)
        except UserError as error:
            failed = writers.submit(self._raised, error, previous)
            return failed, failed.result
        return writers.submit(self._written, item, computed, previous), lambda: self._written(item, computed, None)

    def _written(self, item: Item, computed: Computed, previous: Future[Written] | None) -> Written:
        try:
            encoded = self.encode(item, computed)
        finally:
            if previous is not None:
                wait([previous])
        if self._disk_failed.is_set():
            raise _NotWrittenError
        try:
            return self.write(item, encoded)
        except OSError as error:
            self._disk_failed.set()
            raise DiskError(error.strerror or str(error)) from None

    def _raised(self, error: UserError, previous: Future[Written] | None) -> Written:
        """Raise the error of an item once the previous file is written, for which the next one waits."""
        if previous is not None:
            wait([previous])
        raise error

    @staticmethod
    def _collected(item: Item, future: Future[Written], again: Callable[[], Written]) -> Iterator[tuple[Item, Written | UserError]]:
        outcome: Written | UserError
        try:
            try:
                outcome = future.result()
            except OutOfMemoryError:
                outcome = again()
        except _NotWrittenError:
            return
        except UserError as error:
            outcome = error
        yield item, outcome


class DiskError(UserError):
    """A file cannot be written, and neither could the next one; the message is the reason alone."""


class _NotWrittenError(Exception):
    """An item was not written, because the disk had failed before."""
