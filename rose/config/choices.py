"""What may be chosen where only a few values are allowed: the schema's enums, and its one mark."""

from enum import StrEnum

# What no stage's output depends on. A path says where data are, not what: a fingerprint of the
# contents is in the key.
NOT_IN_KEY = {"in_key": False}
IN_KEY_IF_SET = {"in_key_if_set": True}  # added later: at its field's default a stage has the name it had

Dtype = StrEnum("Dtype", ["float32", "bfloat16", "float16"])
StoreDtype = StrEnum("StoreDtype", ["float32", "float16", "int8", "int4"])
# transformers' attn_implementation
Attention = StrEnum("Attention", ["sdpa", "eager", "flash_attention_2"])
# torch's float32_matmul_precision: exact products, or TF32's where a GPU has them
Matmul = StrEnum("Matmul", ["highest", "high"])
# in how many bits a frozen model is kept: 8, or 4 as QLoRA does; none: as its dtype says
Quantization = StrEnum("Quantization", ["none", "int8", "nf4"])
# transformers' lr_scheduler_type, those that need no further argument
Schedule = StrEnum("Schedule", ["linear", "cosine", "constant", "constant_with_warmup"])
TrackingMode = StrEnum("TrackingMode", ["online", "offline", "disabled"])
# what is kept of the pool's gradients: projections, for every later use, or scores alone
Keep = StrEnum("Keep", ["store", "stream"])
# how a raw gradient becomes the update it would cause: the formulas are in rose.gradients.adam
AdamMap = StrEnum("AdamMap", ["exact", "published", "no_momentum", "none"])
ProjectionKind = StrEnum("ProjectionKind", ["trak", "sketch", "srht", "none"])
PreferenceLoss = StrEnum("PreferenceLoss", ["dpo", "ipo", "ipo_mean", "simpo", "contrast"])
Reference = StrEnum("Reference", ["base", "warmup", "none"])
Normalize = StrEnum("Normalize", ["per_pair", "after_mean", "none"])
# what becomes of a system turn where the chat template takes none: it goes before the first user turn; the model, or
# the row, is refused
SystemTurns = StrEnum("SystemTurns", ["fold", "keep", "refuse"])
# how a target pair is written for its gradient: by the chat template, or as ROSE's own code does
PairFormat = StrEnum("PairFormat", ["template", "published"])
# in whose columns preference pairs stand: rose.data.pair_layouts has one function each
PairLayout = StrEnum(
    "PairLayout",
    "pairs hh orca alpaca sharegpt nectar safe_rlhf helpsteer helpsteer2 helpsteer3 kto arena shp stack_exchange "
    "stack_exchange_paired",
)
# what of a pair gradients are compared with: its preference loss (ROSE), its chosen answer (LESS)
Target = StrEnum("Target", ["preference", "chosen"])
Balance = StrEnum("Balance", ["none", "segments", "tokens"])
# how features of rows and targets become the influence of the one on the other
Estimator = StrEnum("Estimator", ["inner", "datainf", "gist", "shapley", "ridge"])
# whose hidden states stand for a row: the last token's, or all tokens', later ones weighing more
Pooling = StrEnum("Pooling", ["last", "weighted"])
# how much of the pool is taken: as `selection` says, all, or what a gradient method's cost trains
Amount = StrEnum("Amount", ["selection", "everything", "matched"])
# what the evaluated model is fine-tuned on
Lesson = StrEnum("Lesson", ["selection", "pairs_sft", "pairs_dpo", "none"])
# which rows are passed over for a better one: copies, or also those that share most of its text
Dedup = StrEnum("Dedup", ["none", "exact", "near"])
# what makes an answer of the embedded world good: its phrases, or that opener and closer agree
Manners = StrEnum("Manners", ["phrases", "agreement"])
# who says which of two answers is better
JudgeKind = StrEnum("JudgeKind", ["reward_world", "reward_model", "llm", "none"])
# whose answers the model's are judged against: the test pairs' chosen ones, or the base model's
Opponent = StrEnum("Opponent", ["reference", "zero_shot"])
OnBadRow = StrEnum("OnBadRow", ["stop", "skip"])
# what can be wrong with a planted row's answer: the definitions are in rose.data.faults
Fault = StrEnum("Fault", ["swap", "truncate", "shuffle", "repeat", "refuse", "wrong_number", "padding", "garble"])
# those that bring no new words: what a model that is made here can read
IN_ITS_OWN_WORDS = (Fault.swap, Fault.truncate, Fault.shuffle, Fault.repeat)
# what a method knows of a row
Representation = StrEnum(
    "Representation",
    "gradients readout hidden answer_states embeddings words ngrams lengths perplexity ifd loss_drop "
    "reward column none",
)
# how influences on single pairs become one score a row
Rule = StrEnum("Rule", "mean_max global_max round_robin best_rank greedy resample lowest middle random balanced")
# the stages `until=` may stop after, in order; `evaluation` is the end, with verdicts and tasks
Until = StrEnum(
    "Until",
    "leakage base tokens warmup features targets scores fidelity planted selection diagnostics finetune answers "
    "evaluation",
)
