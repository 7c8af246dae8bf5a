"""The layouts of instruction data: a question and its answer in columns of their own, or a conversation in one."""

from functools import partial
from typing import Any

from rose.data import pair_layouts
from rose.data.bad_rows import BadRow, kind
from rose.data.calls import take_tools
from rose.data.layouts import Layout, fitting, found, refused
from rose.data.messages import answers_in, as_messages, asked, followed, opened
from rose.data.rows import Message

WHOLE = ("messages", "conversations")  # columns that hold a conversation


def layout_of(values: dict[str, Any]) -> str:
    """The name of the row's layout; of several that fit the first. Raises BadRow."""
    if not (fits := fitting(values, LAYOUTS)):
        raise refused(values, LAYOUTS, pair_layouts.LAYOUTS, "is of preference pairs, which preference.path reads")
    return fits[0]


def conversations(values: dict[str, Any]) -> list[list[Message]]:
    """What `values` hold to learn from; the columns that are read are taken out of them. Raises BadRow.

    What tools may be called is left as a JSON list.
    """
    _liked(values)
    layout = LAYOUTS[layout_of(values)]
    filled = [name for name, value in values.items() if value is not None]
    tools = take_tools(values)
    rows = layout.read(values, *(found(layout, filled) or found(layout, list(values))))
    for name in WHOLE:
        if values.get(name, "") is None:
            del values[name]
    if tools:
        values["tools"] = tools
    return rows


def _conversation(values: dict[str, Any], column: str) -> list[list[Message]]:
    messages = as_messages(values.pop(column), column)
    return [opened(values, messages, whole=True)]


def _answered(values: dict[str, Any], question: str, answer: str, more: tuple[str, ...] = ()) -> list[list[Message]]:
    """A question and its answer, or a list of answers: a conversation each. Columns `more` go on with the question."""
    before = opened(values, asked(values, values.pop(question), question, more))
    replies = answers_in(values.pop(answer))
    return [followed(before, as_messages(reply, answer, "assistant"), answer) for reply in replies]


def _liked(values: dict[str, Any]) -> None:
    """Raises BadRow for an answer marked as a bad one, as KTO's data have them.

    Beside other columns than KTO's a label of 0 may be a class's number, `false` is none.
    """
    kto = {"prompt", "completion"} <= values.keys()
    for name, bad in (("label", ("false", "0") if kto else ("false",)), ("kto_tag", ("false", "0"))):
        if str(values.get(name)).strip().lower() in bad:
            remedy = "a pool has answers to learn; leave such rows out, or rename the column if it means something else"
            raise BadRow(f"{name} is {kind(values[name])}, which marks the answer as a bad one: {remedy}")


LAYOUTS = {  # an answer's column in the plural has a list of them, as may any
    "messages": Layout(("messages",), _conversation),
    "sharegpt": Layout(("conversations",), _conversation),
    "prompt": Layout(("prompt", "completion|response|answer|completions|responses|answers"), _answered),
    "alpaca": Layout(
        ("instruction", "output|response|outputs|responses"), partial(_answered, more=("input", "context"))
    ),
    "orca": Layout(("question", "response|answer|responses|answers"), _answered),
    "input_output": Layout(("input", "output|outputs"), _answered),
}
