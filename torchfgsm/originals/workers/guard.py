"""Guards a command: ``python -I guard.py LIMIT FOLDER COMMAND ARGUMENT...``.

stdin is a socket to the caller, who sends nothing. Once the caller's end is closed, because the
caller is done with the command or was killed, the command is killed and FOLDER, unless it is "", is
removed. A command that takes more than LIMIT bytes of memory (0: as much as there is) is killed,
too, and the caller is told by the socket how many it took. However the command ends, what it
started ends with it, and this process ends in the same way: with its exit code or by its signal.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys

_PERIOD = 100  # milliseconds between two looks at the memory
_LARGEST_LOG = 64 << 20  # bytes; an output that goes into a file begins anew after them
_PAGE = resource.getpagesize()


def main(limit, folder, command):
    """Runs the command and ends as it did."""
    ended = _wake_pipe()
    child = os.fork()
    if child == 0:
        _become(command)
    with contextlib.suppress(OSError):  # the child does it, too: whoever comes first
        os.setpgid(child, child)
    # The end of the caller is the one reason to go: it ends everything else as well.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _close_all_but({0, 1, 2, *ended})
    caller_is_gone = _watch(child, limit, ended[0])
    # Its number is its own until it has been waited for.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if folder and caller_is_gone:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
    _end_as(status)


def _wake_pipe():
    """Both ends of a pipe to which a child's end writes."""
    ends = os.pipe()
    os.set_blocking(ends[1], False)
    signal.set_wakeup_fd(ends[1], warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    return ends


def _become(command):
    os.setpgid(0, 0)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, others may not
        signal.signal(number, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(127)


def _close_all_but(kept):
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd not in kept:
            with contextlib.suppress(OSError):
                os.close(fd)


def _watch(child, limit, ended):
    """Waits until the child has ended or shall be; whether that is because the caller is gone."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(ended, select.POLLIN)
    while True:
        ready = dict(poll.poll(_PERIOD))
        if _has_ended(child):
            return False
        if 0 in ready:
            return True
        if ended in ready:  # it was stopped or goes on
            os.read(ended, 4096)
        used = _memory(child)
        if limit and used > limit:
            with contextlib.suppress(OSError):
                os.write(0, str(used).encode())
            return False
        _shorten_log()


def _has_ended(child):
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _memory(child):
    """Bytes that lie in memory for a process."""
    try:
        with open(f"/proc/{child}/statm") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def _shorten_log():
    """Empties an output file that grew too large; written to at its end, it goes on from there."""
    with contextlib.suppress(OSError):
        if os.fstat(1).st_size > _LARGEST_LOG:
            os.ftruncate(1, 0)


def _end_as(status):
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command's own core says more
        with contextlib.suppress(OSError):  # SIGKILL needs no default action
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
