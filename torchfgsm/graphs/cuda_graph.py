"""A function recorded as a CUDA graph and replayed: warm-up, capture, and what it cannot do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

_WARM_UPS = 3


class CudaGraph:
    """Records a function as a CUDA graph and replays it.

    Args:
        device: Where the graph runs.
    """

    device_type = "cuda"

    def __init__(self, device: torch.device) -> None:
        with torch.cuda.device(device):
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._graph = torch.cuda.CUDAGraph()
        self._device = device

    @staticmethod
    def why_not(device: torch.device) -> str | None:
        """Why nothing on this device can be captured; None where it can."""
        if device.type == "cuda":
            return None
        known = "" if torch.cuda.is_available() else ", and torch sees no CUDA device here"
        return f"x is on {device}{known}"

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """On the current stream, after replays on other streams: all share the buffers."""
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream()
            stream.wait_event(self._done)
            yield
            self._done.record(stream)

    def record(self, run: Callable[[], Any], generator: torch.Generator | None) -> Any:
        """Captures `run` after warm-up runs, which load kernels and choose algorithms.

        Args:
            run: What is captured; it must read and write the same memory each time.
            generator: The source of its random numbers, if it has one.

        Returns:
            The results of `run`, in memory that each replay writes anew.

        Raises:
            RuntimeError: `run` cannot be captured; torch's error is the cause.
        """
        with torch.cuda.device(self._device):
            before = torch.cuda.current_stream()
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(before)
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    run()
                results = self._record_on(side, run, generator)
            before.wait_stream(side)
        return results

    def _record_on(
        self, side: torch.cuda.Stream, run: Callable[[], Any], generator: torch.Generator | None
    ) -> Any:
        capturing = False
        try:
            # What waits for the device is found here, where it does not break a capture.
            with _refusing_to_wait():
                run()
            if generator is not None:
                self._graph.register_generator_state(generator)
            capturing = True
            # Other threads may go on meanwhile, such as a data loader's that pins memory.
            with torch.cuda.graph(self._graph, stream=side, capture_error_mode="thread_local"):
                return run()
        except RuntimeError as error:
            if capturing:
                _end_broken_capture(side)
            raise RuntimeError(
                f"this attack cannot be captured as a CUDA graph: {_first_line(error)} A graph "
                "runs on the device alone, without .item(), .cpu(), nonzero() or branches on "
                "values in the model and its loss; torchfgsm.attack runs them"
            ) from error

    def replay(self) -> None:
        """Runs what was captured, on the current stream."""
        self._graph.replay()


@contextlib.contextmanager
def _refusing_to_wait() -> Iterator[None]:
    """Makes torch raise where the host would wait for the device."""
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)


def _end_broken_capture(side: torch.cuda.Stream) -> None:
    """Captures something that works: a broken capture leaves random generators in capture mode."""
    with (
        contextlib.suppress(RuntimeError),
        torch.cuda.stream(side),
        torch.cuda.graph(torch.cuda.CUDAGraph(), stream=side),
    ):
        torch.zeros(1, device=side.device)


def _first_line(error: BaseException) -> str:
    """What went wrong first; ending the capture raises once more."""
    while error.__context__ is not None:
        error = error.__context__
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{line.rstrip('.')}."
