"""Nothing that is read runs code, no key is ever written, and no name of the user's leaves its folder."""

import ast
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from rose.__main__ import ROOT
from rose.config.choices import Dtype
from rose.config.compose import typed
from rose.config.schema import Base, Numerics
from rose.data import files, world
from rose.errors import RoseError
from rose.models import loading
from rose.run import job
from rose.training.base_model import prepare

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "OPENAI_API_KEY": "sk-fake-openai-0123456789",
    "HF_TOKEN": "hf_fakefakefakefakefake",
}
SHAPE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


class Payload:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def base(tmp_path) -> Path:
    folder = tmp_path / "model"
    tokenizer = world.tokenizer()
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SHAPE)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def settings(folder: Path, trust: bool) -> Base:
    return Base(str(folder), revision=None, gguf=None, trust_remote_code=trust, pretraining=None)


def code_in(folder: Path, mark: Path) -> None:
    """Gives the model a configuration class of its own, whose module makes the folder `mark` when it is imported."""
    (folder / "configuration_own.py").write_text(
        f"import os\nos.mkdir({str(mark)!r})\nfrom transformers import LlamaConfig\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
    )
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "configuration_own.OwnConfig"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": auto}))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer.pop("tokenizer_class", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))


def test_a_models_own_code_runs_only_where_a_person_trusts_that_model(base, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    code_in(base, tmp_path / "ran")
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(sys, "stdin", None)  # nobody is there to be asked
    with pytest.raises(RoseError, match="trust_remote_code=false: .* brings code of its own"):
        prepare(tmp_path / "out", settings(base, trust=False), "")
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_loaded_as_weights_only(base, tmp_path):
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    (tmp_path / "out").mkdir()
    prepare(tmp_path / "out", settings(base, trust=False), "")
    with pytest.raises(Exception):  # noqa: B017 — whichever way the library puts it
        loading.load_model(tmp_path / "out", Numerics(Dtype.float32, "sdpa", False))
    assert not (tmp_path / "ran").exists()


def test_trust_is_passed_from_the_models_own_setting_alone():
    """No other call in the program turns it on, and nothing unpickles."""
    found = {}
    for path in (ROOT / "rose").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                found.setdefault(ast.unparse(node.value), []).append(path.name)
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                if path.parent.name == "launchers":  # carries jobs to workers; on Slurm through a private folder
                    names.remove("cloudpickle") if "cloudpickle" in names else None
                assert not {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"} & set(names), path
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "numpy.load", "torch.save"):
                raise AssertionError(f"{path}:{node.lineno}")
    assert set(found) == {"False", "base.trust_remote_code"}, found


def overrides(outputs: Path, base: Path, folder: Path, *more: str) -> list[str]:
    return [
        "model=local",
        f"model.base.path={base}",
        "model.numerics.dtype=float32",
        "model.max_length=48",
        "model.lora.rank=2",
        "model.batch_size=2",
        "dataset=local",
        f"dataset.path={folder}/pool.jsonl",
        "preference=local",
        f"preference.path={folder}/pairs.jsonl",
        f"preference.test_path={folder}/pairs.jsonl",
        "warmup.epochs=1",
        "finetune.epochs=1",
        "projection=sketch",
        "projection.dim=16",
        "selection.ratio=0.5",
        f"outputs={outputs}",
        *more,
    ]


NAMES = ["../../escaped", "/tmp/escaped", "a/b", "..", "\0", "nul\0byte", "x" * 300, "🌹", "${oc.env:HOME}", "%s{0}"]  # noqa: S108


@pytest.fixture
def data(tmp_path) -> Path:
    """A pool and pairs whose ids, sources and subtasks are made to break out of their folders."""
    folder = tmp_path / "data"
    folder.mkdir()
    pool = [
        {"id": name, "dataset": name, "prompt": "tomato", "completion": f"lantern {i}"} for i, name in enumerate(NAMES)
    ]
    pairs = [
        {"id": name, "subtask": name, "prompt": f"about {i}", "chosen": "rope", "rejected": "flour"}
        for i, name in enumerate(NAMES)
    ]
    for name, rows in (("pool.jsonl", pool), ("pairs.jsonl", pairs)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_names_in_peoples_data_stay_data_and_keys_in_the_environment_stay_there(
    composed, base, data, tmp_path, monkeypatch, caplog
):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    outputs = tmp_path / "outputs"
    before = everything(tmp_path)
    config = typed(composed(*overrides(outputs, base, data, "tracking=wandb", "tracking.mode=offline")))
    job.run(config, outputs / "runs" / "job", "group")
    assert json.loads((outputs / "runs/job/status.json").read_text()) == {"state": "done", "error": None}, caplog.text
    assert {name for name in everything(tmp_path) - before if not name.startswith("outputs")} == set()
    assert not [name for name in everything(outputs) if "escaped" in name]
    written = [path for path in outputs.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written)
    for path in written:
        content = path.read_bytes()
        assert not [name for name, value in SECRETS.items() if value.encode() in content], path
        assert not content.startswith((b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK")), f"{path} is a pickle"
    assert not [name for name, value in SECRETS.items() if value in caplog.text]


@pytest.mark.parametrize("pattern", ["../secret.jsonl", "*secret*", "/**/secret.jsonl", "sub/../../secret.jsonl"])
def test_a_pattern_finds_nothing_outside_its_folder(tmp_path, pattern):
    (tmp_path / "secret.jsonl").write_text("{}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text("{}")
    with pytest.raises(RoseError, match="no file matches"):
        files.fingerprint(files.Location("dataset.path", str(tmp_path / "data"), [pattern], None))


def linked(tmp_path: Path, target: str) -> files.Location:
    """A folder with one file, `rows.jsonl`, which is a link."""
    (tmp_path / "snapshots" / "data").mkdir(parents=True)
    (tmp_path / "snapshots" / "data" / "rows.jsonl").symlink_to(target)
    return files.Location("dataset.path", str(tmp_path / "snapshots" / "data"), [], None)


def test_a_link_out_of_a_data_folder_is_refused(tmp_path):
    (tmp_path / "secret.jsonl").write_text("{}")
    source = linked(tmp_path, "../../secret.jsonl")
    for read in (files.fingerprint, lambda source: list(files.read_rows(source))):
        with pytest.raises(RoseError, match="^dataset.path=.*: rows.jsonl is a link to .*secret.jsonl, outside"):
            read(source)


def test_links_of_a_persons_own_or_within_the_folder_or_the_hubs_cache_are_followed(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0123").write_text('{"x": 1}')
    source = linked(tmp_path, "../../blobs/0123")
    folder = Path(source.path)
    (folder / "again.jsonl").symlink_to("rows.jsonl")
    assert [row.values for row in files.read_rows(source)] == [{"x": 1}] * 2
    (tmp_path / "own.jsonl").symlink_to(tmp_path / "blobs" / "0123")
    (tmp_path / "own").symlink_to(folder)
    for path in ("own.jsonl", "own"):
        assert list(files.read_rows(source._replace(path=str(tmp_path / path))))


@pytest.mark.parametrize("key", ["tracking.project", "model.name", "preference.name"])
def test_a_key_in_the_configuration_is_refused_before_it_is_saved(composed, monkeypatch, key):
    monkeypatch.setenv("WANDB_API_KEY", SECRETS["WANDB_API_KEY"])
    for value in ("${oc.env:WANDB_API_KEY}", f"x{SECRETS['WANDB_API_KEY']}"):
        with pytest.raises(RoseError, match=f"^{key}: .*WANDB_API_KEY") as error:
            typed(composed(f"{key}='{value}'"))
        assert SECRETS["WANDB_API_KEY"] not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["+hydra.job.env_set.X={}"], "hydra.overrides.hydra"),
        (["+hydra.launcher.setup=['export X={}']"], "hydra.launcher.setup"),
        (["hydra.run.dir=${{oc.env:WANDB_API_KEY}}"], "hydra.run.dir"),
        (["+judge.request={{{}: 1}}"], "judge.request"),
        (["model.name={}", "model.name=tiny"], "hydra.overrides.task"),
    ],
)
def test_a_key_in_what_hydra_saves_is_refused_too(composed, monkeypatch, overrides, key):
    monkeypatch.setenv("WANDB_API_KEY", SECRETS["WANDB_API_KEY"])
    config = composed(*(text.format(SECRETS["WANDB_API_KEY"]) for text in overrides))
    with pytest.raises(RoseError, match=f"^{key}: .*WANDB_API_KEY") as error:
        typed(config)
    assert SECRETS["WANDB_API_KEY"] not in str(error.value)


def test_a_key_in_an_experiments_own_part_for_hydra_is_refused(composed, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", SECRETS["WANDB_API_KEY"])
    config = composed()
    OmegaConf.update(config, "hydra.job.env_set.X", SECRETS["WANDB_API_KEY"], force_add=True)
    with pytest.raises(RoseError, match="^hydra.job.env_set.X: .*WANDB_API_KEY"):
        typed(config)


def test_a_sweep_with_a_key_saves_nothing(tmp_path):
    key = SECRETS["WANDB_API_KEY"]
    command = ["-m", "rose", "-m", f"outputs={tmp_path}", f"+hydra.job.env_set.X={key}", "seed=0,1"]
    environment = os.environ | {"WANDB_API_KEY": key}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and re.match("rose: hydra[^ ]*: .*WANDB_API_KEY", done.stderr)
    assert everything(tmp_path) == set() and key not in done.stderr


def test_the_judges_key_is_a_secret_whatever_its_variable_is_called(composed, monkeypatch):
    monkeypatch.setenv("OF_THE_LAB", SECRETS["OPENAI_API_KEY"])
    overrides = [f"tracking.project={SECRETS['OPENAI_API_KEY']}"]
    typed(composed(*overrides))
    with pytest.raises(RoseError, match="^tracking.project: .*OF_THE_LAB"):
        typed(composed(*overrides, "judge.key_variable=OF_THE_LAB"))


def test_what_is_no_secret_may_be_in_the_configuration(composed, monkeypatch):
    monkeypatch.setenv("SHORT_KEY", "rose")  # too short to be one, and a word of the configuration
    monkeypatch.setenv("EDITOR", "a-long-value-of-no-secret")
    typed(composed("tracking.project=rose", "model.name=a-long-value-of-no-secret"))


def test_models_are_saved_as_safetensors(base):
    assert AutoModelForCausalLM.from_pretrained(base) is not None
    assert {path.suffix for path in base.iterdir()} <= {".json", ".safetensors", ".jinja"}
