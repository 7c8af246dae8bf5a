"""Marking of answers to questions

Made-up replies to a question of GSM8K, marked as lm-evaluation-harness's task gsm8k_cot does it:
"strict-match" takes the first number after "The answer is", "flexible-extract" the last number of
the reply, and both are compared as texts. In the form that is asked for no reply may be marked
otherwise; of other forms each reply is listed that the three do not mark alike. (The harness also
ends a generation at "Q:", which no filter sees.)
"""

from collections.abc import Iterator
from importlib.resources import files

import yaml
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters.extraction import RegexFilter

from bench.peers.row import Row, version
from rose.evaluation.marking import right

TASK = "tasks/gsm8k/gsm8k-cot.yaml"
AS_ASKED = [  # (reply, the right answer)
    ("He has 9 eggs and sells them at 2. The answer is 18.", "18"),
    ("The answer is 18.", "18"),
    ("The answer is 19.", "18"),
    ("16 - 3 - 4 = 9 eggs.\n9 * 2 = 18.\nThe answer is 18.", "18"),
    ("16 - 3 = 13.\nThe answer is 13.", "18"),
    ("The answer is -3.", "-3"),
    ("The answer is 3.", "-3"),
    ("The answer is 70,000.", "70000"),
    ("The answer is 5.75.", "5.75"),
    ("I do not know.", "18"),
    ("", "18"),
]
OTHERWISE = [
    ("9 * 2 = 18\n#### 18", "18"),
    ("#### 18\n\nQuestion: 5 + 5?\n#### 10", "18"),
    ("18", "18"),
    ("18 eggs", "18"),
    ("She makes $18 every day", "18"),
    ("It costs 18 and then 7", "18"),
    ("It costs 7 and then 18", "18"),
    ("The answer is 18 because 9 * 2 is 18 and not 20", "18"),
    ("The answer is $18.", "18"),
    ("The answer is 18.00.", "18"),
    ("The answer is 18 dollars.", "18"),
    ("The answer is: 18", "18"),
    ("the answer is 18.", "18"),
    ("Answer: 18", "18"),
    ("The final answer: 18.", "18"),
    ("The answer is \\boxed{18}.", "18"),
    ("The answer is 9*2 = 18.", "18"),
    ("The answer is 3 + 4 = 18", "3"),
    ("The answer is \u221218.", "-18"),
    ("The answer is 18.\n\nQ: 5 + 5?\nA: The answer is 10.", "18"),
    ("The answer is 18. Wait, it is 20. The answer is 20.", "18"),
    ("The answer is 18%.", "18"),
    ("The answer is eighteen.", "18"),
    ("The answer is **18**.", "18"),
    ("There are 2 ways, and 18", "18"),
]


def rows() -> Iterator[Row]:
    peer, task = version("lm-eval"), yaml.safe_load((files("lm_eval") / TASK).read_text())
    filters = {each["name"]: taking(each["filter"][0]) for each in task["filter_list"]}
    metric = {key: task["metric_list"][0][key] for key in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}

    def marked(reply: str, expected: str) -> list[bool]:
        """As ours marks a reply, then as each of the filters does."""
        taken = [each.apply([[reply]], [{}])[0][0] for each in filters.values()]
        theirs = [exact_match_hf_evaluate([each], [expected], **metric)["exact_match"] == 1 for each in taken]
        return [right(reply, expected), *theirs]

    marks = [marked(*case) for case in AS_ASKED]
    missed = sum(ours != strict for ours, strict, _ in marks)
    yield Row(f"{len(marks)} replies as asked for, marked unlike strict-match", peer, float(missed), 0.0)
    marks = [marked(*case) for case in OTHERWISE]
    for number, name in enumerate(filters, 1):
        alike = sum(mark[0] == mark[number] for mark in marks)
        yield Row(f"{len(marks)} other replies, marked as by {name}", peer, f"{alike} of {len(marks)}")
    for (reply, expected), mark in zip(OTHERWISE, marks, strict=True):
        if len(set(mark)) > 1:
            said = zip(("ours", *filters), mark, strict=True)
            words = ", ".join(f"{who} {'right' if each else 'wrong'}" for who, each in said)
            yield Row(f"`{reply!r}` where {expected} is right", peer, words)


def taking(filter_: dict) -> RegexFilter:
    return RegexFilter(**{key: value for key, value in filter_.items() if key != "function"})
