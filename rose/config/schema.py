"""The schema: a dataclass a group of conf/, where the values are; those of the data in data.py."""

from dataclasses import dataclass, field
from typing import Any

from rose.config import choices
from rose.config.choices import IN_KEY_IF_SET, NOT_IN_KEY
from rose.config.data import Dataset, Plant, Preference, World


@dataclass
class Training:
    """One supervised run on LoRA weights."""

    epochs: int
    learning_rate: float
    batch_size: int
    micro_batch_size: int
    schedule: choices.Schedule
    warmup_ratio: float  # share of the steps
    weight_decay: float
    max_grad_norm: float
    gradient_checkpointing: bool
    seed: int


@dataclass
class Pretraining:
    """A Llama made here from scratch on the embedded world's language."""

    layers: int
    width: int
    heads: int
    manners: choices.Manners
    conversations: int
    training: Training


@dataclass
class Base:
    """The frozen model: a hub id or folder (`path`), or pretraining on the embedded world."""

    path: str | None
    revision: str | None
    gguf: str | None  # file inside `path` to convert from
    trust_remote_code: bool
    pretraining: Pretraining | None


@dataclass
class Numerics:
    dtype: choices.Dtype
    attention: choices.Attention
    sharded: bool = field(metadata=NOT_IN_KEY)  # in training, over a job's processes; changes rounding alone
    matmul: choices.Matmul = field(default=choices.Matmul.highest, metadata=IN_KEY_IF_SET)  # of float32 on a GPU
    # of the frozen weights
    quantization: choices.Quantization = field(default=choices.Quantization.none, metadata=IN_KEY_IF_SET)


@dataclass
class Lora:
    rank: int
    alpha: int
    dropout: float
    targets: Any  # ends of layers' names; or one text: a pattern of whole names, or all-linear
    rank_stabilized: bool
    exclude: Any = field(default=None, metadata=IN_KEY_IF_SET)  # of those: ends of names, or a pattern of whole ones


@dataclass
class Model:
    name: str
    base: Base
    numerics: Numerics
    lora: Lora
    chat_template_kwargs: dict[str, Any]  # what its chat template is told besides the messages
    system: choices.SystemTurns  # what becomes of system turns that its chat template does not take
    max_length: int  # tokens a row
    learning_rate: float  # what its warm-up and fine-tuning use unless they say otherwise
    batch_size: int  # rows a step, likewise
    micro_batch_size: int  # rows in memory at once, likewise


@dataclass
class Warmup(Training):
    ratio: float  # share of the pool


@dataclass
class Features:
    adam: choices.AdamMap
    keep: choices.Keep = field(metadata=NOT_IN_KEY)  # which stage is built; stream needs neither dtype nor projection
    dtype: choices.StoreDtype
    batch_tokens: Any  # tokens a batch, padding included; or auto
    shards: int = field(metadata=NOT_IN_KEY)  # stages that share the pool's rows at a checkpoint; their key says which


@dataclass
class Projection:
    kind: choices.ProjectionKind
    dim: int
    seed: int


@dataclass
class StoredProjection(Projection):
    dtype: choices.StoreDtype  # of the pool's stored features unless features.dtype says otherwise


@dataclass
class Method:
    name: str
    representation: choices.Representation
    target: choices.Target | None
    balance: choices.Balance
    segments: int  # with balance=segments
    checkpoints: int | None  # only the warm-up's last so many count; null: all
    estimator: choices.Estimator
    components: int  # of the targets' subspace, with estimator=gist
    neighbours: int  # K, with estimator=shapley
    whiten: bool
    ridge: float  # λ of the whitened solve, in units of the mean squared feature norm
    pooling: choices.Pooling  # of hidden states
    layer: float = field(metadata=NOT_IN_KEY)  # share of the depth after which answer states are taken, (0, 1]
    encoder: str | None = field(metadata=NOT_IN_KEY)  # of embeddings: a model folder or hub id
    buckets: int  # that n-grams are hashed into
    smoothing: float  # added to each bucket's count
    per_ngram: bool  # the mean weight of a row's n-grams rather than their sum
    rule: choices.Rule
    candidates: int  # rows that rule=greedy orders; the others follow by score
    share: choices.Amount
    lesson: choices.Lesson
    seed: int | None  # of rules that draw
    reward_model: str | None = field(default=None, metadata=NOT_IN_KEY)  # that ranks rows; null: judge.model
    column: str | None = field(default=None, metadata=IN_KEY_IF_SET)  # of the rows, whose number ranks them


@dataclass
class Selection:
    ratio: float  # share of the pool's rows, in (0, 1]
    count: int | None  # rows, in place of the ratio
    tokens: int | None  # tokens, prompts included, in place of the ratio
    slice: int | None  # in place of the ratio the k-th of `slices` equal parts of the ranking; 1 = the best
    slices: int
    dedup: choices.Dedup
    per_source: float | None  # at most this share of the selection from one source
    min_length: int | None  # tokens a row
    max_length: int | None
    seed: int  # what a random choice takes


@dataclass
class Evaluation:
    batch_tokens: int  # tokens a batch, padding included
    max_new_tokens: int
    temperature: float  # 0: greedy
    seed: int


@dataclass
class Judge:
    """Who compares answers, and with whose; a kind reads only the settings it needs."""

    kind: choices.JudgeKind
    opponent: choices.Opponent
    manners: choices.Manners | None  # reward_world: of which world
    model: str | None  # reward_model: hub id or folder; llm: the endpoint's name for it
    revision: str | None  # of a hub model
    dtype: choices.Dtype  # of a reward model
    max_length: int | None  # tokens a reward model reads; null: what its tokenizer says
    batch_tokens: int  # of a reward model, padding included
    base_url: str | None = field(metadata=NOT_IN_KEY)  # of an OpenAI-compatible endpoint
    endpoint: str | None = field(metadata=NOT_IN_KEY)  # a name that mirrors share; null: base_url; in the key as such
    key_variable: str = field(metadata=NOT_IN_KEY)  # the environment variable that holds its key
    request: dict[str, Any]  # what every request says besides model and messages
    price_input: float | None  # per million tokens; null: unknown
    price_output: float | None
    concurrency: int = field(metadata=NOT_IN_KEY)  # requests under way at once
    retries: int = field(metadata=NOT_IN_KEY)  # of a request that met 408, 409, 429, 5xx or no answer
    timeout: float = field(metadata=NOT_IN_KEY)  # seconds a request may take
    cache: str = field(metadata=NOT_IN_KEY)  # folder of verdicts, shared by all runs


@dataclass
class Tasks:
    """Questions with one right answer, from a file."""

    name: str
    path: str | None = field(metadata=NOT_IN_KEY)  # file, folder, or hub dataset id; null: no tasks
    revision: str | None  # of a hub dataset
    files: list[str]  # patterns inside a folder or hub dataset; empty: every data file
    split: str | None  # rows whose `split` is this are asked; null: all
    shots: int  # solved examples before each question, of its own subtask
    shots_split: str | None  # where they come from; null: from `split`, and then they are not asked
    limit: int | None  # questions a subtask
    max_new_tokens: int
    on_bad_row: choices.OnBadRow
    seed: int


@dataclass
class Warn:
    """From where on a diagnostic's number is a warning."""

    length_correlation: float  # |Spearman| of score and length, above
    length_ratio: float  # mean length of the selection over the pool's, above, or below its inverse
    extremes: float  # share of the selection among the longest (shortest) rows, of what is above chance, above
    source_mix: float  # total variation distance, above
    near_duplicates: float  # share of the selection, above
    subtask_share: float  # of the selection that owes its score to one subtask, above
    stability: float  # mean Jaccard index under resampled pairs, below
    momentum_share: float  # of the score's variance, above
    projection: float  # Spearman of projected and exact influences, below
    leaked: float  # share of prompts, above


@dataclass
class Diagnostics:
    resamples: int  # of the target pairs
    exact_rows: int  # rows whose gradients are taken again, unprojected, to measure what the projection costs
    fidelity: bool  # also how often the score prefers the chosen answers of held-out pairs: costs their gradients
    fidelity_pairs: int | None  # held-out pairs, spread over the test prompts; null: all
    planted: bool  # also whether the score sees faults planted into copies of pool rows: costs their gradients
    planted_pairs: int  # rows and their copies, of each kind of fault
    matched_length: float  # answers whose lengths differ by at most this share of the longer one are of a length
    seed: int
    warn: Warn


@dataclass
class Runtime:
    threads: int | None  # null: what torch takes by itself
    workers: int  # jobs of a sweep at one time on this machine, a process each


@dataclass
class Tracking:
    mode: choices.TrackingMode
    project: str
    entity: str | None
    artifacts: bool  # whether a job's selection and adapter go to W&B too


@dataclass
class Config:
    model: Model
    dataset: Dataset
    plant: Plant
    preference: Preference
    warmup: Warmup
    features: Features
    projection: StoredProjection
    method: Method
    selection: Selection
    finetune: Training
    evaluation: Evaluation
    judge: Judge
    tasks: Tasks
    diagnostics: Diagnostics
    runtime: Runtime
    tracking: Tracking
    world: World
    seed: int
    outputs: str
    until: choices.Until
    dry_run: bool
    objective: str | None = None  # the metric that a job returns to a sweeper that searches, such as Optuna's
    name: str | None = None  # of a sweep's folder
    student: Model | None = None  # what is fine-tuned and evaluated, set with model@student=NAME; null: `model` itself
