"""The page about conversions, from the rows alone."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.conversions.rows import ROUTES, VERSIONS, Rows

_TITLES = {
    "keras": ".keras",
    "onnx": ".onnx (exported)",
    "h5": ".h5",
    "saved_model": "SavedModel",
    "frozen": "frozen .pb",
    "tflite": ".tflite",
}
_SPEED_HEADINGS = ("model", "batch", "who", "median ms", "p20", "p80", "times by hand", "note")


def page(rows: Rows, speed: Rows) -> str:
    """The text of docs/conversions.md."""
    parts = [
        "# Conversions, measured",
        "Written by `python -m benchmarks.conversions.table` from "
        "`benchmarks/results/conversions.csv`: every model of `benchmarks/conversions/zoo` with "
        "random weights, saved by Keras in each form, converted, and compared with TensorFlow.",
        _counts(rows),
        _versions(rows),
        "## Models",
        "`ok`: outputs and input gradients agree with TensorFlow's, and every float that Keras "
        "trains is trained. The errors are the largest over all batches, routes and entries, "
        "relative to the example's largest entry; `*` marks where float64 had to judge because "
        "float32 rounds differently on the two sides. Seconds are those of the .keras file: export "
        "in TensorFlow, build, verification.",
        _models(rows),
        *_not_converted(rows),
        *_speed(speed),
    ]
    return "\n\n".join(parts) + "\n"


def _table(headings: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    headings = list(headings)
    texts = [headings, ["---"] * len(headings), *lines]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in texts)


def _counts(rows: Rows) -> str:
    """How many conversions are ok, by route and Keras version."""
    versions = sorted({row["keras"] for row in rows})
    lines = []
    for route in ROUTES:
        cells = [_TITLES[route]]
        for keras in versions:
            of = [row for row in rows if (row["route"], row["keras"]) == (route, keras)]
            saved = [row for row in of if row["verdict"] != "not saved"]
            text = f"{sum(row['verdict'] == 'ok' for row in of)} of {len(saved)}"
            unsaved = len(of) - len(saved)
            cells.append(text + (f" ({unsaved} Keras cannot save)" if unsaved else ""))
        lines.append(cells)
    return _table(["converted", *(f"Keras {version}" for version in versions)], lines)


def _versions(rows: Rows) -> str:
    lines = []
    for keras in sorted({row["keras"] for row in rows}):
        of = [row for row in rows if row["keras"] == keras]
        named = []
        for field in VERSIONS:
            found = " or ".join(sorted({row[field] for row in of}))
            named.append(f"{field.removesuffix('_version')} {found}")
        devices = " or ".join(sorted({row["device"] for row in of}))
        lines.append(f"Keras {keras}: {', '.join(named)}; {devices}.")
    return "  \n".join(lines)


def _models(rows: Rows) -> str:
    headings = ["model", "Keras", *(_TITLES[route] for route in ROUTES)]
    headings += ["output error", "gradient error", "trained floats", "training step", "seconds"]
    lines = []
    for model, keras in dict.fromkeys((row["model"], row["keras"]) for row in _ordered(rows)):
        of = {r["route"]: r for r in rows if (r["model"], r["keras"]) == (model, keras)}
        verdicts = [of[route]["verdict"] if route in of else "" for route in ROUTES]
        errors = [_worst(of.values(), f"{kind}_error") for kind in ("output", "gradient")]
        lines.append([model, keras, *verdicts, *errors, *_of_keras_file(of.get("keras"))])
    return _table(headings, lines)


def _ordered(rows: Rows) -> Rows:
    """The rows by model, in the order in which the models came first."""
    order = {model: i for i, model in enumerate(dict.fromkeys(row["model"] for row in rows))}
    return sorted(rows, key=lambda row: (order[row["model"]], row["keras"]))


def _worst(rows: Iterable[dict[str, str]], field: str) -> str:
    measured = [row for row in rows if row[field]]
    if not measured:
        return ""
    text = f"{max(float(row[field]) for row in measured):.0e}"
    return text + "*" * any(row["float64"] == "True" for row in measured)


def _of_keras_file(row: dict[str, str] | None) -> list[str]:
    """Trained floats, training step and seconds of the .keras route."""
    if row is None:
        return ["", "", ""]
    trained = row["trained"]
    if trained and trained != row["keras_trained"]:
        trained += f" of {row['keras_trained']}"
    step = "ok" if row["training"] == "ok" else "see below" if row["training"] else ""
    seconds = [float(row[f"{part}_s"] or 0) for part in ("export", "build", "verify")]
    return [trained, step, " + ".join(f"{s:.1f}" for s in seconds) if any(seconds) else ""]


def _not_converted(rows: Rows) -> list[str]:
    """What is not ok, with the reason of each; routes with the same reason share a line."""
    reasons: dict[tuple[str, str, str, str], list[str]] = {}
    for row in _ordered(rows):
        found = [(row["verdict"], row["reason"])] if row["verdict"] != "ok" else []
        if row["training"] not in ("", "ok"):
            found.append(("training step", row["training"]))
        for verdict, reason in found:
            key = (row["model"], row["keras"], verdict, reason)
            reasons.setdefault(key, []).append(_TITLES[row["route"]])
    if not reasons:
        return []
    lines = [
        [model, keras, ", ".join(routes), verdict, _cell(reason)]
        for (model, keras, verdict, reason), routes in reasons.items()
    ]
    headings = ("model", "Keras", "routes", "verdict", "reason")
    return ["## Not converted, and why", _table(headings, lines)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _speed(rows: Rows) -> list[str]:
    """Times of forward and input gradient, where they were measured."""
    if not rows:
        return []
    lines = []
    for row in rows:
        ratio = f"{float(row['ratio']):.2f}" if row["ratio"] else ""
        times = [f"{float(row[p]):.3g}" if row[p] else "" for p in ("p50_ms", "p20_ms", "p80_ms")]
        note = row["reason"] if row["status"] == "ok" else f"{row['status']}: {row['reason']}"
        who = f"{row['provider']} {row['provider_version']}".strip()
        lines.append([row["model"], row["batch"], who, *times, ratio, _cell(note)])
    devices = ", ".join(sorted({f"{row['device']}, torch {row['torch']}" for row in rows}))
    return [
        "## Speed",
        "Forward and input gradient of the summed cross-entropy, NHWC input, eval mode, frozen "
        f"weights, one thread, interleaved rounds ({devices}). "
        "`python -m benchmarks.conversions.speed` measures it.",
        _table(_SPEED_HEADINGS, lines),
    ]
