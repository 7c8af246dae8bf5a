"""A finished job for the Hugging Face hub: the folders that become a dataset and a model, and their upload."""

import json
import shutil
from pathlib import Path

from huggingface_hub import DatasetCard, HfApi, ModelCard, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from rose.errors import RoseError, one_line
from rose.report.results import JobRecord, read_jobs
from rose.run.cards import base_of, dataset_card, model_card
from rose.run.licences import licences
from rose.run.record import dataset_info
from rose.stages.disk import write_json

FOLDER = "hub"  # in the job's own


def share(
    directory: Path,
    repo: str,
    told: list[str],
    base_model: str | None = None,
    dry_run: bool = False,
    private: bool = False,
) -> None:
    """Writes the folders, says where they are, and pushes them unless `dry_run`.

    Raises RoseError where the job is not done or has nothing to share, where rows say no licence and
    `told` does not either, and where the hub cannot be written to.
    """
    for name in (repo, base_model) if base_model else (repo,):
        _refuse_name(name)
    if not dry_run and get_token() is None:
        raise RoseError(f"--repo={repo}: no token of the hub; set HF_TOKEN or run `hf auth login`, or say --dry-run")
    folders = prepare(_finished(directory), repo, told, base_model)
    for kind, folder in folders.items():
        print(f"{kind}: {folder}")
    if dry_run:
        print("nothing was pushed; the same command without --dry-run writes these folders anew and pushes them")
        return
    for kind, folder in folders.items():
        print(f"{kind}: {_push(folder, kind, repo, private)}")


def prepare(job: JobRecord, repo: str, told: list[str], base_model: str | None) -> dict[str, Path]:
    """The folders by the hub's kind of what they become; those of an earlier call are made anew."""
    selected, adapter = job.dir / "selected.jsonl", job.dir / "adapter"
    if not selected.exists() and not (adapter / "adapter_config.json").exists():
        raise RoseError(f"{job.dir}: has neither a selection nor an adapter to share")
    found = licences(job, selected, told) if selected.exists() else []
    shutil.rmtree(job.dir / FOLDER, ignore_errors=True)
    folders = {}
    if selected.exists():
        folders["dataset"] = _folder(job.dir, "dataset", [selected, job.dir / "diagnostics.json"])
        write_json(folders["dataset"] / "dataset_info.json", dataset_info(selected))
        _save(dataset_card(job, repo, found), folders["dataset"])
    if (adapter / "adapter_config.json").exists():
        folders["model"] = _folder(job.dir, "model", [*adapter.glob("adapter_*"), job.dir / "metrics.json"])
        _name_base(folders["model"] / "adapter_config.json", job, base_model)
        _save(model_card(job, repo, found, base_model), folders["model"])
    return folders


def _finished(directory: Path) -> JobRecord:
    (job, *others) = read_jobs(directory)
    if others or job.dir != directory:
        raise RoseError(f"{directory}: is a sweep's folder; name one of its jobs, such as {job.dir}")
    if job.state != "done":
        raise RoseError(f"{directory}: the job is {job.state}, not done{f' ({job.error})' if job.error else ''}")
    return job


def _refuse_name(name: str) -> None:
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise RoseError(f"{name}: is no name of a repository on the hub ({one_line(error, 200)})") from error
    if "/" not in name:
        raise RoseError(f"{name}: must be NAMESPACE/NAME, the namespace being a user or an organisation")


def _folder(job: Path, kind: str, files: list[Path]) -> Path:
    folder = job / FOLDER / kind
    folder.mkdir(parents=True)
    for path in files:
        if path.exists():
            shutil.copyfile(path, folder / path.name)
    return folder


def _name_base(config: Path, job: JobRecord, base_model: str | None) -> None:
    """PEFT noted where the base model lay on this machine; others load it by its name."""
    values = json.loads(config.read_text())
    name, revision = base_of(job, base_model)
    values |= {"base_model_name_or_path": name or job.value("student.name") or job.value("model.name")}
    write_json(config, values | {"revision": revision})


def _save(card: DatasetCard | ModelCard, folder: Path) -> None:
    (folder / "README.md").write_text(f"{str(card).rstrip()}\n", encoding="utf-8")


def _push(folder: Path, kind: str, repo: str, private: bool) -> str:
    """The commit's address."""
    api = HfApi()
    try:
        api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, repo_type=kind, folder_path=folder, commit_message="Shared by Rose"))
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise RoseError(f"--repo={repo}: the hub did not take {folder} ({one_line(error, 200)})") from error
