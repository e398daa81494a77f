"""The prose: what is stated as a result is glued, and the aids to reading are complete (see CONTRIBUTING.md)."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
PAGES = sorted((ROOT / "book").glob("*.md"))

# A number with a unit, a percentage or a factor: what a reader takes for a result.
DIGITS = r"\d(?:[\d.,]*\d)?"
WORDS = "few|one|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|forty|fifty|sixty|hundred|thousand"
UNIT = r"per ?cent|times|nats?|seconds?|minutes?|hours?|days?|years?|kpc|km/s"
NUMBER = re.compile(
    rf"(?<![\w.])(?:{DIGITS}\s?(?:%|-?fold\b|k?pc\b|m?s\b)|{DIGITS}[\s-](?:million )?(?:{UNIT})\b"
    rf"|(?:{WORDS})(?:-?fold\b|[\s-](?:{UNIT})\b))",
    re.IGNORECASE,
)

# What states no result: comments, the questions of a quiz, what a reader needs, formulas, addresses, roles.
NO_PROSE = (
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(r"^::::\{admonition\} Check yourself\n.*?(?=^:::\{dropdown\})", re.DOTALL | re.MULTILINE),
    re.compile(r"^## You need\n.*?(?=^## |^\*\*Time|\Z)", re.DOTALL | re.MULTILINE),
    re.compile(r"\$\$.*?\$\$|\$(?:[^$\n]|\n(?!\n))*\$", re.DOTALL),
    re.compile(r"\]\([^)]*\)"),
    re.compile(r"\{(?!term)[a-z:]+\}`[^`]*`"),
)
SILENT = {"math", "index", "exercise", "bibliography"}  # directives that state no result
TERM = re.compile(r"\{term\}`([^`<]*?)(?:\s*<([^`>]*)>)?`")
QUIZ = re.compile(
    r"::::\{admonition\} Check yourself\n:class: quiz\n\n(?P<question>.+?)\n\n(?P<choices>(?:\d\. .+\n)+)\n"
    r":::\{dropdown\} Answer\n\*\*(?P<answer>\d)\.\*\* (?P<why>.+)\n:::\n::::",
    re.DOTALL,
)


def without_fences(text):
    """Leave out code and the directives that state no result; of the others, keep what is inside."""
    kept, opened = [], []
    for line in text.splitlines():
        fence, directive = re.match(r"\s*(`{3,}|)(?:\{([\w:]+)\})?", line).groups()
        if opened and fence and line.strip() == fence and len(fence) >= len(opened[-1][0]):
            opened.pop()
        elif fence and all(shown for _, shown in opened):
            opened.append((fence, directive is not None and directive not in SILENT))
        elif all(shown for _, shown in opened):
            kept.append(line)
    return "\n".join(kept)


def prose_of(text):
    """Reduce Markdown to what a reader takes for statements, in one line."""
    text = without_fences(text)
    for pattern in NO_PROSE:
        text = pattern.sub(" ¤ ", text)
    text = TERM.sub(r"\1", text)
    return re.sub(r"\s+", " ", re.sub(r"`[^`]*`", "¤", text))


def judge(text, phrases):
    """Return the typed numbers of `text` that no phrase of `phrases` holds, and the phrases that hold none."""
    prose = prose_of(text)
    idle = set(phrases)
    loose = []
    places = [(at.span(), phrase) for phrase in phrases for at in re.finditer(re.escape(phrase), prose)]
    for number in NUMBER.finditer(prose):
        holding = {phrase for (first, last), phrase in places if first <= number.start() and number.end() <= last}
        idle -= holding
        if not holding:
            loose.append(prose[max(0, number.start() - 60) : number.end() + 20])
    return loose, sorted(idle)


@functools.cache
def cells(path):
    """Return the sources of a chapter's Markdown cells."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]


def text_of(path):
    return path.read_text(encoding="utf-8") if path.suffix == ".md" else "\n\n".join(cells(path))


@functools.cache
def given():
    return yaml.safe_load((ROOT / "tests" / "given_numbers.yml").read_text(encoding="utf-8"))


def glossary():
    """Return the blocks of the glossary, each a list of entries: the term, then its definition."""
    text = text_of(ROOT / "book" / "glossary.md")
    blocks = re.findall(r"^```\{glossary\}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [re.split(r"\n+(?=\S)", block.strip()) for block in blocks]


def terms():
    return [entry.split("\n")[0].lower() for block in glossary() for entry in block]


def terms_used(text):
    return [(target or shown).strip().lower() for shown, target in TERM.findall(text)]


MADE_UP_QUIZ = """::::{{admonition}} Check yourself
:class: quiz

{question}

1. {choice}

:::{{dropdown}} Answer
**1.** {why}
:::
::::"""


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def chapter(request):
    return request.param


@pytest.mark.parametrize("path", [*CHAPTERS, *PAGES], ids=lambda path: path.stem)
def test_every_number_with_a_unit_is_glued_or_given(path):
    entries = given().get(path.stem) or []
    assert all(set(entry) == {"phrase", "reason"} and entry["reason"].strip() for entry in entries)
    loose, idle = judge(text_of(path), [entry["phrase"] for entry in entries])
    assert not loose, "glue these, or say in tests/given_numbers.yml why they are no results"
    assert not idle, "these phrases of tests/given_numbers.yml hold no number of the page any more"


def test_the_pages_of_given_numbers_exist():
    assert set(given()) <= {path.stem for path in [*CHAPTERS, *PAGES]}


@pytest.mark.parametrize(
    "typed",
    [
        "The median error is 0.4 % at all radii.",
        "The median error\nis 0.4\nper cent.",
        "It was *three times* worse.",
        "Training took 12 minutes.",
        "The {term}`KL divergence` falls by 0.02 nats.",
        "````{solution} ex-01-some\nOff by 25 %.\n````",
        MADE_UP_QUIZ.format(question="Why?", choice="So.", why="As it is 3 %."),
    ],
)
def test_a_typed_result_is_caught(typed):
    assert judge(typed, [])[0]


@pytest.mark.parametrize(
    "harmless",
    [
        "The median error is {glue:text}`median:.1%`, or {glue:text}`ratio:.1f` times that of one flow.",
        "Noise of $\\epsilon = 10\\,\\%$; `0.4 %`; [a page](https://example.org/20%20s).",
        "```{exercise}\n:label: ex-01-some\n\nWhat do 5 % of noise do?\n```",
        "```python\nshare = 5 % 3\n```",
        "## You need\n\n- ten minutes;\n\n## What follows",
        MADE_UP_QUIZ.format(question="5 % of what?", choice="3 %", why="So."),
        "200 points between 0.2 and 20 scale radii",
    ],
)
def test_what_is_no_result_passes(harmless):
    assert judge(harmless, []) == ([], [])


def test_a_phrase_that_holds_no_number_is_idle():
    phrases = ["Noise of 5 %", "noise of 7 %", "is assumed"]
    assert judge("Noise of 5 % is assumed.", phrases) == ([], ["is assumed", "noise of 7 %"])


def test_every_chapter_has_two_or_three_quizzes_with_an_answer_among_the_choices(chapter):
    begun = [cell for cell in cells(chapter) if "Check yourself" in cell]
    quizzes = [match for cell in begun if (match := QUIZ.fullmatch(cell.strip()))]
    assert len(quizzes) == len(begun), "a quiz has a cell of its own, in the form of CONTRIBUTING.md"
    assert 2 <= len(quizzes) <= 3
    for quiz in quizzes:
        numbers = re.findall(r"^(\d)\. ", quiz["choices"], re.MULTILINE)
        assert numbers == [str(k) for k in range(1, len(numbers) + 1)]
        assert 2 <= len(numbers) <= 5
        assert quiz["answer"] in numbers
        assert quiz["question"].rstrip().endswith("?")
        assert len(quiz["why"].split()) >= 15, "an answer also says why the other choices are wrong"


def test_the_right_answer_is_not_always_in_the_same_place():
    answers = [match["answer"] for path in CHAPTERS for cell in cells(path) if (match := QUIZ.fullmatch(cell.strip()))]
    assert all(answers.count(choice) >= len(answers) / 10 for choice in "123")


def test_every_chapter_has_two_to_four_exercises_one_of_them_research(chapter):
    text = text_of(chapter)
    titles = re.findall(r"^`{3,}\{exercise\}(.*)\n:label: (\S+)", text, re.MULTILINE)
    solved = re.findall(r"^`{3,}\{solution\} (\S+)\n", text, re.MULTILINE)
    assert 2 <= len(titles) <= 4
    assert [label for _, label in titles] == solved
    assert sum(title.strip() == "Research" for title, _ in titles) >= 1


def test_the_glossary_is_sorted_and_every_term_links_to_where_it_is_explained():
    assert len(set(terms())) == len(terms())
    for block in glossary():
        names = [entry.split("\n")[0].lower() for entry in block]
        assert names == sorted(names)
        for entry in block:
            links = re.findall(r"\{doc\}`\.\./notebooks/([^`]+)`", entry)
            assert links, entry
            assert all((ROOT / "notebooks" / f"{link}.ipynb").is_file() for link in links), entry


def test_terms_are_those_of_the_glossary_and_all_are_used():
    used = {term for path in CHAPTERS for term in terms_used(text_of(path))}
    assert used == set(terms())


def test_every_chapter_links_its_terms_once_and_is_in_the_index(chapter):
    text = text_of(chapter)
    used = terms_used(text)
    assert len(used) >= 2
    assert len(set(used)) == len(used), "a term is linked where it is used first, and only there"
    assert "```{index} " in text


def test_alternative_text_says_what_the_caption_does_not(chapter):
    notebook = json.loads(chapter.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if figure := cell["metadata"].get("mystnb", {}).get("figure"):
            shown = re.findall(r"\w+", cell["metadata"]["mystnb"]["image"]["alt"].lower())
            caption = re.findall(r"\w+", figure["caption"].lower())
            assert len(shown) >= 8, figure["name"]
            common = sum(word in caption for word in shown) / len(shown)
            assert common < 0.8, f"{figure['name']}: the alternative text repeats the caption"


def test_every_reference_leads_somewhere():
    entries = re.split(r"\n(?=@)", (ROOT / "book" / "references.bib").read_text(encoding="utf-8").strip())
    unlinked = [entry.split(",")[0] for entry in entries if not re.search(r"\b(?:doi|eprint|url)\s*[={]", entry)]
    assert unlinked == ["@article{celeux1985"]  # of a journal that is not on the net
