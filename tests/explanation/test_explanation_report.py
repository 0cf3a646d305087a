"""What a report says, the same in every format, whatever the names and numbers are."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from explanation_cases import HOSTILE, NO_CHANGE, effect, explanation, measures

from torchfgsm.explanation.report.content import report
from torchfgsm.explanation.report.formatting import number, share, signed, signed_share
from torchfgsm.explanation.report.verdict import distance_left, verdict
from torchfgsm.explanation.result import Explanation, PathStep, Trap
from torchfgsm.libraries.configuration import Configuration


class Page(HTMLParser):
    """The text of a page, its elements and their attributes."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def unescaped(markdown: str) -> str:
    return re.sub(r"\\([^\w\s])", r"\1", markdown)


def swapped(given: Explanation) -> Explanation:
    """The same with a for b, as far as the verdict looks."""
    effects = tuple(
        dataclasses.replace(e, values=e.values[::-1], from_a=e.from_b, from_b=e.from_a)
        for e in given.effects
    )
    return dataclasses.replace(given, a=given.b, b=given.a, effects=effects)


def test_the_verdict_comes_first_and_names_the_cause() -> None:
    given = explanation()
    said = verdict(given)
    assert said == (
        "NSL 1.4.0 and CleverHans 3.1.0 differ: b's perturbation is 298 away from a's in relative "
        "L2, 6.25% of its signs differ, and 4 of 4 examples are moved in another way.",
        "The largest cause is step (0.001 against 0.3): by itself it moves the perturbation by up "
        "to 299 in relative L2.",
        "Most signs change through labels (given against predicted): 6.25%.",
        "Accuracy is 100% on the clean examples, 75% under NSL 1.4.0 and 25% under CleverHans "
        "3.1.0.",
        "The settings of CleverHans 3.1.0 that make them equal are below.",
    )
    assert "The largest cause is step (0.3 against 0.001)" in verdict(swapped(given))[1]
    text = str(given)
    assert squeezed(text).startswith(squeezed(report(given).title + "=" * 34 + "".join(said)))


def test_every_format_says_the_same() -> None:
    given = explanation({"x": (1, 8, 8), "z": (3,)})
    content = report(given)
    page = squeezed("".join(Page(given.to_html()).words))
    text, markdown = squeezed(given.to_text()), squeezed(unescaped(given.to_markdown()))
    said = [content.title, *content.verdict]
    for section in content.sections:
        said += [section.title, *section.paragraphs, *section.code.splitlines()]
        for note in section.notes:
            said += [note.term, *note.lines]
        if section.table is not None:
            said += section.table.columns
    for sentence in said:
        for rendered in (text, markdown, page):
            assert squeezed(sentence) in rendered, sentence
    # Lines of a table are whole in Markdown and on the page; a terminal may break its cells.
    for section in content.sections:
        for row in section.table.rows if section.table is not None else ():
            assert squeezed("|" + "|".join(row) + "|") in markdown
            assert squeezed("".join(row)) in page
            assert all(word in text for cell in row for word in cell.split()), row
    names = [section.name for section in content.sections]
    assert names == [
        "differences", "path", "features", "accuracy", "curve", "traps", "training", "equal-b",
        "equal-a", "facts",
    ]  # fmt: skip
    assert max(map(len, given.to_text().splitlines())) <= 100


def test_choices_without_an_effect_are_named_and_told_at_the_end() -> None:
    idle = effect("ties", ("first", "shared"), NO_CHANGE, NO_CHANGE)
    path = (PathStep(("ties",), (("first", "shared"),), NO_CHANGE, NO_CHANGE),)
    given = explanation()
    given = dataclasses.replace(given, effects=(*given.effects, idle), path=given.path + path)
    sections = {section.name: section for section in report(given).sections}
    for name in ("differences", "path"):
        assert any("ties" in paragraph for paragraph in sections[name].paragraphs)
        table = sections[name].table
        assert table is not None
        assert not any("ties" in row[0] for row in table.rows)
    assert [note.term for note in sections["idle"].notes] == ["ties: first against shared"]
    assert list(sections)[-2:] == ["idle", "facts"]


@pytest.mark.parametrize("shape", [(5,), (1, 8, 8), ()])
def test_hostile_names_stay_text(shape: tuple[int, ...]) -> None:
    given = explanation({HOSTILE: shape}, facts={HOSTILE: HOSTILE})
    a = Configuration.of("nsl", {"multiplier": 0.5})
    a = dataclasses.replace(a, options={HOSTILE: HOSTILE})
    trap = Trap(HOSTILE, "error", None, None, HOSTILE)
    settings = dataclasses.replace(given.equal[0], code=HOSTILE + "```\n", outside=(HOSTILE,))
    given = dataclasses.replace(
        given,
        a=dataclasses.replace(given.a, configuration=a),
        effects=(effect(HOSTILE, (HOSTILE, HOSTILE), measures(1.0), None),),
        traps=(trap,),
        equal=(settings,),
    )
    page = Page(given.to_html())
    assert HOSTILE.strip() in "".join(page.words)
    for tag, attributes in page.elements:
        assert tag != "script"
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), attributes
    assert all(c.isprintable() or c == "\n" for c in given.to_text())
    markdown = given.to_markdown()
    prose = re.sub(r"(?s)(`{3,})python.*?\n\1\n", "", markdown)
    assert "example.com" in prose
    assert not re.search(r"(?<!\\)<|(?<!\\)\|`", prose)
    for table in re.findall(r"(?m)(?:^\|.*\n)+", prose):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "````python\n" in markdown  # the code holds a fence of its own
    assert json.loads(json.dumps(given.to_dict()))["facts"] == {HOSTILE: HOSTILE}


def test_what_is_no_number_is_said() -> None:
    nothing = dataclasses.replace(measures(math.inf), cosine=math.nan, loss=math.nan)
    given = explanation(
        total=nothing, effects=(effect("norm", ("l2", "linf"), nothing, nothing),),
        remainder=math.nan, clean_loss=math.inf,
    )  # fmt: skip
    broken = {name: np.full_like(v, np.nan) for name, v in given.a.perturbations.items()}
    given = dataclasses.replace(given, a=dataclasses.replace(given.a, perturbations=broken))
    assert given.differs
    undefined = effect("guard", (0, 1), measures(math.nan), None)
    step = effect("step", (1, 2), measures(9.0), measures(9.0))
    largest = dataclasses.replace(given, effects=(step, undefined))
    assert "largest cause is guard" in verdict(largest)[1]
    assert not dataclasses.replace(given, b=given.a).differs  # NaN in the same places
    found = json.loads(json.dumps(given.to_dict(), allow_nan=False))
    assert found["total"]["relative_l2"] == "inf"
    assert found["effects"][0]["from_a"]["cosine"] == "nan"
    assert found["clean_loss"] == "inf"
    assert found["a"]["perturbations"] == {"x": [4, 1, 8, 8]}
    assert found["verdict"] == list(verdict(given))
    for rendered in (given.to_text(), given.to_markdown(), given.to_html()):
        assert "infinite" in rendered
        assert "undefined" in rendered
    assert [number(v) for v in (math.nan, math.inf, -math.inf)] == [
        "undefined", "infinite", "-infinite",
    ]  # fmt: skip


def test_numbers() -> None:
    assert [number(v) for v in (0.0, 1234.5, 2_500_000.0, 0.12345)] == [
        "0", "1230", "2.5e+06", "0.123",
    ]  # fmt: skip
    assert [share(v) for v in (0.0, 1.0, 0.0001181)] == ["0%", "100%", "0.0118%"]
    assert [signed(v) for v in (0.0, -0.0, 1.5, -1.5)] == ["0", "0", "+1.5", "-1.5"]
    assert [signed_share(v) for v in (0.0, 0.25, math.nan)] == ["0%", "+25 pp", "undefined"]


def test_nothing_differs() -> None:
    given = explanation()
    same = dataclasses.replace(
        given, b=dataclasses.replace(given.b, perturbations=given.a.perturbations),
        total=NO_CHANGE, effects=(effect("ties", ("first", "shared"), NO_CHANGE, NO_CHANGE),),
        path=(),
    )  # fmt: skip
    assert verdict(same) == (
        "Nothing differs: NSL 1.4.0 and CleverHans 3.1.0 give the same perturbation.",
        "ties differs, without an effect on this model and batch.",
    )
    alike = dataclasses.replace(same, effects=())
    assert verdict(alike)[1] == "The two recipes are the same in every field."
    for rendered in (alike.to_text(), alike.to_markdown(), alike.to_html()):
        assert "Nothing differs" in rendered


def test_rounding_is_called_so() -> None:
    rounding = dataclasses.replace(measures(1e-7), examples=0)
    assert "differ by rounding alone" in verdict(explanation(total=rounding))[0]


def test_a_library_against_itself_and_fields_that_go_together() -> None:
    given = explanation()
    pgd = measures(5.0)
    given = dataclasses.replace(
        given,
        b=dataclasses.replace(given.b, configuration=given.a.configuration),
        effects=tuple(effect(n, (1, 2), None, None) for n in ("iterations", "epsilon")),
        path=(PathStep(("iterations", "epsilon"), ((1, 10), (None, 0.3)), pgd, NO_CHANGE),),
    )
    assert report(given).title == "NSL 1.4.0 (a) against NSL 1.4.0 (b)"
    assert verdict(given)[1].startswith("The largest cause is iterations with epsilon: ")
    assert "iterations: 1 to 10, epsilon: none to 0.3" in unescaped(given.to_markdown())
    assert given.to_text().count("cannot be run alone") == 4


def test_the_gravest_traps_come_first() -> None:
    traps = next(s for s in report(explanation()).sections if s.name == "traps")
    assert traps.table is not None
    assert traps.table.rows == (
        ("error", "saturated probabilities", "a", "2 of 4"),
        ("note", "label leaking", "b", "3 of 4"),
    )
    assert [note.lines for note in traps.notes] == [
        ("They kill the gradient.",), ("Some labels are the prediction.",),
    ]  # fmt: skip


def test_the_distance_that_is_left() -> None:
    given = explanation({"x": (1,), "z": (1,)}, count=1)
    a = {"x": np.array([[0.0]]), "z": np.array([[1.0]])}
    b = {"x": np.array([[3.0]]), "z": np.array([[4.0]])}
    sides = [dataclasses.replace(given.a, perturbations=p) for p in (a, b)]
    given = dataclasses.replace(given, a=sides[0], b=sides[1])
    assert distance_left(given) == pytest.approx(math.hypot(3, 3) / 5)


def test_bars_are_full_at_one() -> None:
    differences = report(explanation()).sections[0].table
    assert differences is not None
    assert differences.bars[2] == (1.0, 0.908, 1.0, 0.997, 0.327, None)
    page = explanation().to_html()
    assert "width: 90.8%" in page
    assert html.escape("Bars are full at 1 and above, and at 100%.") in page


def test_backticks_are_code_on_the_page() -> None:
    told = dataclasses.replace(
        effect("norm", ("l2", "linf"), measures(1.0), measures(1.0)),
        sentences=("It is `<b>`, not <i>.", "One ` alone."),
        sources=("", ""),
    )
    page = explanation(effects=(told,)).to_html()
    assert "<dd>NSL 1.4.0: It is <code>&lt;b&gt;</code>, not &lt;i&gt;.</dd>" in page
    assert "<dd>CleverHans 3.1.0: One ` alone.</dd>" in page


def test_the_same_page_every_time() -> None:
    assert explanation().to_html() == explanation().to_html()


def test_a_page_without_curves_or_training() -> None:
    given = explanation(training=None, equal=(), traps=(), effects=(), path=())
    sides = [dataclasses.replace(side, curve=()) for side in (given.a, given.b)]
    given = dataclasses.replace(given, a=sides[0], b=sides[1])
    page = given.to_html()
    assert "<svg" not in page
    assert "None was found." in page
    assert "below" not in " ".join(verdict(given))


def test_the_short_form_holds_no_arrays() -> None:
    found = explanation()
    assert repr(found) == (
        f"<Explanation: NSL 1.4.0 against CleverHans 3.1.0, {len(found.labels)} examples>"
    )
