"""Two finished jobs' answers against each other."""

import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path

import numpy
import pandas

from rose import keys
from rose.config.choices import JudgeKind
from rose.config.compose import one_job, typed
from rose.config.schema import Config
from rose.errors import RoseError
from rose.evaluation.verdicts import fingerprint, judge_answers, shares_model
from rose.report.results import unresolved
from rose.report.statistics import from_items
from rose.run.names import register_resolvers

READ = ("experiments", "judge", "model", "world")  # what of a job's configuration a duel needs


def duel(first: Path, second: Path, overrides: list[str]) -> Path:
    """Writes what stage verdicts writes into outputs/duels/<first>-against-<second>-<judge>.

    Returns that folder. The judge is the first job's unless `overrides` say otherwise. Raises
    RoseError where a job has no answers, the two answered different prompts, or there is no judge.
    """
    outputs, answers = _answers(first)
    others, opponent = _answers(second)
    config = _config(first, outputs, overrides)
    if config.judge.kind is JudgeKind.none:
        raise RoseError(f"{first}: was not judged; name a judge: judge=llm judge.model=… judge.base_url=…")
    weights = fingerprint(config.judge)
    ranking = [model for job, root in ((first, outputs), (second, others)) for model in _ranking(job, root)]
    shares = any(shares_model(config.judge, config.model.base, model) for model in [None, *ranking])
    name = hashlib.sha256(repr((keys.judge(config.judge), weights)).encode()).hexdigest()[:6]
    target = outputs / "duels" / f"{first.resolve().name}-against-{second.resolve().name}-{name}"
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
        part = Path(folder) / "part"
        part.mkdir()
        judge_answers(part, keys.judge(config.judge), weights, shares, answers, opponent)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    return target


def summary(folder: Path) -> str:
    """Win rate with its 95 % interval, and at equal length; each prompt counts once."""
    metrics = json.loads((folder / "metrics.json").read_text())
    wins = pandas.read_parquet(folder / "items.parquet").groupby("prompt").win_rate.mean().dropna()
    rate = from_items(wins.to_numpy()[None], numpy.arange(len(wins)), (0, 1))
    return (
        f"win rate {rate.mean:.3f} (95 % interval {rate.low:.3f} to {rate.high:.3f}) over {len(wins)} prompts, "
        f"length-controlled {metrics.get('win_rate_length_controlled', numpy.nan):.3f}"
    )


def _answers(job: Path) -> tuple[Path, Path]:
    """The outputs folder a job lies in, and the folder of its answers."""
    if not (job / "stages.json").is_file():
        raise RoseError(f"{job}: is no job's folder; outputs/runs and outputs/sweeps hold them")
    stages = json.loads((job / "stages.json").read_text())
    if "answers" not in stages:
        raise RoseError(f"{job}: has no answers; run it again with until=answers or with a judge")
    folder = stages["answers"]["dir"]
    for parent in job.resolve().parents:
        if (parent / folder).is_dir():
            return parent, parent / folder
    raise RoseError(f"{job}: its answers are gone ({folder}); run it again")


def _ranking(job: Path, outputs: Path) -> list[str]:
    """The reward models that ranked a job's rows, or its candidates."""
    stages = json.loads((job / "stages.json").read_text())
    made = [outputs / entry["dir"] / "inputs.json" for name, entry in stages.items() if name.endswith("rewards")]
    return [json.loads(path.read_text())["inputs"]["judge"]["model"] for path in made if path.exists()]


def _config(job: Path, outputs: Path, overrides: list[str]) -> Config:
    register_resolvers()
    settings = _settings(job, {_key(text) for text in overrides})
    return typed(one_job([*settings, f"outputs={outputs}", *overrides]))


def _settings(job: Path, replaced: set[str]) -> list[str]:
    """What a job's command line said of what is READ here, but for `replaced` keys.

    The folder may be anybody's: RoseError where `${…}` in it would read this machine's environment.
    """
    found = unresolved((job / ".hydra" / "overrides.yaml").read_text())
    texts = [text for text in map(str, found) if _key(text).split(".")[0].split("@")[0] in READ]
    for text in (text for text in texts if _key(text) not in replaced):
        if set(re.findall(r"\$\{\W*(\w*)", text)) - {*READ, "outputs"} or re.search(r"\$\{.*:", text):
            raise RoseError(f"{job}: says {text}, and is not asked to read this machine; say {_key(text)}=… yourself")
    return [text for text in texts if _key(text) not in replaced]


def _key(override: str) -> str:
    return override.lstrip("+~").split("=")[0]
