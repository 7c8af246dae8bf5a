"""Whether a reply to a question gives its answer: a number, the letter of an option, or other words."""

import re
from collections.abc import Callable
from fractions import Fraction

from rose.evaluation.statements import own, plain, statements

WHOLE = r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)|\d{1,3}(?:[ '_]\d{3})+(?!\d)|\d+)"
NUMBER = rf"(?:{WHOLE}(?:\.\d+)?|(?<![\w.])\.\d+)(?:e[+-]?\d{{1,3}})?"
SIGN = r"(?:(?<![\w)])[+-])?"
MIXED = rf"{SIGN}(?:\d+[ \t]+)?\d+/\d+"
# Numbers joined by signs, one or more of them: a sum not worked out, a range, a time or a choice is no number.
CHAIN = re.compile(
    rf"{MIXED}(?![\d/.])|{SIGN}{NUMBER}(?:[ \t]*(?:[-+*/×÷^:·]|x(?=[ \t]*\d)|,(?=\d)|\bor\b)[ \t]*[+-]?{NUMBER})*", re.I
)
LETTER = r"(?:[(\[][ \t]*[A-Za-z][ \t]*[)\]]|[A-Z]\b)"
SEVERAL = re.compile(
    rf"(?:(?:either|both)\s+)?{LETTER}(?:(?:\s*,\s*{LETTER})*\s*(?:,?\s*\b(?:and|or)\b|[/&])\s*{LETTER}"
    rf"|(?:\s*,\s*{LETTER})+\W*$)"
)
LABEL = re.compile(
    r"(?:(?i:the\s+)?(?i:option|choice|letter)\s*:?\s*)?(?:[(\[{][ \t]*([A-Za-z])[ \t]*[)\]}]"
    r"|([A-Z])(?=\W*$|[.:;)\],]|\s+-|\s*\(|\s+is\s+(?:the\s+)?(?:correct|right|best)\b"
    r"|,?\s+(?:because|since|as|which)\b)|([a-z])(?=\)|\W*$))"
)
NAMED = re.compile(r"(?<!\w)\(([A-Z])\)|\b(?i:option|choice)\s+(?:is\s*)?:?\s*([A-Z])\b")
# Of these a reply gives one or says nothing yet: what follows them after a comma is an explanation.
CLOSED = {"yes", "no", "true", "false", "valid", "invalid", "correct", "incorrect", "plausible", "implausible"}
CLAUSE = (  # where an explanation may begin
    r"[.!?](?=\s|$|[\"'”’)])|(?<=[^\s*/+=-])\s\((?=\w)|\s*—|\s-+\s(?![\d.(])"
    r"|,?\s+(?:because|since|as|so|given|which|but|due|based)\b"
)
HEDGE = re.compile(
    r"(?i)^\s*(?:(?:that|then|therefore|thus|hence|so|clearly|simply|just|indeed|definitely|actually|probably"
    r"|(?:most )?likely|approx\.|approximately|about|around|roughly|exactly)(?:[,:]|\b)\s*)+"
)
QUOTES = "\"'`*“”‘’«»"


def right(given: str, expected: str) -> bool:
    """Whether the first statement of the reply that can be read as an answer of this kind says what is expected.

    Where none can: a number is compared with the last one of the reply, all else with its last line (yes, no and the
    like with its last sentence, too). Where the answer is an option such as (B), its letter counts. Other words are
    compared without regard to case, quotes, commas and the final stop, up to where an explanation begins.
    """
    if given.strip() == expected.strip():
        return bool(given.strip())
    read, read_last, wanted = _kind(plain(final(expected)))
    reply = plain(own(given))
    for statement in statements(reply):
        if found := read(statement):
            return wanted in found
    return wanted in read_last(reply)


def final(answer: str) -> str:
    """A row's answer without the working that leads to it, such as GSM8K's "2 + 4\\n#### 6"."""
    stated = next(statements(plain(answer)), "").strip()
    return stated or answer.strip()


def fold(text: str) -> str:
    """What tells one wording from another; nothing but brackets and signs is compared as it stands, without spaces."""
    text = text.casefold().strip()
    if not re.search(r"\w", text):
        return "".join(text.split()).strip(QUOTES + ".") or text
    words = re.split(r"[\s,;]+", re.sub(r",\s+and\s+(?=\w)", ", ", text))
    return " ".join(word.strip(QUOTES + "()[]{}.!?:…") or word for word in words if word)


Reader = Callable[[str], set]  # an answer may be read in several ways; none is no answer of this kind


def _kind(wanted: str) -> tuple[Reader, Reader, object]:
    """How to read a statement and how a reply that states nothing, and the reading that is right."""
    number = CHAIN.fullmatch(wanted.strip(" .%"))
    if number and (value := _value(number[0])) is not None:
        return _number_said, _last_number, value
    if option := re.fullmatch(r"[(\[]?([A-Z])[)\]]?\.?|\(([a-z])\)", wanted):
        return _option_said, _last_option, (option[1] or option[2]).upper()
    closed, length = fold(wanted) in CLOSED, 3 * len(wanted) + 100

    def read(statement: str) -> set[str]:
        return _wordings(statement, closed, length)

    def read_last(reply: str) -> set[str]:
        line = _last_line(reply)
        return read(line) or read(re.split(r"(?<=[.!?])\s", line)[-1])

    return read, read_last, fold(wanted)


def _value(chain: str) -> Fraction | None:
    """A number as such, None of several that are joined by signs, or of the endless digits of a model gone astray."""
    if len(chain) > 100:
        return None
    if re.fullmatch(rf"[+-]?{NUMBER}", chain, re.I):
        return Fraction(re.sub(r"[,'_ ]", "", chain))
    mixed = re.fullmatch(r"([+-]?)(?:(\d+)[ \t]+)?(\d+)/(\d+)", chain)
    if mixed is None or int(mixed[4]) == 0:
        return None
    size = int(mixed[2] or 0) + Fraction(int(mixed[3]), int(mixed[4]))
    return -size if mixed[1] == "-" else size


def _numbers(text: str) -> list[Fraction]:
    text = re.sub(r"(?i)\bnot\s+\S+", "", text)
    return [value for chain in CHAIN.findall(text) if (value := _value(chain)) is not None]


def _number_said(statement: str) -> set[Fraction]:
    """The first number of its first sentence, of a sum what stands after the last sign of equality."""
    line = HEDGE.sub("", statement.splitlines()[0])
    sentence = re.split(r"[.!?](?=\s|$)", line)[0]
    for clause in re.split(rf"{CLAUSE}|,\s", sentence):
        for side in reversed(re.split(r"=|≈|\bequals\b", clause)):
            if numbers := _numbers(re.sub(r"^\s*-\s+", "-", side)):
                return {numbers[0]}
    return set()


def _last_number(reply: str) -> set[Fraction]:
    return set(_numbers(reply)[-1:])


def _option_said(statement: str, place: int = 0) -> set[str]:
    """The option a statement begins with, or else the first it names; of several together none is right."""
    line = re.sub(r"(?i)\bnot\s+\S+", "", HEDGE.sub("", statement.splitlines()[0])).strip(QUOTES + " ")
    if SEVERAL.match(line):
        return {"several"}
    named = [one or other for one, other in NAMED.findall(line)]
    label = LABEL.match(line)
    if label and (place == 0 or len(named) < 2):
        return {(label[1] or label[2] or label[3]).upper()}
    return {named[place]} if named else set()


def _last_option(reply: str) -> set[str]:
    return _option_said(_last_line(reply), -1) if reply else set()


def _wordings(statement: str, closed: bool, length: int) -> set[str]:
    """A statement up to each place before `length` where an explanation may begin; a list of lines as a whole."""
    lines = statement.splitlines() or [""]
    first = re.sub(r"(?i)^(?:a|assistant):\s", "", lines[0])
    texts = {lines[0], first, HEDGE.sub("", first), first.rpartition("=")[2]}
    clause = re.compile(rf"{CLAUSE}|[,;:]" if closed else CLAUSE, re.I)
    ends = {text: [len(text), *(mark.start() for mark in clause.finditer(text[:length]))] for text in texts}
    found = {fold(text[:end]) for text in texts for end in ends[text]}
    if len(lines) > 1:
        found.add(fold(" ".join(re.sub(r"^\s*(?:[-*•]|\d+[.)])\s+", "", line) for line in lines)))
    return found & CLOSED if closed else found - {""}


def _last_line(reply: str) -> str:
    return next((line for line in reversed(reply.splitlines()) if line.strip()), "")
