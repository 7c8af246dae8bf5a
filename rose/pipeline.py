"""The method, stage by stage. Read this file first.

Nothing is computed here: each line names a stage and what it is made from, and `artifacts.build` computes what is
asked for and missing. Stages are shared by every job whose inputs are the same, so a sweep over methods and ratios
warms up and takes the pool's gradients once.
"""

from rose.artifacts import Node
from rose.choices import JudgeKind, Keep, Lesson, Opponent, Representation, Target
from rose.config import Config
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
from rose.models import fingerprint as model_fingerprint
from rose.training.base import adapter_size, prepare
from rose.training.finetune import fine_tune
from rose.training.pairs import tune_by_dpo, tune_on_chosen
from rose.training.warmup import warm_up

MEASURES = ("evaluation", "verdicts", "tasks")


def stages(config: Config) -> dict[str, Node]:
    """The stages of one job, in order. `effective_…` leaves out of a stage's key what cannot change its outcome."""
    model, method, preference = config.model, config.method, config.preference
    student = config.student or model
    numerics, max_length = model.numerics, model.max_length
    objective = effective_objective(method, preference)
    size = adapter_size(model.base, model.lora) if method.representation is Representation.gradients else None
    projection = effective_projection(config.projection, config.features.keep, size)
    encoder = (encoder_source(method), model_fingerprint(encoder_source(method)))
    amount = effective_selection(method, config.selection, config.warmup, config.finetune)

    base = Node(prepare, model.base, model_fingerprint(model.base), label=model.name)
    pool = Node(read_pool, config.dataset, pool_fingerprint(config.dataset), label=config.dataset.name)
    pairs = Node(read_preferences, preference.pairs, pairs_fingerprint(preference.pairs), label=preference.name)
    tokens = Node(tokenize, max_length, base, pool)

    student_base = Node(prepare, student.base, model_fingerprint(student.base), label=student.name)
    student_tokens = Node(tokenize, student.max_length, student_base, pool)

    warmup = Node(warm_up, config.warmup, model.lora, numerics, base, tokens)
    targets = Node(pair_features, objective, projection, numerics, max_length, base, warmup, pairs)
    adam, batch_tokens = config.features.adam, config.features.batch_tokens
    features = {
        Keep.store: Node(pool_features, config.features, projection, numerics, base, warmup, tokens),
        Keep.stream: Node(pool_cosines, adam, batch_tokens, numerics, base, warmup, tokens, targets),
    }[config.features.keep]

    hidden = Node(pool_states, numerics, base, tokens)
    target_hidden = Node(pair_states, numerics, max_length, base, pairs)
    embeddings = Node(pool_embeddings, *encoder, tokens, pool)
    target_embeddings = Node(pair_embeddings, *encoder, pairs)
    tuning = (model.lora, numerics, max_length, base, pairs)
    pairs_sft = Node(tune_on_chosen, config.finetune, *tuning)
    pairs_dpo = Node(tune_by_dpo, config.finetune, preference.beta, *tuning)
    tuned = {Target.chosen: pairs_sft, Target.preference: pairs_dpo, None: None}[method.target]
    losses = Node(row_losses, numerics, base, None, tokens)
    tuned_losses = Node(row_losses, numerics, base, tuned, tokens)
    alone = Node(answer_losses, numerics, base, tokens)

    representation = {
        Representation.gradients: (preference.normalize, features, targets),
        Representation.hidden: (hidden, target_hidden),
        Representation.embeddings: (embeddings, target_embeddings),
        Representation.words: (pool, pairs),
        Representation.ngrams: (pool, pairs),
        Representation.lengths: (),
        Representation.perplexity: (losses,),
        Representation.ifd: (losses, alone),
        Representation.loss_drop: (losses, tuned_losses),
        Representation.none: (),
    }[method.representation]
    scored = effective_method(method, config.warmup.epochs)
    scores = Node(score, scored, tokens, representation, label=method.name)
    selection = Node(select, amount, config.dataset.world is not None, scores, pool)

    trained = (student.lora, student.numerics)
    taught = (*trained, student.max_length, student_base, pairs)
    adapter = {
        Lesson.selection: Node(fine_tune, config.finetune, *trained, student_base, student_tokens, selection),
        Lesson.pairs_sft: Node(tune_on_chosen, config.finetune, *taught),
        Lesson.pairs_dpo: Node(tune_by_dpo, config.finetune, preference.beta, *taught),
        Lesson.none: None,
    }[method.lesson]
    zero_shot = _measures(config, student_base, pairs, None, {})
    own = zero_shot if adapter is None else _measures(config, student_base, pairs, adapter, zero_shot)

    named = {
        "base": base,
        "pool": pool,
        "preferences": pairs,
        "tokens": tokens,
        "warmup": warmup,
        "features": features,
        "targets": targets,
        "hidden": hidden,
        "target_hidden": target_hidden,
        "embeddings": embeddings,
        "target_embeddings": target_embeddings,
        "losses": losses,
        "answer_losses": alone,
        "tuned_losses": tuned_losses,
        "scores": scores,
        "selection": selection,
        "student_base": student_base,
        "student_tokens": student_tokens,
        "finetune": adapter,
        "pairs_sft": pairs_sft,
        "pairs_dpo": pairs_dpo,
        **own,
        "zero_shot": zero_shot["evaluation"],
        **{f"zero_shot_{name}": node for name, node in zero_shot.items() if name != "evaluation"},
    }
    made = {name: node for name, node in named.items() if node is not None}
    return made | checks(config, scored, objective, projection, representation, made)


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
