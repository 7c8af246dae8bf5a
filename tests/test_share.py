"""rose share: what a job's folders for the hub hold, what is refused, and that nothing is pushed unasked."""

import json
import re
import shutil
from pathlib import Path

import pandas
import pytest
from huggingface_hub import DatasetCard, ModelCard
from small_job import overrides, rose

from rose.__main__ import ROOT
from rose.errors import RoseError
from rose.report.results import read_jobs
from rose.run import cards
from rose.run import share as sharing
from rose.run.record import dataset_info
from rose.run.share import share

REPO = "me/first"
TOLD = ["cc-by-4.0"]


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    place = ["tracking=none", "runtime.threads=1", "judge.base_url=http://10.0.0.1/v1"]
    done = rose("method=bm25", *overrides(inputs, outputs), *place)
    assert done.returncode == 0, done.stderr
    (folder,) = (outputs / "runs").iterdir()
    return folder


@pytest.fixture
def job(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "job"))


def relicense(job: Path, **licences: object) -> None:
    """Gives the selected rows, in order, sources and what they say of their licences."""
    rows = [json.loads(line) for line in (job / "selected.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        source, licence = list(licences.items())[number % len(licences)]
        row |= {"dataset": source} | ({"license": licence} if licence is not None else {})
    (job / "selected.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_what_is_shared_is_written_to_a_folder_first_and_nothing_pushed(job, monkeypatch, capsys):
    monkeypatch.setattr(sharing, "HfApi", None)  # whoever asks the hub fails
    share(job, REPO, TOLD, dry_run=True)
    assert f"dataset: {job}/hub/dataset\nmodel: {job}/hub/model\n" in capsys.readouterr().out
    there = {path.relative_to(job / "hub").as_posix() for path in (job / "hub").rglob("*") if path.is_file()}
    own = ("README.md", "selected.jsonl", "dataset_info.json", "diagnostics.json")
    of_model = ("README.md", "adapter_config.json", "adapter_model.safetensors", "metrics.json")
    assert there == {*(f"dataset/{name}" for name in own), *(f"model/{name}" for name in of_model)}
    for name in ("dataset/selected.jsonl", "model/adapter_model.safetensors"):
        original = job / ("selected.jsonl" if "dataset" in name else f"adapter/{Path(name).name}")
        assert (job / "hub" / name).read_bytes() == original.read_bytes()
    assert json.loads((job / "hub/dataset/dataset_info.json").read_text()) == json.loads(
        (job / "dataset_info.json").read_text()
    )
    share(job, REPO, TOLD, dry_run=True)  # once more is the same


def test_the_datasets_card_tells_the_selections_story(job):
    provenance = json.loads((job / "provenance.json").read_text())
    provenance |= {"versions": {"rose-select": "0.9"}, "commit": "0123abcd"}  # of when the job ran, not of now
    (job / "provenance.json").write_text(json.dumps(provenance))
    share(job, REPO, TOLD, dry_run=True)
    card = DatasetCard.load(job / "hub/dataset/README.md")
    assert card.data.license == ["cc-by-4.0"] and card.data.size_categories == "n<1K"
    assert card.data.configs[0]["data_files"] == [{"split": "train", "path": "selected.jsonl"}]
    # a quarter of the 23 rows that could be tokenised
    assert "6 conversations of the 23 that were ranked in the pool `local`, selected by `bm25`" in card.text
    assert "| pool | cc-by-4.0 | who shares them | 6 |" in card.text
    for check in json.loads((job / "diagnostics.json").read_text()):
        assert check["sentence"] in card.text
    assert "    rose method=bm25 model=local " in card.text
    assert "Made by Rose 0.9, commit 0123abcd.\n" in card.text
    for private in ("outputs=", "tracking=", "runtime.threads", "10.0.0.1"):
        assert private not in card.text


def test_the_models_card_has_pefts_fields_and_every_metric_with_its_interval(job):
    share(job, REPO, TOLD, base_model="some/llama", dry_run=True)
    card = ModelCard.load(job / "hub/model/README.md")
    assert (card.data.base_model, card.data.library_name, card.data.datasets) == ("some/llama", "peft", [REPO])
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    items, metrics = pandas.read_parquet(job / "items.parquet"), json.loads((job / "metrics.json").read_text())
    assert results["chosen_loss"].startswith(f"{metrics['chosen_loss']:.3f} (")
    low, high = map(float, results["chosen_loss"].partition("(")[2].strip(")").split("–"))
    losses = items.groupby("prompt").chosen_loss.mean()
    assert losses.min() <= low < losses.mean() < high <= losses.max()
    assert not any(name.startswith(("selected_", "precision", "zero_shot/")) for name in results)
    base = f"{metrics['zero_shot/chosen_loss']:.3f}"
    assert f"| chosen_loss | {results['chosen_loss']} | {base} (" in card.text
    config = json.loads((job / "hub/model/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "some/llama"


def test_no_path_of_this_machine_stands_for_the_base_model(job):
    share(job, REPO, TOLD, dry_run=True)
    card = ModelCard.load(job / "hub/model/README.md")
    assert card.data.base_model is None and "`local`, a model that has no name on the hub" in card.text
    text = (job / "hub/model/adapter_config.json").read_text()
    assert json.loads(text)["base_model_name_or_path"] == "local" and str(job.parents[1]) not in text


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf"),
        ("${rose.local_or_hub:${outputs}/models/a,some/model}", "some/model"),
        ("/home/me/model", None),
        ("rose/run", None),  # a folder here
        ("${oc.env:HOME}", None),
        (None, None),
    ],
)
def test_a_base_model_has_a_name_where_the_hub_has_it(path, name):
    class Job:
        def value(self, key: str) -> object:
            return {"model.base.path": path, "model.base.revision": "r1"}.get(key)

    assert cards.base_of(Job(), None) == (name, "r1" if name else None)  # pyright: ignore[reportArgumentType]


def test_rows_of_which_nobody_says_a_licence_are_refused_by_source(job):
    relicense(job, dolly="cc-by-sa-3.0", mine=None, other="unknown")
    with pytest.raises(RoseError, match=r"no licence is said for the rows of mine \(2 rows\), other \(2 rows\)"):
        share(job, REPO, [], dry_run=True)
    assert not (job / "hub").exists()
    with pytest.raises(RoseError, match=r"rows of other \(2 rows\)"):
        share(job, REPO, ["mine=mit"], dry_run=True)
    with pytest.raises(RoseError, match=r"--license dolly=mit: the rows that say no licence are of mine, other"):
        share(job, REPO, ["mit", "dolly=mit"], dry_run=True)
    for empty in ("", "mine=", " "):
        with pytest.raises(RoseError, match=f"--license '{empty}': must be NAME or SOURCE=NAME"):
            share(job, REPO, [empty], dry_run=True)
    share(job, REPO, ["mine=mit", "House rules, see | LICENSE"], dry_run=True)
    card = DatasetCard.load(job / "hub/dataset/README.md")
    assert card.data.license == ["cc-by-sa-3.0", "mit", "other"]
    assert "| dolly | cc-by-sa-3.0 | the rows | 2 |" in card.text
    assert "| mine | mit | who shares them | 2 |" in card.text
    assert "| other | House rules, see \\| LICENSE | who shares them | 2 |" in card.text


def test_the_datasets_own_card_says_the_licence_of_rows_that_say_none(job, tmp_path):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "README.md").write_text("---\nlicense: odc-by\n---\n")
    config = job / ".hydra" / "config.yaml"
    text = config.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("  path: ") and line.endswith("pool.jsonl")]
    config.write_text(text.replace(line, f"  path: {tmp_path}/pool"))
    relicense(job, a=["mit", "apache-2.0"], b=None)
    share(job, REPO, [], dry_run=True)
    card = DatasetCard.load(job / "hub/dataset/README.md")
    assert card.data.license == ["apache-2.0", "mit", "odc-by"]
    assert "| a | mit, apache-2.0 | the rows | 3 |" in card.text
    assert "| b | odc-by | the dataset's card | 3 |" in card.text
    with pytest.raises(RoseError, match=r"--license mit: the dataset's card says odc-by"):
        share(job, REPO, ["mit"], dry_run=True)


def test_a_push_makes_both_repositories_and_uploads_what_was_written(job, monkeypatch, capsys):
    calls = []

    class Api:
        def create_repo(self, repo: str, repo_type: str, private: bool, exist_ok: bool) -> None:
            calls.append(("create", repo, repo_type, private, exist_ok))

        def upload_folder(self, *, repo_id: str, repo_type: str, folder_path: Path, commit_message: str) -> str:
            calls.append(("upload", repo_id, repo_type, folder_path))
            assert (folder_path / "README.md").exists()
            return f"https://hub/{repo_type}/{repo_id}/commit/1"

    monkeypatch.setattr(sharing, "HfApi", Api)
    monkeypatch.setattr(sharing, "get_token", lambda: "hf_token")
    share(job, REPO, TOLD, private=True)
    assert calls == [
        call
        for kind in ("dataset", "model")
        for call in (("create", REPO, kind, True, True), ("upload", REPO, kind, job / "hub" / kind))
    ]
    assert "model: https://hub/model/me/first/commit/1\n" in capsys.readouterr().out
    monkeypatch.setattr(Api, "create_repo", lambda *_, **__: (_ for _ in ()).throw(OSError(111, "Connection refused")))
    with pytest.raises(RoseError, match=f"--repo={REPO}: the hub did not take {job}/hub/dataset .*Connection refused"):
        share(job, REPO, TOLD)


def test_without_a_token_nothing_is_written(job, monkeypatch):
    monkeypatch.setattr(sharing, "get_token", lambda: None)
    with pytest.raises(RoseError, match="no token of the hub; set HF_TOKEN"):
        share(job, REPO, TOLD)
    assert not (job / "hub").exists()


@pytest.mark.parametrize("name", ["first", "me/a/b", "me/what is it"])
def test_a_name_that_the_hub_cannot_have_is_refused(job, name):
    with pytest.raises(RoseError, match=f"^{name}: "):
        share(job, name, TOLD, dry_run=True)


def test_a_job_that_is_not_done_is_refused(job):
    (job / "status.json").write_text('{"state": "failed", "error": "out of luck"}')
    with pytest.raises(RoseError, match=r"the job is failed, not done \(out of luck\)"):
        share(job, REPO, TOLD, dry_run=True)
    with pytest.raises(RoseError, match="is a sweep's folder; name one of its jobs"):
        share(job.parent, REPO, TOLD, dry_run=True)


def test_a_job_that_only_selected_shares_its_selection(job):
    shutil.rmtree(job / "adapter")
    share(job, REPO, TOLD, dry_run=True)
    assert [path.name for path in (job / "hub").iterdir()] == ["dataset"]
    (job / "selected.jsonl").unlink()
    with pytest.raises(RoseError, match="neither a selection nor an adapter"):
        share(job, REPO, TOLD, dry_run=True)


def test_llama_factory_is_told_of_tools_where_rows_have_them(job, tmp_path):
    (entry,) = json.loads((job / "dataset_info.json").read_text()).values()
    assert entry["file_name"] == "selected.jsonl" and entry["formatting"] == "sharegpt"
    assert entry["columns"] == {"messages": "messages"}
    assert (entry["tags"]["role_tag"], entry["tags"]["assistant_tag"]) == ("role", "assistant")
    rows = tmp_path / "selected.jsonl"
    rows.write_text(json.dumps({"messages": [{"role": "tool", "content": "4"}], "tools": "[]"}) + "\n")
    (entry,) = dataset_info(rows).values()
    assert entry["formatting"] == "openai" and entry["columns"]["tools"] == "tools"


@pytest.mark.parametrize("every", [False, True], ids=["the last answer", "every answer"])
def test_the_lines_for_trl_train_on_a_selection(job, inputs, tmp_path, every):
    pytest.importorskip("trl", reason="no TRL here: it is one of `make check-peers`")
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "SHARING.md").read_text(), re.S)[1]
    if every:
        code = re.sub(r"rows\.map\(.*?column_names\)", 'rows.select_columns("messages")', code, flags=re.S)
        code = code.replace('"OUT"', '"OUT", assistant_only_loss=True')
    code = code.replace('"JOB/', f'"{job}/').replace('"MODEL"', f'"{inputs}/model"')
    exec(code.replace('"OUT"', f'"{tmp_path}/out", bf16=False, use_cpu=True, report_to="none"'))  # noqa: S102
    (state,) = (tmp_path / "out").glob("checkpoint-*/trainer_state.json")
    assert json.loads(state.read_text())["global_step"] == 3  # 6 rows in a batch of 8, three epochs


def test_the_folder_that_was_shared_is_no_job(job):
    share(job, REPO, TOLD, dry_run=True)
    assert [each.dir for each in read_jobs(job.parent)] == [job]
