"""Serves one worker script: ``python -I serve.py SCRIPT FD_IN FD_OUT KERAS``.

KERAS is the generation of Keras, 2 or 3. SCRIPT is a Python file that defines
``HANDLERS: dict[str, handler]`` where a handler takes
``(params: dict, arrays: dict[str, ndarray])`` and returns ``(values: dict, arrays: dict)``.
Requests come on FD_IN and replies go to FD_OUT, both in the form of ``frames.py``; stdout and
stderr stay free for whatever TensorFlow prints. Runs until the other end of FD_IN is closed, which
it notices between two requests; ``guard.py`` ends it in the middle of one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import traceback

# `python -I` leaves the script's own folder out of sys.path.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import frames
import stand_ins


def _load_handlers(script):
    spec = importlib.util.spec_from_file_location("worker_script", script)
    module = importlib.util.module_from_spec(spec)
    # Registered under its own name too, so that dataclasses and pickling inside TensorFlow work.
    sys.modules["worker_script"] = module
    spec.loader.exec_module(module)
    return module.HANDLERS


def _failure(error):
    header = {
        "ok": False,
        "kind": type(error).__name__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__)),
    }
    return frames.pack(header, {})


def _answer(handlers, header, arrays):
    method = header["method"]
    if method not in handlers:
        raise LookupError(f"no handler {method!r}; this worker has {', '.join(sorted(handlers))}")
    values, results = handlers[method](header["params"], arrays)
    return frames.pack({"ok": True, "values": values}, results)


def main(script, fd_in, fd_out, keras):
    """Answers requests one after the other until the pipe closes."""
    for fd in (fd_in, fd_out):
        os.set_inheritable(fd, False)
    requests, replies = os.fdopen(fd_in, "rb"), os.fdopen(fd_out, "wb")

    def read(count):
        data = requests.read(count)
        if len(data) < count:
            raise EOFError
        return data

    handlers, load_error = {}, None
    try:
        if keras == "2":
            stand_ins.keras_2()
        handlers = _load_handlers(script)
    except BaseException as error:  # also SystemExit: it is reported with the first call
        load_error = error
    while True:
        try:
            header, arrays = frames.unpack(read)
        except EOFError:
            return
        try:
            if load_error is not None:
                raise load_error
            reply = _answer(handlers, header, arrays)
        except BaseException as error:
            reply = _failure(error)
        with contextlib.suppress(OSError, ValueError):  # a full disk, or the script closed it
            sys.stdout.flush()
        replies.write(reply)
        replies.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
