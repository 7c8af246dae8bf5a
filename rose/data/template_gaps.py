"""What a chat template lacks, and what is put around it in its place: a system turn, a mark that ends an answer."""

import logging

from transformers import PreTrainedTokenizerBase

from rose.config.choices import SystemTurns
from rose.data.chat import SYSTEM, end_of_turn, next_turn, render, special
from rose.data.rows import Message
from rose.errors import RoseError

log = logging.getLogger(__name__)

FOLD = (  # by itself, where no user turn follows
    "{% if messages and messages[0].role == 'system' %}"
    "{% set said, rest = messages[0].content | trim, messages[1:] %}"
    "{% if said and rest and rest[0].role == 'user' %}"
    "{% set rest = [{'role': 'user', 'content': said ~ '\\n\\n' ~ rest[0].content}] + rest[1:] %}"
    "{% elif said %}{% set rest = [{'role': 'user', 'content': said}] + rest %}{% endif %}"
    "{% set messages = rest %}{% endif %}\n"
)
TURNS: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]


def around(tokenizer: PreTrainedTokenizerBase, rule: SystemTurns) -> list[str]:
    """What stands before its chat template and after it; nothing where it lacks nothing.

    Raises RoseError with rule=keep where it takes no system turn.
    """
    try:
        render(tokenizer, TURNS)
    except RoseError:  # a template that refuses everything: the trial says so
        return []
    sides = [_before(tokenizer, rule), _after(tokenizer)]
    return sides if any(sides) else []


def _before(tokenizer: PreTrainedTokenizerBase, rule: SystemTurns) -> str:
    """What puts a system turn where the template takes one."""
    reason = refuses_system(tokenizer)
    if reason is None:
        return ""
    who = f"the model's chat template takes no system turn ({reason})"
    if rule is SystemTurns.keep:
        remedy = "say fold, to have it before the first user turn, or refuse, to drop the rows that have one"
        raise RoseError(f"model.system={rule}: {who}; {remedy}")
    what = "it goes before the first user turn" if rule is SystemTurns.fold else "rows that have one are dropped"
    log.info("model.system=%s: %s: %s", rule, who, what)
    return FOLD if rule is SystemTurns.fold else ""


def refuses_system(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Why a chat template takes no system turn; None where it takes one."""
    try:
        text = render(tokenizer, [{"role": "system", "content": SYSTEM}, *TURNS])
    except RoseError as error:
        return str(error)
    return None if SYSTEM in text else "it leaves it out"


def _after(tokenizer: PreTrainedTokenizerBase) -> str:
    """What begins the next user turn, up to a special token, where nothing else ends an answer: so it is learned."""
    mark = "" if end_of_turn(tokenizer) else next_turn(tokenizer)
    if not special(tokenizer, mark):
        return ""
    log.info("the model's chat template ends an answer with nothing: %s, which begins the next turn, is learned", mark)
    return "{% if messages and messages[-1].role == 'assistant' %}{{ " + repr(mark) + " }}{% endif %}"
