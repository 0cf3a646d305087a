"""What went wrong, out of the long texts in which TensorFlow and Keras wrap it.

Needs no TensorFlow: errors that come from its process are told with it, too.
"""

from __future__ import annotations

import re

_COLOURS = re.compile(r"\x1b\[\d*m")
_ARGUMENTS = re.compile(r"\n\s*(?:Call arguments|Arguments) received")
# Python code that Keras or a graph ran: the last error named in a trace is the cause.
_IN_A_TRACE = re.compile(r"\n\s+\w*Error: ")
_LAYER = re.compile(r"Exception encountered when calling (.+)\.\n")
# Lines around the cause of an error inside a graph.
_FRAMES = re.compile(
    r"^\s*(?:Graph execution error:|Detected at node .*|File \".*|<stack traces unavailable>|"
    r"\d+ root error\(s\) found\.)\s*$",
    re.MULTILINE,
)
_INTERNAL = re.compile(r"\{\{function_node [^}]*\}\}\s*|; NodeDef: .*|\[Op:\w+\]")
_NODE = re.compile(r"\[\[\{\{node ([^}]*)\}\}\]\]")
# An object that cannot be made from its configuration, which may be very long.
_CONFIGURATION = re.compile(r" using config=.*?Exception encountered: ", re.DOTALL)


def cause(text: str) -> str:
    """Returns an error's text as one line, without traces, call arguments and configurations.

    Of layers that were called inside each other the innermost is named.
    """
    text = _ARGUMENTS.split(_COLOURS.sub("", text))[0]
    layers = _LAYER.findall(text)
    text = _LAYER.sub("", _IN_A_TRACE.split(text)[-1])
    text = _INTERNAL.sub("", _FRAMES.sub("", text))
    text = _NODE.sub(r"(node \1)", _CONFIGURATION.sub(": ", text))
    return " ".join([f"{layers[-1]}:" if layers else "", *text.split()]).strip()
