"""What may be chosen where only a few values are allowed: the schema's enums, and its one mark."""

from enum import StrEnum

# What no stage's output depends on. A path says where data are, not what: a fingerprint of the
# contents is in the key.
NOT_IN_KEY = {"in_key": False}


class Dtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Attention(StrEnum):
    """transformers' attn_implementation."""

    sdpa = "sdpa"
    eager = "eager"
    flash_attention_2 = "flash_attention_2"


class Schedule(StrEnum):
    """transformers' lr_scheduler_type, those that need no further argument."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant"
    constant_with_warmup = "constant_with_warmup"


class TrackingMode(StrEnum):
    online = "online"
    offline = "offline"
    disabled = "disabled"


class StoreDtype(StrEnum):
    float32 = "float32"
    float16 = "float16"
    int8 = "int8"
    int4 = "int4"


class Keep(StrEnum):
    """What is kept of the pool's gradients: projections, for every later use, or scores alone."""

    store = "store"
    stream = "stream"


class AdamMap(StrEnum):
    """How a raw gradient becomes the update it would cause: the formulas are in rose.gradients.adam."""

    exact = "exact"
    published = "published"
    no_momentum = "no_momentum"
    none = "none"


class ProjectionKind(StrEnum):
    trak = "trak"
    sketch = "sketch"
    srht = "srht"
    none = "none"


class PreferenceLoss(StrEnum):
    dpo = "dpo"
    ipo = "ipo"
    ipo_mean = "ipo_mean"
    simpo = "simpo"
    contrast = "contrast"


class Reference(StrEnum):
    base = "base"
    warmup = "warmup"
    none = "none"


class Normalize(StrEnum):
    per_pair = "per_pair"
    after_mean = "after_mean"
    none = "none"


class Representation(StrEnum):
    """What a method knows of a row."""

    gradients = "gradients"
    hidden = "hidden"
    embeddings = "embeddings"
    words = "words"
    ngrams = "ngrams"
    lengths = "lengths"
    perplexity = "perplexity"
    ifd = "ifd"
    loss_drop = "loss_drop"
    none = "none"


class Target(StrEnum):
    """What of a pair gradients are compared with: its preference loss (ROSE), its chosen answer (LESS)."""

    preference = "preference"
    chosen = "chosen"


class Balance(StrEnum):
    none = "none"
    segments = "segments"
    tokens = "tokens"


class Estimator(StrEnum):
    """How features of rows and targets become the influence of the one on the other."""

    inner = "inner"
    datainf = "datainf"
    gist = "gist"
    shapley = "shapley"


class Pooling(StrEnum):
    """Whose hidden states stand for a row: the last token's, or all tokens', later ones weighing more."""

    last = "last"
    weighted = "weighted"


class Rule(StrEnum):
    """How influences on single pairs become one score a row."""

    mean_max = "mean_max"
    global_max = "global_max"
    round_robin = "round_robin"
    best_rank = "best_rank"
    greedy = "greedy"
    resample = "resample"
    lowest = "lowest"
    middle = "middle"
    random = "random"
    balanced = "balanced"


class Amount(StrEnum):
    """How much of the pool is taken: as `selection` says, all, or what a gradient method's cost trains."""

    selection = "selection"
    everything = "everything"
    matched = "matched"


class Lesson(StrEnum):
    """What the evaluated model is fine-tuned on."""

    selection = "selection"
    pairs_sft = "pairs_sft"
    pairs_dpo = "pairs_dpo"
    none = "none"


class Dedup(StrEnum):
    """Which rows are passed over for a better one: copies, or also those that share most of its text."""

    none = "none"
    exact = "exact"
    near = "near"


class Manners(StrEnum):
    """What makes an answer of the embedded world good: its phrases, or that its opener and closer agree."""

    phrases = "phrases"
    agreement = "agreement"


class JudgeKind(StrEnum):
    """Who says which of two answers is better."""

    reward_world = "reward_world"
    reward_model = "reward_model"
    llm = "llm"
    none = "none"


class Opponent(StrEnum):
    """Whose answers the model's are judged against: the test pairs' chosen ones, or the base model's."""

    reference = "reference"
    zero_shot = "zero_shot"


class OnBadRow(StrEnum):
    stop = "stop"
    skip = "skip"


class Until(StrEnum):
    """The stages `until=` may stop after, in order; `evaluation` is the end, with verdicts and tasks."""

    leakage = "leakage"
    base = "base"
    tokens = "tokens"
    warmup = "warmup"
    features = "features"
    targets = "targets"
    scores = "scores"
    fidelity = "fidelity"
    selection = "selection"
    diagnostics = "diagnostics"
    finetune = "finetune"
    answers = "answers"
    evaluation = "evaluation"
