"""The schema: a dataclass a group of conf/, where the values are; those of the data in data.py."""

from dataclasses import dataclass, field
from typing import Any

from rose.config import choices
from rose.config.choices import IN_KEY_IF_SET, NOT_IN_KEY
from rose.config.data import Dataset, Plant, Preference, World


@dataclass
class Training:
    """One supervised run on LoRA weights."""

    epochs: int  # passes over the rows
    learning_rate: float  # of AdamW, at its highest
    batch_size: int  # rows a step, divided among a job's processes
    micro_batch_size: Any  # rows in memory at once; auto: as many of a step's as a GPU has room for
    schedule: choices.Schedule  # of the learning rate, as transformers calls it
    warmup_ratio: float  # share of the steps
    weight_decay: float  # AdamW's
    max_grad_norm: float  # a longer gradient is cut to this norm
    gradient_checkpointing: bool  # compute activations again rather than keep them
    seed: int  # of the rows' order and of dropout


@dataclass
class Pretraining:
    """A Llama made here from scratch on the embedded world's language."""

    layers: int  # of the Llama
    width: int  # of its hidden states
    heads: int  # of its attention
    manners: choices.Manners  # of the conversations: of which world
    conversations: int  # to learn from
    training: Training


@dataclass
class Base:
    """The frozen model: a hub id or folder (`path`), or pretraining on the embedded world."""

    path: str | None  # hub id, or a folder written by save_pretrained
    revision: str | None  # of a hub model; null: main
    gguf: str | None  # file inside `path` to convert from
    trust_remote_code: bool  # run the code that comes with the model
    pretraining: Pretraining | None


@dataclass
class Numerics:
    dtype: choices.Dtype  # of the frozen weights; adapters and gradients are float32
    attention: choices.Attention  # transformers' attn_implementation
    sharded: bool = field(metadata=NOT_IN_KEY)  # in training, over a job's processes; changes rounding alone
    matmul: choices.Matmul = field(default=choices.Matmul.highest, metadata=IN_KEY_IF_SET)  # of float32 on a GPU
    # of the frozen weights
    quantization: choices.Quantization = field(default=choices.Quantization.none, metadata=IN_KEY_IF_SET)


@dataclass
class Lora:
    rank: int  # of both factors
    alpha: int  # the update counts alpha / rank
    dropout: float  # in training, of the adapter's input
    targets: Any  # ends of layers' names; or one text: a pattern of whole names, or all-linear
    rank_stabilized: bool  # alpha / √rank instead
    exclude: Any = field(default=None, metadata=IN_KEY_IF_SET)  # of those: ends of names, or a pattern of whole ones


@dataclass
class Model:
    name: str  # in job names and the report
    base: Base
    numerics: Numerics
    lora: Lora
    chat_template_kwargs: dict[str, Any]  # what its chat template is told besides the messages
    system: choices.SystemTurns  # what becomes of system turns that its chat template does not take
    max_length: int  # tokens a row
    learning_rate: float  # what its warm-up and fine-tuning use unless they say otherwise
    batch_size: int  # rows a step, likewise
    micro_batch_size: Any  # rows in memory at once, or auto, likewise


@dataclass
class Warmup(Training):
    ratio: float  # share of the pool


@dataclass
class Features:
    # what becomes of a row's gradient: the update that Adam would make of it, or the bare gradient
    adam: choices.AdamMap
    keep: choices.Keep = field(metadata=NOT_IN_KEY)  # which stage is built; stream needs neither dtype nor projection
    dtype: choices.StoreDtype  # of stored features
    batch_tokens: Any  # tokens a batch, padding included; or auto
    shards: int = field(metadata=NOT_IN_KEY)  # stages that share the pool's rows at a checkpoint; their key says which
    tokens: int | None = field(default=None, metadata=IN_KEY_IF_SET)  # only a row's first so many labelled ones count


@dataclass
class Projection:
    kind: choices.ProjectionKind  # of gradients to fewer numbers
    dim: int  # numbers a row, of the readout too
    seed: int  # of its random matrix


@dataclass
class StoredProjection(Projection):
    dtype: choices.StoreDtype  # of the pool's stored features unless features.dtype says otherwise


@dataclass
class Method:
    name: str  # in job names and the report
    representation: choices.Representation  # what is known of a row
    # what of a pair rows are compared with: its preference loss (ROSE), its chosen answer (LESS)
    target: choices.Target | None
    balance: choices.Balance  # gradients of tokens or segments of an answer brought to unit norm before they are summed
    segments: int  # with balance=segments
    checkpoints: int | None  # only the warm-up's last so many count; null: all, of a readout none, but the base model
    estimator: choices.Estimator  # how features become influence
    components: int  # of the targets' subspace, with estimator=gist
    neighbours: int  # K, with estimator=shapley
    whiten: bool  # solve with the pool's second moments, as TRAK does, in place of cosines
    ridge: float  # λ of the whitened solve, in units of the mean squared feature norm
    pooling: choices.Pooling  # of hidden states
    layer: float = field(metadata=NOT_IN_KEY)  # share of the depth after which answer states are taken, (0, 1]
    encoder: str | None = field(metadata=NOT_IN_KEY)  # of embeddings: a model folder or hub id
    buckets: int  # that n-grams are hashed into
    smoothing: float  # added to each bucket's count
    per_ngram: bool  # the mean weight of a row's n-grams rather than their sum
    rule: choices.Rule  # how influences on single pairs become an order of rows
    candidates: int  # rows that rule=greedy orders; the others follow by score
    # how much of the pool is taken: as selection says, all, or what a gradient method's cost would train
    share: choices.Amount
    lesson: choices.Lesson  # what the model is fine-tuned on
    seed: int | None  # of rules that draw
    reward_model: str | None = field(default=None, metadata=NOT_IN_KEY)  # that ranks rows; null: judge.model
    column: str | None = field(default=None, metadata=IN_KEY_IF_SET)  # of the rows, whose number ranks them


@dataclass
class Candidates:
    """A cheap method ranks the pool first, and the job's own method sees the best share of it alone."""

    share: float  # of the pool's usable rows, in (0, 1]
    method: Method | None  # null: every row is a candidate


@dataclass
class Selection:
    ratio: float  # share of the pool's rows, in (0, 1]
    count: int | None  # rows, in place of the ratio
    tokens: int | None  # tokens, prompts included, in place of the ratio
    slice: int | None  # in place of the ratio the k-th of `slices` equal parts of the ranking; 1 = the best
    slices: int  # equal parts of the ranking
    dedup: choices.Dedup  # pass over copies of better rows, or rows that share most of their text with one
    per_source: float | None  # at most this share of the selection from one source
    min_length: int | None  # tokens a row
    max_length: int | None  # tokens a row
    seed: int  # what a random choice takes


@dataclass
class Evaluation:
    batch_tokens: Any  # tokens a batch, padding included; or auto
    max_new_tokens: int  # of an answer
    temperature: float  # 0: greedy
    seed: int  # of sampled answers


@dataclass
class Judge:
    """Who compares answers, and with whose; a kind reads only the settings it needs."""

    kind: choices.JudgeKind  # who compares
    opponent: choices.Opponent  # whose answers a model's meet: the chosen ones, or the base model's
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
    price_output: float | None  # likewise, of replies
    concurrency: int = field(metadata=NOT_IN_KEY)  # requests under way at once
    retries: int = field(metadata=NOT_IN_KEY)  # of a request that met 408, 409, 429, 5xx or no answer
    timeout: float = field(metadata=NOT_IN_KEY)  # seconds a request may take
    cache: str = field(metadata=NOT_IN_KEY)  # folder of verdicts, shared by all runs


@dataclass
class Tasks:
    """Questions with one right answer, from a file."""

    name: str  # in metrics: accuracy_NAME
    path: str | None = field(metadata=NOT_IN_KEY)  # file, folder, or hub dataset id; null: no tasks
    revision: str | None  # of a hub dataset
    files: list[str]  # patterns inside a folder or hub dataset; empty: every data file
    split: str | None  # rows whose `split` is this are asked; null: all
    shots: int  # solved examples before each question, of its own subtask
    shots_split: str | None  # where they come from; null: from `split`, and then they are not asked
    limit: int | None  # questions a subtask
    max_new_tokens: int  # of an answer
    on_bad_row: choices.OnBadRow  # end the run, or count and list the row
    seed: int  # of which questions and solved examples


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
    seed: int  # of resamples, rows and faults
    warn: Warn


@dataclass
class Runtime:
    threads: int | None  # null: what torch takes by itself
    workers: int  # jobs of a sweep at one time on this machine, a process each


@dataclass
class Tracking:
    mode: choices.TrackingMode  # W&B's
    project: str  # of W&B
    entity: str | None  # the user or team whose project it is; null: W&B's default
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
    candidates: Candidates
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
    seed: int  # what every other seed follows but those of the data
    outputs: str  # folder of stages, runs, sweeps and models
    until: choices.Until  # the last stage that is built
    dry_run: bool  # tell which stages are ready and read the data's first rows, compute nothing
    objective: str | None = None  # the metric that a job returns to a sweeper that searches, such as Optuna's
    name: str | None = None  # of a sweep's folder
    student: Model | None = None  # what is fine-tuned and evaluated, set with model@student=NAME; null: `model` itself
