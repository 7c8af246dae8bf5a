"""What becomes of a system turn where a chat template takes none: it goes before the first user turn, or is refused."""

import logging

from transformers import PreTrainedTokenizerBase

from rose.config.choices import SystemTurns
from rose.data.chat import SYSTEM, render
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


def taken(tokenizer: PreTrainedTokenizerBase, rule: SystemTurns) -> str:
    """What its chat template begins with, to take system turns: nothing where it takes them, or they are refused.

    Raises RoseError with rule=keep where it takes none.
    """
    reason = refused(tokenizer)
    if reason is None:
        return ""
    who = f"the model's chat template takes no system turn ({reason})"
    if rule is SystemTurns.keep:
        remedy = "say fold, to have it before the first user turn, or refuse, to drop the rows that have one"
        raise RoseError(f"model.system={rule}: {who}; {remedy}")
    what = "it goes before the first user turn" if rule is SystemTurns.fold else "rows that have one are dropped"
    log.info("model.system=%s: %s: %s", rule, who, what)
    return FOLD if rule is SystemTurns.fold else ""


def refused(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Why a chat template takes no system turn; None where it takes one, or no conversation at all."""
    turns: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    try:
        render(tokenizer, turns)
    except RoseError:  # the trial says so
        return None
    try:
        text = render(tokenizer, [{"role": "system", "content": SYSTEM}, *turns])
    except RoseError as error:
        return str(error)
    return None if SYSTEM in text else "it leaves it out"
