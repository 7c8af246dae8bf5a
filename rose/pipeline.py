"""The method, stage by stage. Read this file first.

Nothing is computed here: each line names a stage and what it is made from, and `artifacts.build` computes what is
asked for and missing. Stages are shared by every job whose inputs are the same, so a sweep over methods and ratios
warms up and takes the pool's gradients once.
"""

from rose.artifacts import Node
from rose.choices import Lesson, Representation, Target
from rose.config import Config
from rose.data.chat import tokenize
from rose.data.pool import fingerprint as pool_fingerprint
from rose.data.pool import read_pool
from rose.data.preferences import fingerprint as pairs_fingerprint
from rose.data.preferences import read_preferences
from rose.diagnostics.nodes import checks
from rose.evaluation.evaluate import evaluate
from rose.gradients.features import pair_features, pool_features
from rose.gradients.objectives import effective as effective_objective
from rose.gradients.projection import effective as effective_projection
from rose.methods.embedding import pair_embeddings, pool_embeddings
from rose.methods.embedding import source as encoder_source
from rose.methods.hidden import pair_states, pool_states
from rose.methods.losses import answer_losses, row_losses
from rose.methods.scores import effective as effective_method
from rose.methods.scores import score
from rose.methods.selection import effective as effective_selection
from rose.methods.selection import select
from rose.models import fingerprint as model_fingerprint
from rose.training.base import prepare
from rose.training.finetune import fine_tune
from rose.training.pairs import tune_by_dpo, tune_on_chosen
from rose.training.warmup import warm_up


def stages(config: Config) -> dict[str, Node]:
    """The stages of one job, in order. `effective_…` leaves out of a stage's key what cannot change its outcome."""
    model, method, preference = config.model, config.method, config.preference
    numerics, max_length = model.numerics, model.max_length
    objective = effective_objective(method, preference)
    projection = effective_projection(config.projection)
    encoder = (encoder_source(method), model_fingerprint(encoder_source(method)))
    amount = effective_selection(method, config.selection, config.warmup, config.finetune)

    base = Node(prepare, model.base, model_fingerprint(model.base), label=model.name)
    pool = Node(read_pool, config.dataset, pool_fingerprint(config.dataset), label=config.dataset.name)
    pairs = Node(read_preferences, preference.pairs, pairs_fingerprint(preference.pairs), label=preference.name)
    tokens = Node(tokenize, max_length, base, pool)

    warmup = Node(warm_up, config.warmup, model.lora, numerics, base, tokens)
    features = Node(pool_features, config.features, projection, numerics, base, warmup, tokens)
    targets = Node(pair_features, objective, projection, numerics, max_length, base, warmup, pairs)

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
    scores = Node(score, effective_method(method), tokens, representation, label=method.name)
    selection = Node(select, amount, config.dataset.world is not None, scores, pool)

    adapter = {
        Lesson.selection: Node(fine_tune, config.finetune, model.lora, numerics, base, tokens, selection),
        Lesson.pairs_sft: pairs_sft,
        Lesson.pairs_dpo: pairs_dpo,
        Lesson.none: None,
    }[method.lesson]
    measure = (config.evaluation, numerics, max_length, preference.pairs.world is not None, base)
    evaluation = Node(evaluate, *measure, adapter, pairs)
    zero_shot = Node(evaluate, *measure, None, pairs)

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
        "finetune": adapter,
        "pairs_sft": pairs_sft,
        "pairs_dpo": pairs_dpo,
        "evaluation": evaluation,
        "zero_shot": zero_shot,
    }
    made = {name: node for name, node in named.items() if node is not None}
    return made | checks(config, effective_method(method), objective, projection, representation, made)
