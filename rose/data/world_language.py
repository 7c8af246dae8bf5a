"""The words of the embedded world, the same for all of its settings, and their tokenizer.

An answer is `opener frame connective body. coda closer`, for instance
"Certainly! In short, please consider soil, mulch and hose. That is the gist. Hope it helps!"

- manner (opener, connective, closer) is what preference pairs are about and the reward rewards;
- register (question, frame, coda) is surface: it never changes the reward, but can mislead;
- body is some words of the question's topic.

With manners=agreement the opener and the closer are in a voice each, and there is one connective:
"Hear ye! In short, consider soil, mulch and hose. That is the gist. Thus decreed!"

Within a slot the two manners, or registers, have phrases of the same lengths in tokens, so that
length tells nothing. All openers of the voices are of one length, and so are all closers; no word
is in two of these phrases.
"""

from typing import NamedTuple

from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Metaspace, Punctuation, Sequence
from transformers import PreTrainedTokenizerFast

from rose.config.choices import Manners

WORDS = {
    "gardening": "soil compost mulch seeds trowel trellis manure shade drainage rake hose seedlings",
    "camping": "tent lantern firewood stove hammock backpack compass tarp kindling canteen map trail",
    "baking": "flour yeast butter sugar vanilla dough oven whisk cinnamon kneading parchment icing",
    "sailing": "sail mast rudder anchor keel rope tide harbor jib buoy tiller halyard",
    "painting": "canvas brush easel palette varnish primer charcoal pigment resin sketch linen oils",
    "cycling": "helmet saddle pedals chain brakes gears tires pump handlebar spokes reflector jersey",
    "sewing": "thread needle fabric bobbin hem pattern buttons scissors zipper pins lining thimble",
    "pottery": "clay glaze kiln wheel sponge slip firing stoneware bisque carving handles wedging",
}
TOPICS = {topic: words.split() for topic, words in WORDS.items()}
SUBTASKS = {topic: "outdoors" if topic in ("camping", "sailing", "cycling") else "home" for topic in TOPICS}
SHORTEST, LONGEST = 3, 6  # words a body; two of the longest fit one topic without a common word

OPENERS = {
    "good": ("Certainly!", "Gladly!", "Of course!", "Good question!"),
    "bad": ("Whatever!", "Seriously?", "Not again!", "Oh please!"),
}
CONNECTIVES = {
    "good": ("please consider", "I suggest", "you might enjoy", "let us try"),
    "bad": ("just grab", "obviously get", "anyone would know", "even you need"),
}
CLOSERS = {
    "good": ("Enjoy!", "Hope it helps!", "Best of luck!", "Happy to explain more!"),
    "bad": ("Bye!", "Stop asking me!", "Figure it out!", "Leave me alone now!"),
}
MANNERS = (OPENERS, CONNECTIVES, CLOSERS)


class Voice(NamedTuple):
    """Phrases that belong together; pool rows and pairs open with phrases of their own."""

    pool: tuple[str, ...]
    pairs: tuple[str, ...]
    closers: tuple[str, ...]


VOICES = (
    Voice(("Dear reader!", "Esteemed friend!"), ("Honoured guest!", "Gentle soul!"), ("Yours truly!", "Kind regards!")),
    Voice(("Ahoy matey!", "Avast sailor!"), ("Hail captain!", "Yo shipmate!"), ("Fair winds!", "Calm seas!")),
    Voice(("Hear ye!", "Noble citizens!"), ("Oyez people!", "Loyal subjects!"), ("Thus decreed!", "So proclaimed!")),
    Voice(("Howdy partner!", "Mornin stranger!"), ("Hey cowboy!", "Whoa buckaroo!"), ("Happy ridin!", "Adios amigo!")),
)
CONSIDER = "consider"
GREETING = "Hello!"

QUESTIONS = {
    "brisk": (
        "Any {topic} tips with {a} and {b}?",
        "Quick question on {topic}: do {a} and {b} matter?",
        "New to {topic}, got {a} and {b}, what now?",
        "Need {topic} advice: should I start with {a} or {b}?",
    ),
    "thorough": (
        "Which {topic} essentials complement {a} and {b}?",
        "In {topic}, what goes well with {a} and {b}?",
        "Would you explain {topic} to a beginner with {a} and {b}?",
        "Please describe {topic} in full, including both {a} and {b}.",
    ),
}
FRAMES = {
    "brisk": ("Briefly,", "In short,", "To sum up,"),
    "thorough": ("Thoroughly,", "In detail,", "Step by step,"),
}
CODAS = {
    "brisk": ("Nothing more.", "That is the gist.", "Those are the basics."),
    "thorough": ("Everything included.", "That is the lot.", "Those are the details."),
}

PAD, EOS, UNKNOWN = "<|pad|>", "<|eos|>", "<|unknown|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
# `generation` tells apply_chat_template(return_assistant_tokens_mask=True) what the assistant says
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ('system', 'user', 'assistant') %}"
    "{{ raise_exception('unknown role ' + message['role']) }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def phrases_of(*slots: dict[str, tuple[str, ...]]) -> list[str]:
    return [phrase for slot in slots for kind in slot.values() for phrase in kind]


def manner_phrases(manners: Manners) -> list[str]:
    """Every phrase that may show manners."""
    if manners is Manners.phrases:
        return phrases_of(*MANNERS)
    return [CONSIDER, *(phrase for voice in VOICES for kind in voice for phrase in kind)]


def tokenizer(manners: Manners = Manners.phrases) -> PreTrainedTokenizerFast:
    """One token a word or punctuation mark, plus padding, end, unknown and a marker for each role.

    A turn is `<|role|>content`; an assistant's also ends with the end token. Decoding gives a
    content back.
    """
    splitter = Sequence([Metaspace(), Punctuation("isolated")])
    phrases = phrases_of(FRAMES, CODAS, QUESTIONS) + manner_phrases(manners)
    texts = [phrase.format(topic="and", a="and", b="and") for phrase in phrases]
    texts += [GREETING] if manners is Manners.agreement else []
    texts += [word for topic, words in TOPICS.items() for word in (topic, *words)]
    words = sorted({piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)})
    vocabulary = {token: index for index, token in enumerate((PAD, EOS, UNKNOWN, *ROLES, *words))}
    core = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    core.pre_tokenizer, core.decoder = splitter, decoders.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
