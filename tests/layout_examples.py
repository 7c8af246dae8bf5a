"""One made row of each layout, and what becomes of it, written by hand."""

from typing import Any, NamedTuple

from published_pairs import SHP, answer


def system(text):
    return {"role": "system", "content": text}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(name, arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


class PoolExample(NamedTuple):
    row: dict[str, Any]
    becomes: list[list[dict]]  # conversations
    prompt: str  # the column that holds the question, or the whole conversation
    answer: str | None  # the column that holds the answer, if it is another one


class PairExample(NamedTuple):
    rows: list[dict[str, Any]]
    becomes: list[tuple[list[dict], str, str]]  # prompt, chosen, rejected
    refused: dict[str, Any]  # what the first row says otherwise, so that it is refused
    reason: str
    prompt: str | None  # the column that holds the prompt


ADD = {"name": "add", "description": "adds", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}
CALLED = [
    user("1+2?"),
    assistant("", tool_calls=[call("add", '{"a": 1, "b": 2}')]),
    {"role": "tool", "content": "3", "name": "add", "tool_call_id": "c1"},
    assistant("It is 3."),
]

POOL = {
    "messages": PoolExample(
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "1+"}, {"type": "text", "text": "2?"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c1", **call("add", '{"a": 1, "b": 2}')}],
                },
                {"role": "tool", "content": "3", "name": "add", "tool_call_id": "c1"},
                {"role": "assistant", "content": "Three?", "weight": 0},
                {"role": "user", "content": "Sure?"},
                {"role": "assistant", "content": "It is 3.", "weight": 1},
            ],
        },
        [
            [
                user("1+\n2?"),
                assistant("", tool_calls=[{"id": "c1", **call("add", '{"a": 1, "b": 2}')}]),
                CALLED[2],
                assistant("Three?", train=False),
                user("Sure?"),
                assistant("It is 3."),
            ]
        ],
        "messages",
        None,
    ),
    "sharegpt": PoolExample(
        {
            "conversations": [
                {"from": "system", "value": "Be kind."},
                {"from": "human", "value": "1+2?"},
                {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1, "b": 2}}'},
                {"from": "observation", "value": "3"},
                {"from": "gpt", "value": "It is 3."},
            ],
        },
        [
            [
                system("Be kind."),
                user("1+2?"),
                assistant("", tool_calls=[call("add", '{"a": 1, "b": 2}')]),
                {"role": "tool", "content": "3"},
                assistant("It is 3."),
            ]
        ],
        "conversations",
        None,
    ),
    "prompt": PoolExample(
        {"prompt": "1+2?", "completion": "3"}, [[user("1+2?"), assistant("3")]], "prompt", "completion"
    ),
    "alpaca": PoolExample(
        {"instruction": "Add.", "input": "1, 2", "output": "3", "system": "Be kind.", "history": [["0+1?", "1"]]},
        [[system("Be kind."), user("0+1?"), assistant("1"), user("Add.\n\n1, 2"), assistant("3")]],
        "instruction",
        "output",
    ),
    "orca": PoolExample(
        {"system_prompt": "Be kind.", "question": "1+2?", "response": "3"},
        [[system("Be kind."), user("1+2?"), assistant("3")]],
        "question",
        "response",
    ),
    "input_output": PoolExample(
        {"input": "1+2?", "output": ["3", "three"]},
        [[user("1+2?"), assistant("3")], [user("1+2?"), assistant("three")]],
        "input",
        "output",
    ),
}

Q = [user("q")]
RANKED = [{"answer": text, "model": "m", "rank": rank} for text, rank in (("b", 2.0), ("a", 1.0), ("c", 3.0))]
TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
STACK = {
    "qid": 5,
    "question": "q",
    "answers": [answer(1, "b", 1), answer(2, "a", 4), answer(3, "c", 0)],
    "metadata": ["https://ai.stackexchange.com/questions/5"],
}

PAIRS = {
    "pairs": PairExample(
        [{"prompt": "q", "chosen": "a", "rejected": ["b", "c"]}],
        [(Q, "a", "b"), (Q, "a", "c")],
        {"rejected": "a"},
        "chosen and rejected are the same",
        "prompt",
    ),
    "hh": PairExample(
        [{"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}],
        [(Q, "a", "b")],
        {"rejected": "b"},
        "rejected is a text without a prompt",
        None,
    ),
    "orca": PairExample(
        [{"system": "Be kind.", "question": "q", "chosen": "a", "rejected": "b"}],
        [([system("Be kind."), *Q], "a", "b")],
        {"chosen": ""},
        "chosen has an empty answer",
        "question",
    ),
    "alpaca": PairExample(
        [{"instruction": "q", "input": "r", "chosen": "a", "rejected": "b"}],
        [([user("q\n\nr")], "a", "b")],
        {"chosen": None},
        "chosen is missing or null",
        "instruction",
    ),
    "sharegpt": PairExample(
        [
            {
                "conversations": [{"from": "human", "value": "q"}],
                "chosen": {"from": "gpt", "value": "a"},
                "rejected": {"from": "gpt", "value": "b"},
            }
        ],
        [(Q, "a", "b")],
        {"rejected": {"from": "gpt", "value": "a"}},
        "chosen and rejected are the same",
        "conversations",
    ),
    "nectar": PairExample(
        [{"prompt": "\n\nHuman: q\n\nAssistant: ", "answers": RANKED}],
        [(Q, "a", "b"), (Q, "a", "c")],
        {"answers": RANKED[:1]},
        "has no two answers of different rank",
        "prompt",
    ),
    "safe_rlhf": PairExample(
        [{"prompt": "q", "response_0": "b", "response_1": "a", "better_response_id": 1, "safer_response_id": 0}],
        [(Q, "a", "b")],
        {"better_response_id": -1},
        "better_response_id is -1: must be 0 or 1",
        "prompt",
    ),
    "helpsteer": PairExample(
        [
            {"prompt": "q", "response": text, "helpfulness": score, "verbosity": 2}
            for text, score in (("b", 1), ("a", 4), ("c", 0))
        ],
        [(Q, "a", "b"), (Q, "a", "c")],
        {"helpfulness": "much"},
        'helpfulness is "much": must be a number',
        "prompt",
    ),
    "helpsteer2": PairExample(
        [{"prompt": "q", "response_1": "b", "response_2": "a", "preference_strength": 2}],
        [(Q, "a", "b")],
        {"preference_strength": 0},
        "preference_strength is 0: neither answer is the better one",
        "prompt",
    ),
    "helpsteer3": PairExample(
        [{"domain": "code", "context": Q, "response1": "a", "response2": "b", "overall_preference": -1}],
        [(Q, "a", "b")],
        {"overall_preference": 0},
        "overall_preference is 0: neither answer is the better one",
        "context",
    ),
    "kto": PairExample(
        [{"prompt": "q", "completion": text, "label": text == "a"} for text in "abc"],
        [(Q, "a", "b"), (Q, "a", "c")],
        {"label": None},
        "label is missing or null: must be true or false",
        "prompt",
    ),
    "arena": PairExample(
        [
            {
                "question_id": "x",
                "model_a": "m",
                "model_b": "n",
                "winner": "model_b",
                "conversation_a": [TALK[0], {"role": "assistant", "content": "b"}],
                "conversation_b": TALK,
            }
        ],
        [(Q, "a", "b")],
        {"winner": "tie"},
        'winner is "tie": neither answer is the better one',
        None,
    ),
    "shp": PairExample(
        [SHP],
        [([user("How to peel garlic?")], "Crush it.", "Buy it peeled.")],
        {"labels": 2},
        "labels is 2: must be 1 (A preferred) or 0",
        "history",
    ),
    "stack_exchange": PairExample(
        [STACK],
        [(Q, "a", "b"), (Q, "a", "c")],
        {"answers": STACK["answers"][:1]},
        "has no two answers of different pm_score",
        "question",
    ),
    "stack_exchange_paired": PairExample(
        [{"qid": 5, "question": "q", "response_j": "a", "response_k": "b", "metadata": STACK["metadata"]}],
        [(Q, "a", "b")],
        {"response_k": ""},
        "rejected has an empty answer",
        "question",
    ),
}
