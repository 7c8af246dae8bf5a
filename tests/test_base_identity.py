"""Which weights a name stands for: whatever changes in a model's folder changes its fingerprint, and is never loaded
under a key that was made of something else.
"""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import NUMERICS, llama
from transformers import AutoModelForCausalLM

from rose.config.schema import Base
from rose.errors import RoseError
from rose.models.loading import fingerprint, load_model, load_tokenizer
from rose.training.base_model import prepare


def local(path) -> Base:
    return Base(path=str(path), revision=None, gguf=None, trust_remote_code=False, pretraining=None)


@pytest.fixture
def large(tmp_path):
    """A model folder whose weights and tokenizer are both above 1 MiB."""
    folder = tmp_path / "large"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(llama(hidden_size=256, intermediate_size=256)).save_pretrained(folder)
    words = {f"word {number}": number for number in range(60_000)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}}))
    assert all((folder / name).stat().st_size > 1 << 20 for name in ("model.safetensors", "tokenizer.json"))
    return folder


def test_weights_changed_in_place_change_the_fingerprint(large):
    before = fingerprint(local(large))
    weights = load_file(large / "model.safetensors")
    for name in (name for name in weights if "v_proj" in name):
        same_size = weights | {name: weights[name] + 1}
        save_file(same_size, large / "model.safetensors", metadata={"format": "pt"})
        assert fingerprint(local(large)) != before
    save_file(weights, large / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(local(large)) == before


def test_two_words_that_swap_ids_change_the_fingerprint(large):
    before, path = fingerprint(local(large)), large / "tokenizer.json"
    text = path.read_text()
    swapped = text.replace('"word 7": 7,', '"word 8": 7,').replace('"word 8": 8,', '"word 7": 8,')
    path.write_text(swapped)
    assert len(swapped) == len(text) and swapped != text and fingerprint(local(large)) != before


@pytest.mark.parametrize("offset", [0, 1, (1 << 20) + 5, (3 << 20) - 1])
def test_any_byte_of_any_file_changes_the_fingerprint(tmp_path, offset):
    path = tmp_path / "sub" / "weights.bin"
    path.parent.mkdir()
    path.write_bytes(bytes(3 << 20))
    before = fingerprint(local(tmp_path))
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"x")
    assert fingerprint(local(tmp_path)) != before
    path.rename(tmp_path / "sub" / "renamed.bin")
    changed = fingerprint(local(tmp_path))
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "index").write_bytes(b"no part of the model")
    assert changed == fingerprint(local(tmp_path)) != before


def test_a_folder_is_read_once_while_its_files_stay(large, monkeypatch):
    before = fingerprint(local(large))
    monkeypatch.setattr("builtins.open", None)
    assert fingerprint(local(large)) == before
    assert fingerprint(replace(local(large), path=None)) == ""


def prepared(out, base: Base, key: str | None = None):
    out.mkdir()
    prepare(out, base, fingerprint(base) if key is None else key)
    return out


def query_weight(artifact) -> float:
    return float(load_model(artifact, NUMERICS).model.layers[0].self_attn.v_proj.weight[0, 0])


def set_weight(folder, value: float) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.self_attn.v_proj.weight"][0, 0] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def own(base, tmp_path):
    """A model folder of one's own, whose first value weight is 1."""
    folder = tmp_path / "own"
    shutil.copytree(base, folder)
    set_weight(folder, 1)
    return folder


def test_other_weights_are_never_loaded_under_the_old_key(own, tmp_path):
    artifact = prepared(tmp_path / "base", local(own))
    assert query_weight(artifact) == 1
    set_weight(own, 2)
    with pytest.raises(RoseError, match=r"model\.base\.path=.*own: model\.safetensors changed .* put .* back, or run"):
        load_model(artifact, NUMERICS)
    with pytest.raises(RoseError, match="changed"):
        load_tokenizer(artifact)
    set_weight(own, 1)
    assert query_weight(artifact) == 1
    shutil.rmtree(own)
    with pytest.raises(RoseError, match="is no folder here any more"):
        load_model(artifact, NUMERICS)


def test_files_that_come_and_go_are_named_too(own, tmp_path):
    artifact = prepared(tmp_path / "base", local(own))
    (own / "chat_template.jinja").write_text("{{ messages }}")
    (own / "generation_config.json").unlink()
    with pytest.raises(RoseError, match=r"2 files, chat_template\.jinja first, changed"):
        load_tokenizer(artifact)


def test_a_model_that_changes_after_its_key_was_made_is_refused(own, tmp_path):
    with pytest.raises(RoseError, match="its files have changed .*since the job's stages were named"):
        prepared(tmp_path / "base", local(own), key="another")


def test_a_copied_project_means_its_own_model(own, tmp_path, monkeypatch):
    """The path stays as it was given: relative to where the project is."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    shutil.copytree(own, first / "model")
    monkeypatch.chdir(first)
    prepared(first / "base", local("model"))
    shutil.copytree(first, second)
    set_weight(first / "model", 3)
    monkeypatch.chdir(second)
    assert query_weight(second / "base") == 1
    set_weight(second / "model", 3)
    with pytest.raises(RoseError, match=r"model\.base\.path=model: model\.safetensors changed"):
        load_model(second / "base", NUMERICS)


def cached_commit(cache, own, commit: str, value: float) -> None:
    """What the hub's cache holds of owner/name once `main` stands at `commit`."""
    repository = cache / "models--owner--name"
    shutil.copytree(own, repository / "snapshots" / commit)
    set_weight(repository / "snapshots" / commit, value)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)


def test_a_branch_that_moves_is_loaded_at_the_commit_it_stood_at(own, tmp_path, monkeypatch):
    cache, hub = tmp_path / "hub", local("owner/name")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(cache))
    cached_commit(cache, own, "a" * 40, 4)
    artifact = prepared(tmp_path / "base", hub)
    cached_commit(cache, own, "b" * 40, 5)
    assert query_weight(artifact) == 4
    assert query_weight(prepared(tmp_path / "later", hub)) == 5
    (tmp_path / "older").mkdir()
    values = {"path": "owner/name", "revision": "a" * 40, "trust_remote_code": False}  # as it was once written
    (tmp_path / "older" / "reference.json").write_text(json.dumps(values))
    assert query_weight(tmp_path / "older") == 4
