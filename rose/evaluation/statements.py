"""Where a reply states its answer: "the answer is", "Answer:", "####", \\boxed{} and their like, in a text made plain.

The first sentence that states an answer counts: a model that goes on after its answer invents a next question, and
answers that. In it the last statement counts ("the answer is 12 a day, so the answer is 84"). What is called final, in
words, in \\boxed{}, in <answer> or after GSM8K's ####, outranks the rest: a chain of thought may state "the answer is"
for a step before.
An intermediate answer in a sentence of its own is thus taken for the answer, unless the reply calls a later one final.
"""

import re
from collections.abc import Iterator

ENDING = "End with: The answer is"  # how the last line of a question begins as it is asked
# Who speaks next in the layouts of prompts.
TURN = re.compile(
    r"""(?ixm)
      ^[ \t*\#]* (?: (?:user|human) [ \t*]* (?: : | $ ) | \[INST\] )
    | (?: ^ | (?<=[.!?])[ \t]+ ) [ \t*\#]* (?: (?:next|new|another)[ \t]+ )?
        (?: question[ \t]*\d* | q ) [ \t*]* :
    | </s> | <eos>
    | <\|? (?: user | human | im_start | im_end | endoftext | eot_id | end_of_text | start_header_id | end_of_turn
      | start_of_turn | end ) \|?>"""
)
STATED = re.compile(
    r"""(?ix)
    (?P<doubt> (?: \b(?: if | whether | unless | suppose | assum\w+ | to\s+(?!the\b|our\b|my\b|an?\b)\w+ )
                   \s+ (?:that\s+)? | \bend\s+with:\s+ ) )?
    (?: \b(?: the | our | my | an )\s+ )?  (?: \b(?: correct | right | best )\s+ )?  (?P<final> \bfinal\s+ )?
    (?<!\bto\s) (?<![/*]\s) \bans(?:wers?)?\b ["”']?
    (?: (?: \s+(?: choice | option | key )\b | , [\w\ ]{1,20} ,
          | \s+(?: to | for | of | in | on | that | we | here | then | therefore | thus )\b
            (?: \s+[^\s.:!?]+ ){0,12}? )?
        (?: \s+(?: (?: would | must | should | will | has\s+to | can\s+only )\s+be | is | are | equals
                 | comes\s+(?:out\s+)?to )\b | ['’]s\b )  [ \t]*:?
      | [ \t]*(?: : | = | -> | → ) )"""
)
SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")
SIGNS = str.maketrans(dict.fromkeys("−‐‑–﹣－", "-") | dict.fromkeys("\u00a0\u2009\u202f", " ") | {"：": ": "})
LOOKS = [  # what a text looks like and not what it says, and what says in other signs that an answer is meant
    (r"(?<![\w*])(\*{1,3}|__)(?=\S)(.+?)(?<=\S)\1(?!\*)", r"\2"),
    (r"<<[^<>\n]*=[^<>\n]*>>", ""),  # GSM8K's own sums
    (r"</answer>", "\n\n"),
    (r"<answer>", " final answer: "),
    (r"\{,\}|\\[,;! ]", lambda found: "," if found[0] == "{,}" else ""),
    (r"\\[()\[\]]|\\(?:left|right|displaystyle)\b", " "),
    (r"\\boxed\{([^\w\n]+)\}", " final answer: \\1\n\n"),  # brackets that are the answer itself
    (r"\\\{", "\ue000"),
    (r"\\\}", "\ue001"),
    (r"\\(?:times|cdot)\b", "*"),
    (r"\\approx\b", "≈"),
    (r"\\([%#&_])", r"\1"),
    (r"\\?[$€£¥₹]|\brs\b\.?", ""),
]
HEADINGS = [
    (r"(?m)^[ \t#*_>-]*((?:final[ \t]+)?answers?)[ \t*_]*$", r"\1:"),
    (r"(?m)####[ \t]*(?=\S*\d\S*[ \t]*$)|####[ \t]*(?=[^\n]*\s*\Z)", " final answer: "),
    (r"\b(?:minus|negative) (?=\.?\d)", "-"),
    ("\ue000", "{"),
    ("\ue001", "}"),
]
COMMAND = re.compile(r"(\\(?![dt]?frac\b)[a-zA-Z]+|[\^_])\s*\{([^{}]*)\}")
FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")


def statements(reply: str) -> Iterator[str]:
    """What a plain text states to be its answer, each to the end of its paragraph, the one that counts first."""
    marks = list(STATED.finditer(reply))
    order, sentence = [], 0
    for place, mark in enumerate(marks):
        between = reply[marks[place - 1].end() : mark.start()].lstrip() if place else ""
        sentence += SENTENCE_END.search(between) is not None
        if mark["doubt"] is None:
            order.append((mark["final"] is None, sentence, -mark.end()))
    for _, _, end in sorted(order):
        rest = re.sub(r"^(?:[\s:=…]|\.{2,})+", "", reply[-end:])
        if rest:
            yield re.split(r"\n[ \t]*\n", rest)[0]


def own(given: str) -> str:
    """A reply after its thoughts, up to where it goes on with a question of its own making."""
    text = given.rpartition("</think>")[2]
    ends = [mark.start() for mark in TURN.finditer(text)]
    for mark in re.finditer(re.escape(ENDING), text):
        before = text[: mark.start()].rstrip()
        ends.append(max(before.rfind("\n\n"), 0) or max(before.rfind("\n"), 0))
    return next((text[:end] for end in sorted(ends) if text[:end].strip()), text)


def plain(text: str) -> str:
    """Without Markdown, LaTeX and currency; \\boxed{}, <answer>, #### and a heading "Answer" said in words."""
    text, before = _replaced(text.translate(SIGNS), LOOKS), ""
    while before != text:  # the innermost braces first
        before, text = text, COMMAND.sub(_spoken, FRACTION.sub(r" \1/\2", text))
    text = re.sub(r"\\f?boxed\b\s*\{?", " final answer: ", text)  # one that does not end
    return _replaced(text, HEADINGS).strip()


def _replaced(text: str, pairs: list[tuple]) -> str:
    for pattern, words in pairs:
        text = re.sub(pattern, words, text, flags=re.IGNORECASE)
    return text


def _spoken(command: re.Match) -> str:
    name, inside = command[1].lstrip("\\"), command[2]
    if name in ("boxed", "fbox"):
        return f" final answer: {inside}\n\n"
    if name.startswith(("text", "math", "mbox")):
        return inside
    return f"{name}{inside}" if len(inside) == 1 else f"{name}({inside})"
