"""The method, stage by stage. Read this file first.

Nothing is computed here: each line names a stage and what it is made from, and `artifacts.build` computes what is
asked for and missing. Stages are shared by every job whose inputs are the same, so a sweep over methods and ratios
warms up and takes the pool's gradients once.
"""

from rose.config.choices import JudgeKind, Keep, Lesson, Opponent, Representation, Target
from rose.config.schema import Config, Projection
from rose.data.chat import tokenize
from rose.data.pool import fingerprint as pool_fingerprint
from rose.data.pool import read_pool
from rose.data.preferences import fingerprint as pairs_fingerprint
from rose.data.preferences import read_preferences
from rose.diagnostics.nodes import checks
from rose.evaluation.answers import answer
from rose.evaluation.answers import effective as effective_evaluation
from rose.evaluation.evaluate import evaluate
from rose.evaluation.questions import fingerprint as questions_fingerprint
from rose.evaluation.reward_model import source as judge_source
from rose.evaluation.tasks import solve
from rose.evaluation.verdicts import effective as effective_judge
from rose.evaluation.verdicts import judge_answers, shares_model
from rose.gradients.features import pair_features, pool_features
from rose.gradients.objectives import Objective
from rose.gradients.objectives import effective as effective_objective
from rose.gradients.projection import effective as effective_projection
from rose.gradients.streaming import pool_cosines
from rose.methods.embedding import pair_embeddings, pool_embeddings
from rose.methods.embedding import source as encoder_source
from rose.methods.hidden import pair_states, pool_states
from rose.methods.losses import answer_losses, row_losses
from rose.methods.scores import effective as effective_method
from rose.methods.scores import score
from rose.methods.selection import effective as effective_selection
from rose.methods.selection import select
from rose.models.loading import fingerprint as model_fingerprint
from rose.stages.build import Node
from rose.training.base import adapter_size, prepare
from rose.training.finetune import fine_tune
from rose.training.pairs import tune_by_dpo, tune_on_chosen
from rose.training.warmup import warm_up

MEASURES = ("evaluation", "verdicts", "tasks")


def stages(config: Config) -> dict[str, Node]:
    """The stages of one job, in order. `effective_…` leaves out of a stage's key what cannot change its outcome."""
    data = _data(config)
    objective, projection = effective_objective(config.method, config.preference), _projection(config)
    gradients = _gradients(config, objective, projection, **data)
    passes = _forward_passes(config, **data)

    method = effective_method(config.method, config.warmup.epochs)
    representation = _representation(config, data | gradients | passes)
    scores = Node(score, method, data["tokens"], representation, label=method.name)
    amount = effective_selection(method, config.selection, config.warmup, config.finetune)
    selection = Node(select, amount, config.dataset.world is not None, scores, data["pool"])
    chosen = {"scores": scores, "selection": selection}

    student = _student(config, data["pool"], data["preferences"], selection)
    tested, adapter = (config, student["student_base"], data["preferences"]), student["finetune"]
    zero_shot = _measures(*tested, None, {})
    own = zero_shot if adapter is None else _measures(*tested, adapter, zero_shot)
    base_model = {("zero_shot" if name == "evaluation" else f"zero_shot_{name}"): zero_shot[name] for name in zero_shot}

    # where two names mean one stage, the first is what a job calls it
    named = data | gradients | chosen | student | passes | own | base_model
    made = {name: node for name, node in named.items() if node is not None}
    return made | checks(config, method, objective, projection, representation, made)


def _data(config: Config) -> dict[str, Node]:
    """The model that selects, what it selects from and what for; the pool in its tokens."""
    model, dataset, preference = config.model, config.dataset, config.preference
    base = Node(prepare, model.base, model_fingerprint(model.base), label=model.name)
    pool = Node(read_pool, dataset, pool_fingerprint(dataset), label=dataset.name)
    pairs = Node(read_preferences, preference.pairs, pairs_fingerprint(preference.pairs), label=preference.name)
    tokens = Node(tokenize, model.max_length, base, pool)
    return {"base": base, "pool": pool, "preferences": pairs, "tokens": tokens}


def _projection(config: Config) -> Projection:
    gradients = config.method.representation is Representation.gradients
    size = adapter_size(config.model.base, config.model.lora) if gradients else None
    return effective_projection(config.projection, config.features.keep, size)


def _gradients(
    config: Config,
    objective: Objective,
    projection: Projection,
    base: Node,
    pool: Node,
    preferences: Node,
    tokens: Node,
) -> dict[str, Node]:
    """A short warm-up, then at each of its checkpoints the gradients of the pool's rows and of the target pairs."""
    model, how = config.model, config.features
    warmup = Node(warm_up, config.warmup, model.lora, model.numerics, base, tokens)
    trained = (model.numerics, base, warmup)
    targets = Node(pair_features, objective, projection, model.numerics, model.max_length, base, warmup, preferences)
    features = {
        Keep.store: Node(pool_features, how, projection, *trained, tokens),
        Keep.stream: Node(pool_cosines, how.adam, how.batch_tokens, *trained, tokens, targets),
    }[how.keep]
    return {"warmup": warmup, "features": features, "targets": targets}


def _forward_passes(config: Config, base: Node, pool: Node, preferences: Node, tokens: Node) -> dict[str, Node]:
    """What the methods without per-example gradients look at: hidden states, embeddings, losses."""
    model, method, numerics = config.model, config.method, config.model.numerics
    encoder = (encoder_source(method), model_fingerprint(encoder_source(method)))
    tuning = (model.lora, numerics, model.max_length, base, preferences)
    pairs_sft = Node(tune_on_chosen, config.finetune, *tuning)
    pairs_dpo = Node(tune_by_dpo, config.finetune, config.preference.beta, *tuning)
    tuned = {Target.chosen: pairs_sft, Target.preference: pairs_dpo, None: None}[method.target]
    return {
        "hidden": Node(pool_states, numerics, base, tokens),
        "target_hidden": Node(pair_states, numerics, model.max_length, base, preferences),
        "embeddings": Node(pool_embeddings, *encoder, tokens, pool),
        "target_embeddings": Node(pair_embeddings, *encoder, preferences),
        "losses": Node(row_losses, numerics, base, None, tokens),
        "answer_losses": Node(answer_losses, numerics, base, tokens),
        "tuned_losses": Node(row_losses, numerics, base, tuned, tokens),
        "pairs_sft": pairs_sft,
        "pairs_dpo": pairs_dpo,
    }


def _representation(config: Config, known: dict[str, Node]) -> tuple:
    """What the method's representation is made of: the arguments of its function in `rose.methods`."""
    names = {
        Representation.gradients: ("features", "targets"),
        Representation.hidden: ("hidden", "target_hidden"),
        Representation.embeddings: ("embeddings", "target_embeddings"),
        Representation.words: ("pool", "preferences"),
        Representation.ngrams: ("pool", "preferences"),
        Representation.lengths: (),
        Representation.perplexity: ("losses",),
        Representation.ifd: ("losses", "answer_losses"),
        Representation.loss_drop: ("losses", "tuned_losses"),
        Representation.none: (),
    }[config.method.representation]
    settings = (config.preference.normalize,) if config.method.representation is Representation.gradients else ()
    return (*settings, *(known[name] for name in names))


def _student(config: Config, pool: Node, preferences: Node, selection: Node) -> dict[str, Node | None]:
    """The model that is fine-tuned, on what the method says: as a rule the one that selected."""
    student = config.student or config.model
    base = Node(prepare, student.base, model_fingerprint(student.base), label=student.name)
    tokens = Node(tokenize, student.max_length, base, pool)
    trained = (student.lora, student.numerics)
    taught = (*trained, student.max_length, base, preferences)
    adapter = {
        Lesson.selection: Node(fine_tune, config.finetune, *trained, base, tokens, selection),
        Lesson.pairs_sft: Node(tune_on_chosen, config.finetune, *taught),
        Lesson.pairs_dpo: Node(tune_by_dpo, config.finetune, config.preference.beta, *taught),
        Lesson.none: None,
    }[config.method.lesson]
    return {"student_base": base, "student_tokens": tokens, "finetune": adapter}


def _measures(
    config: Config, base: Node, pairs: Node, adapter: Node | None, zero_shot: dict[str, Node | None]
) -> dict[str, Node | None]:
    """What is asked of a fine-tuned model, or with `adapter=None` of the base model, whom the others meet."""
    judge, tasks, model = config.judge, config.tasks, config.student or config.model
    setting = (model.numerics, model.max_length, base, adapter)
    evaluation = Node(evaluate, config.evaluation.batch_tokens, *setting, zero_shot.get("evaluation"), pairs)
    answers = Node(answer, effective_evaluation(config.evaluation), *setting, pairs)
    opponent = None if judge.opponent is Opponent.reference else zero_shot.get("answers", answers)
    who = (effective_judge(judge), model_fingerprint(judge_source(judge)), shares_model(judge, config.model.base))
    verdicts = Node(judge_answers, *who, answers, opponent)
    questions = (tasks, questions_fingerprint(tasks), config.evaluation.batch_tokens)
    return {
        "evaluation": evaluation,
        "answers": answers,
        "verdicts": None if judge.kind is JudgeKind.none else verdicts,
        "tasks": Node(solve, *questions, *setting, label=tasks.name) if tasks.path else None,
    }


def result(nodes: dict[str, Node]) -> str:
    """The names of the stages that measure a job's model: jobs of the same result are one measurement."""
    return " ".join(nodes[name].name for name in MEASURES if name in nodes)
