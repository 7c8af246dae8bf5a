"""The gradient stages on a tiny model, with what the stages before them leave."""

import json

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from tiny_models import NUMERICS, adapted, llama, random_rows

from rose.config.choices import AdamMap, Keep, ProjectionKind, StoreDtype
from rose.config.schema import Features, Projection
from rose.data.world_language import tokenizer
from rose.gradients.feature_store import FeatureStore
from rose.gradients.features import pair_features, pool_features
from rose.models import loading

NONE = Projection(kind=ProjectionKind.none, dim=0, seed=0)
LENGTHS = [7, 19, 12, 30, 9, 9, 25]
OPTIMIZER = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "max_grad_norm": 1.0}


def said(text, role="assistant"):
    return [{"role": role, "content": text}]


def stages_before(root):
    """base/, warmup/ (two checkpoints), tokens/ and preferences/ as the stages before ours leave them."""
    words = tokenizer()
    config = llama(vocab_size=len(words))
    model = adapted(config, dtype=torch.float32)
    for epoch in (1, 2):
        torch.manual_seed(epoch)
        moments = {}
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.data += 0.1 * torch.randn_like(weight)
                moments[f"{name}.exp_avg"] = 1e-2 * torch.randn_like(weight)
                moments[f"{name}.exp_avg_sq"] = 1e-4 * torch.rand_like(weight)
        directory = root / "warmup" / f"checkpoint-{epoch}"
        model.save_pretrained(str(directory))
        save_file(moments, directory / "moments.safetensors")
    entries = [
        {"dir": f"checkpoint-{epoch}", "epoch": epoch, "step": 3 * epoch, "learning_rate": rate}
        for epoch, rate in ((1, 3e-4), (2, 1e-4))
    ]
    (root / "warmup" / "manifest.json").write_text(json.dumps({"optimizer": OPTIMIZER, "checkpoints": entries}))
    model.unload().save_pretrained(str(root / "base"))
    words.save_pretrained(str(root / "base"))
    rows = [{"id": f"row-{i}", "dataset": "d", **row} for i, row in enumerate(random_rows(LENGTHS))]
    Dataset.from_list(rows).save_to_disk(str(root / "tokens" / "rows"))
    pairs = [
        {
            "id": f"pair-{i}",
            "subtask": "ab"[i % 2],
            "prompt": said("the tomato and the lantern", "user"),
            "chosen": said(" ".join(["tomato"] * (i + 1))),
            "rejected": said(" ".join(["lantern"] * (4 - i) + ["and"])),
        }
        for i in range(3)
    ]
    (root / "preferences").mkdir()
    (root / "preferences" / "target.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return root, rows, pairs


def at_checkpoint(root, epoch):
    """The model of a checkpoint in float64, and its flat moments."""
    directory = root / "warmup" / f"checkpoint-{epoch}"
    model = loading.load_adapter(loading.load_model(root / "base", NUMERICS, "cpu"), directory).double()
    stored = load_file(directory / "moments.safetensors")
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    flat = [torch.cat([stored[f"{name}.{m}"].flatten() for name in names]).double() for m in ("exp_avg", "exp_avg_sq")]
    return model, *flat


def settings(**changes):
    return Features(
        **(
            {"adam": AdamMap.exact, "keep": Keep.store, "dtype": StoreDtype.float32, "batch_tokens": 64, "shards": 1}
            | changes
        )
    )


def pool(run, out, projection=NONE, shard=None, **changes):
    """The features at both checkpoints, `out`/1 and `out`/2."""
    root, _, _ = run
    before = (root / "base", root / "warmup", root / "tokens")
    for checkpoint, place in enumerate(places(out), 1):
        place.mkdir(parents=True, exist_ok=True)
        pool_features(place, checkpoint, settings(**changes), projection, NUMERICS, *before, shard=shard)
    return None if shard else FeatureStore.open(places(out))


def targets(run, out, objective, max_length=64, projection=NONE, **more):
    root, _, _ = run
    before = (root / "base", root / "warmup", root / "preferences")
    for checkpoint, place in enumerate(places(out), 1):
        place.mkdir(parents=True)
        pair_features(place, checkpoint, objective, projection, NUMERICS, max_length, *before, **more)
    return FeatureStore.open(places(out))


def places(out):
    """Where what is taken at each checkpoint is."""
    return out / "1", out / "2"
