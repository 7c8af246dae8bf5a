"""The method, stage by stage. Read this file first.

Nothing is computed here: each line names a stage and what it is made from, and `artifacts.build` computes what is
asked for and missing. Stages are shared by every job whose inputs are the same, so a sweep over methods and ratios
warms up and takes the pool's gradients once.
"""

from rose import models
from rose.artifacts import Node
from rose.config import Config, Representation
from rose.data import pool as pool_data
from rose.data import preferences as preference_data
from rose.data.chat import tokenize
from rose.data.pool import read_pool
from rose.data.preferences import read_preferences
from rose.evaluation.evaluate import evaluate
from rose.gradients.features import pair_features, pool_features
from rose.gradients.objectives import effective
from rose.methods import selection as selecting
from rose.methods.scores import score
from rose.methods.selection import select
from rose.training.base import prepare
from rose.training.finetune import fine_tune
from rose.training.warmup import warm_up


def stages(config: Config) -> dict[str, Node]:
    """The stages of one job, in order."""
    model, method, preference = config.model, config.method, config.preference

    base = Node(prepare, model.base, models.fingerprint(model.base), label=model.name)
    pool = Node(read_pool, config.dataset, pool_data.fingerprint(config.dataset), label=config.dataset.name)
    pairs = Node(
        read_preferences, preference.pairs, preference_data.fingerprint(preference.pairs), label=preference.name
    )
    tokens = Node(tokenize, model.max_length, base, pool)

    warmup = Node(warm_up, config.warmup, model.lora, model.numerics, base, tokens)
    features = Node(pool_features, config.features, config.projection, model.numerics, base, warmup, tokens)
    targets = Node(
        pair_features,
        effective(method, preference),
        config.projection,
        model.numerics,
        model.max_length,
        base,
        warmup,
        pairs,
    )

    representation = {
        Representation.gradients: (preference.normalize, features, targets),
        Representation.none: (),
    }[method.representation]
    scores = Node(score, method, tokens, representation, label=method.name)
    selection = Node(select, selecting.effective(method, config.selection), scores, pool)

    adapter = Node(fine_tune, config.finetune, model.lora, model.numerics, base, tokens, selection)
    world = preference.pairs.world is not None
    measure = (config.evaluation, model.numerics, model.max_length, world, base)
    evaluation = Node(evaluate, *measure, adapter, pairs)
    zero_shot = Node(evaluate, *measure, None, pairs)

    return {
        "base": base,
        "pool": pool,
        "preferences": pairs,
        "tokens": tokens,
        "warmup": warmup,
        "features": features,
        "targets": targets,
        "scores": scores,
        "selection": selection,
        "finetune": adapter,
        "evaluation": evaluation,
        "zero_shot": zero_shot,
    }
