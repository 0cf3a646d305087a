# mypy: ignore-errors
"""Handlers that answer, fail and misbehave, for tests of the protocol; needs no TensorFlow."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time

import frames
import numpy as np

_SHOWN = ("TF_ENABLE_ONEDNN_OPTS", "CUDA_VISIBLE_DEVICES", "TF_USE_LEGACY_KERAS")


def noisy(params, arrays):
    print("to stdout", flush=True)
    os.write(1, b"\x00 raw bytes")
    os.write(2, b"to stderr")
    return {}, {}


def raises(params, arrays):
    raise KeyError(params["key"])


def dies(params, arrays):
    print("the last words", flush=True)
    os._exit(7)


def killed(params, arrays):
    os.kill(os.getpid(), signal.SIGSEGV)


def sleeps(params, arrays):
    child = subprocess.Popen(["sleep", "300"])
    with open(params["file"], "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    time.sleep(300)


def garbage(params, arrays):
    os.write(int(sys.argv[3]), bytes(params["bytes"]))
    time.sleep(300)


def grows(params, arrays):
    held = []
    while True:
        held.append(np.ones(params["step"]))
        time.sleep(0.001)


def closes(params, arrays):
    os.close(int(sys.argv[3]))
    time.sleep(300)


def holds_the_interpreter(params, arrays):
    with open(params["file"], "w") as file:
        file.write(f"{os.getpid()} {os.getpid()}")
    ctypes.PyDLL(None).sleep(300)  # unlike CDLL it keeps the lock: no other thread runs


def chatters(params, arrays):
    line = b"chatter " * 1000 + b"\n"
    size = largest = 0
    while size < params["size"]:
        size += os.write(1, line)
        largest = max(largest, os.fstat(1).st_size)
        time.sleep(params["pause"])
    os.write(1, b"\x1b[2Jthe last\x07 words\n")
    return {"largest": largest}, {}


def full(params, arrays):
    with open("/dev/full", "w") as target:
        os.dup2(target.fileno(), 1)
    print("lost")
    return {}, {}


def leaves_files(params, arrays):
    with tempfile.NamedTemporaryFile(delete=False) as file:
        return {"file": file.name}, {}


def half(params, arrays):
    reply = frames.pack({"ok": True, "values": {}}, {"a": np.ones(9)})
    os.write(int(sys.argv[3]), reply[:60])
    os._exit(0)


def state(params, arrays):
    return {
        "env": {name: os.environ.get(name) for name in _SHOWN},
        "isolated": sys.flags.isolated,
        "pid": os.getpid(),
        "path": sys.path,
        "float": np.float32(0.5),
    }, {}


HANDLERS = {
    "echo": lambda params, arrays: (params, arrays),
    "noisy": noisy,
    "raises": raises,
    "dies": dies,
    "killed": killed,
    "sleeps": sleeps,
    "garbage": garbage,
    "half": half,
    "grows": grows,
    "closes": closes,
    "holds_the_interpreter": holds_the_interpreter,
    "chatters": chatters,
    "full": full,
    "leaves_files": leaves_files,
    "large": lambda params, arrays: ({}, {"x": np.zeros(params["size"], np.uint8)}),
    "state": state,
    "leaves": lambda params, arrays: sys.exit("on purpose"),
    "unsendable": lambda params, arrays: ({"x": object()}, {}),
    "objects": lambda params, arrays: ({}, {"x": np.array([None])}),
    "nothing": lambda params, arrays: None,
}
