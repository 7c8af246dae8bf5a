"""Which weights a name stands for: whatever changes in a model's folder changes its fingerprint, and is never loaded
under a key that was made of something else.
"""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import llama
from transformers import AutoModelForCausalLM

from rose.config.schema import Base
from rose.models.loading import fingerprint


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
