"""The method, stage by stage. Read this file first.

Nothing is computed here: each node names a stage and what it is made from, and `rose.stages.build` computes what is
asked for and missing. Stages are shared by every job whose inputs are the same, so a sweep over methods and ratios
warms up and takes the pool's gradients once. `rose.keys` leaves out of a stage's key what cannot change its outcome.
"""

from rose import keys
from rose.config.choices import JudgeKind, Keep, Lesson, Opponent, Representation, Target
from rose.config.schema import Config, Model, Projection
from rose.data import chat, pool, preferences
from rose.diagnostics.nodes import checks
from rose.evaluation import answers, evaluate, questions, reward_model, tasks, verdicts
from rose.gradients import features, streaming
from rose.methods import embedding, hidden, losses, scores, selection
from rose.models import loading
from rose.stages.graph import Node
from rose.stages.kinds import MEASURES, ZERO_SHOT
from rose.training import base_model, finetune, pairs, warmup

Nodes = dict[str, Node]  # by what a job calls them: `rose.stages.kinds`


def stages(config: Config) -> Nodes:
    """The stages of one job, in order."""
    nodes = _data(config)
    nodes |= _gradients(config, nodes)
    nodes |= _forward_passes(config, nodes)
    nodes |= _choice(config, nodes)
    nodes |= _student(config, nodes)
    nodes |= _measures(config, nodes)
    return nodes | checks(config, nodes)


def _data(config: Config) -> Nodes:
    """The model that selects, what it selects from and what for; the pool in its tokens."""
    model, dataset, preference = config.model, config.dataset, config.preference.pairs
    nodes = {
        "base": _frozen(model),
        "pool": Node(
            pool.read_pool,
            dataset=keys.dataset(dataset),
            source=pool.fingerprint(dataset),
            label=keys.label(dataset),
        ),
        "preferences": Node(
            preferences.read_preferences,
            pairs=keys.pairs(preference),
            source=preferences.fingerprint(preference),
            label=keys.label(preference),
        ),
    }
    tokens = Node(chat.tokenize, max_length=model.max_length, base=nodes["base"], pool=nodes["pool"])
    return nodes | {"tokens": tokens}


def _frozen(model: Model) -> Node:
    """A base model as it comes."""
    told = keys.chat_template_kwargs(model)
    source = {"base": model.base, "fingerprint": loading.fingerprint(model.base)}
    return Node(base_model.prepare, **source, **told, label=model.name)


def _gradients(config: Config, nodes: Nodes) -> Nodes:
    """A short warm-up, then at each of its checkpoints the gradients of the target pairs and of the pool's rows."""
    model, settings, projection = config.model, config.features, _projection(config)
    warm = Node(
        warmup.warm_up,
        warmup=config.warmup,
        lora=model.lora,
        numerics=model.numerics,
        base=nodes["base"],
        tokens=nodes["tokens"],
    )
    targets = Node(
        features.pair_features,
        objective=keys.objective(keys.method(config.method, config.warmup.epochs), config.preference),
        projection=projection,
        numerics=model.numerics,
        max_length=model.max_length,
        base=nodes["base"],
        warmup=warm,
        preferences=nodes["preferences"],
    )
    rows = {"numerics": model.numerics, "base": nodes["base"], "warmup": warm, "tokens": nodes["tokens"]}
    match settings.keep:
        case Keep.store:
            pooled = Node(features.pool_features, features=settings, projection=projection, **rows)
        case Keep.stream:
            adam, batch = settings.adam, settings.batch_tokens
            pooled = Node(streaming.pool_cosines, adam=adam, batch_tokens=batch, targets=targets, **rows)
    return {"warmup": warm, "features": pooled, "targets": targets}


def _forward_passes(config: Config, nodes: Nodes) -> Nodes:
    """What a method without per-example gradients looks at: hidden states, embeddings, losses."""
    if config.method.lesson is not Lesson.selection:
        return {}
    model, numerics = config.model, config.model.numerics
    rows = {"numerics": numerics, "base": nodes["base"], "tokens": nodes["tokens"]}
    match config.method.representation:
        case Representation.hidden:
            targets = {"max_length": model.max_length, "preferences": nodes["preferences"]}
            return {
                "hidden": Node(hidden.pool_states, **rows),
                "target_hidden": Node(hidden.pair_states, numerics=numerics, base=nodes["base"], **targets),
            }
        case Representation.embeddings:
            source = embedding.source(config.method)
            encoder = {"encoder": source, "fingerprint": loading.fingerprint(source)}
            pooled = {"tokens": nodes["tokens"], "pool": nodes["pool"]}
            return {
                "embeddings": Node(embedding.pool_embeddings, **encoder, **pooled),
                "target_embeddings": Node(embedding.pair_embeddings, **encoder, preferences=nodes["preferences"]),
            }
        case Representation.perplexity:
            return {"losses": Node(losses.row_losses, adapter=None, **rows)}
        case Representation.ifd:
            return {
                "losses": Node(losses.row_losses, adapter=None, **rows),
                "answer_losses": Node(losses.answer_losses, **rows),
            }
        case Representation.loss_drop:
            lesson = Lesson.pairs_sft if config.method.target is Target.chosen else Lesson.pairs_dpo
            tuned = _tuned_on_pairs(config, model, lesson, nodes["base"], nodes["preferences"])
            return {
                "losses": Node(losses.row_losses, adapter=None, **rows),
                lesson.value: tuned,
                "tuned_losses": Node(losses.row_losses, adapter=tuned, **rows),
            }
    return {}


def _choice(config: Config, nodes: Nodes) -> Nodes:
    """Representation × rule → a score a row → the best rows; nothing where no rows are trained on."""
    if config.method.lesson is not Lesson.selection:
        return {}
    method = keys.method(config.method, config.warmup.epochs)
    scored = Node(
        scores.score,
        method=method,
        tokens=nodes["tokens"],
        representation=_representation(config, nodes),
        label=method.name,
    )
    selected = Node(
        selection.select,
        selection=keys.selection(config.method, config.selection, config.warmup, config.finetune),
        in_world=config.dataset.world is not None,
        scores=scored,
        pool=nodes["pool"],
    )
    return {"scores": scored, "selection": selected}


def _student(config: Config, nodes: Nodes) -> Nodes:
    """The model that is fine-tuned, on what the method says: as a rule the one that selected."""
    student = config.student or config.model
    model = _frozen(student)
    tokens = Node(chat.tokenize, max_length=student.max_length, base=model, pool=nodes["pool"])
    stages = {"student_base": model, "student_tokens": tokens}
    match config.method.lesson:
        case Lesson.selection:
            stages["finetune"] = Node(
                finetune.fine_tune,
                training=config.finetune,
                lora=student.lora,
                numerics=student.numerics,
                base=model,
                tokens=tokens,
                selection=nodes["selection"],
            )
        case Lesson.pairs_sft | Lesson.pairs_dpo:
            stages["finetune"] = _tuned_on_pairs(config, student, config.method.lesson, model, nodes["preferences"])
    return stages


def _measures(config: Config, nodes: Nodes) -> Nodes:
    """What is asked of the fine-tuned model, and of the base model, whom it meets."""
    before = _asked(config, nodes, adapter=None, before={})
    zero_shot = {ZERO_SHOT[name]: node for name, node in before.items()}
    after = _asked(config, nodes, nodes["finetune"], before) if "finetune" in nodes else before
    return after | zero_shot


def _asked(config: Config, nodes: Nodes, adapter: Node | None, before: Nodes) -> Nodes:
    """What is asked of one model; `before`: what was asked of the base model, if this is another."""
    model, judge = config.student or config.model, config.judge
    asked = {
        "numerics": model.numerics,
        "max_length": model.max_length,
        "base": nodes["student_base"],
        "adapter": adapter,
    }
    stages = {
        "evaluation": Node(
            evaluate.evaluate,
            batch_tokens=config.evaluation.batch_tokens,
            zero_shot=before.get("evaluation"),
            preferences=nodes["preferences"],
            **asked,
        ),
        "answers": Node(
            answers.answer,
            evaluation=keys.evaluation(config.evaluation),
            preferences=nodes["preferences"],
            **asked,
        ),
    }
    if judge.kind is not JudgeKind.none:
        stages["verdicts"] = Node(
            verdicts.judge_answers,
            judge=keys.judge(judge),
            fingerprint=loading.fingerprint(reward_model.source(judge)),
            shares_model=verdicts.shares_model(judge, config.model.base),
            answers=stages["answers"],
            opponent=None if judge.opponent is Opponent.reference else (before or stages)["answers"],
        )
    if config.tasks.path:
        stages["tasks"] = Node(
            tasks.solve,
            tasks=keys.tasks(config.tasks),
            source=questions.fingerprint(config.tasks),
            batch_tokens=config.evaluation.batch_tokens,
            label=config.tasks.name,
            **asked,
        )
    return stages


def _representation(config: Config, nodes: Nodes) -> tuple:
    """What the method's representation is made of: the arguments of its function in `rose.methods`."""
    match config.method.representation:
        case Representation.gradients:
            return config.preference.normalize, nodes["features"], nodes["targets"]
        case Representation.hidden:
            return nodes["hidden"], nodes["target_hidden"]
        case Representation.embeddings:
            return nodes["embeddings"], nodes["target_embeddings"]
        case Representation.words | Representation.ngrams:
            return nodes["pool"], nodes["preferences"]
        case Representation.perplexity:
            return (nodes["losses"],)
        case Representation.ifd:
            return nodes["losses"], nodes["answer_losses"]
        case Representation.loss_drop:
            return nodes["losses"], nodes["tuned_losses"]
        case _:  # lengths, none
            return ()


def _tuned_on_pairs(config: Config, model: Model, lesson: Lesson, frozen: Node, preferences: Node) -> Node:
    """An adapter trained on the target pairs: on their chosen answers, or by DPO."""
    settings = {
        "training": config.finetune,
        "lora": model.lora,
        "numerics": model.numerics,
        "max_length": model.max_length,
        "base": frozen,
        "preferences": preferences,
    }
    if lesson is Lesson.pairs_sft:
        return Node(pairs.tune_on_chosen, **settings)
    return Node(pairs.tune_by_dpo, beta=config.preference.beta, **settings)


def _projection(config: Config) -> Projection:
    """Refuses a width that the method's gradients do not have, where that is known already."""
    gradients = config.method.representation is Representation.gradients
    size = base_model.adapter_size(config.model.base, config.model.lora) if gradients else None
    return keys.projection(config.projection, config.features.keep, size)


def result(nodes: Nodes) -> str:
    """The names of the stages that measure a job's model: jobs of the same result are one measurement."""
    return " ".join(nodes[name].name for name in MEASURES if name in nodes)
