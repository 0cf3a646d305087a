"""Why the native kernels cannot run."""


class KernelUnavailable(RuntimeError):  # noqa: N818 - says what is the matter
    """The kernels cannot be compiled, loaded or launched here; the text says why."""
