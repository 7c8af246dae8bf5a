"""The diagnostics stage: what a person should see of a selection before believing in it."""

import json
from pathlib import Path

import pandas
from safetensors import safe_open

from rose.config.schema import Method, Warn
from rose.data import files
from rose.diagnostics.composition import LISTED, copies, extremes, length_correlation, length_ratio, source_mix
from rose.diagnostics.fidelity import undefined
from rose.diagnostics.finding import Finding, not_applicable, percent
from rose.diagnostics.targets import momentum_share, stability, subtask_share
from rose.methods.hidden import token_rows
from rose.methods.influence import Influence
from rose.stages.disk import write_json
from rose.stages.graph import stage

SIDES = {  # where a prompt was found → whose prompts, where, and what follows
    "pool/test": ("test", "the pool", "what is measured on them may be memory"),
    "pool/target": ("target", "the pool", "rows with the same prompt look more useful than they are"),
    "target/test": ("test", "the target pairs", "the selection has seen what it is tested on"),
}


@stage("diagnostics", version=4)
def diagnose(
    out: Path,
    warn: Warn,
    resamples: int,
    seed: int,
    method: Method,
    tokens: Path,
    scores: Path,
    selection: Path,
    leakage: Path,
    momentum: tuple,
    exact: Path | None,
    fidelity: Path | None,
    planted: Path | None = None,
) -> None:
    """Writes diagnostics.json: [{"name", "value", "state": pass | warn, "sentence", "details"}, …].

    A value is null where the sentence says that a check does not apply, or all scores are the same.
    `momentum` is empty, or the pool's features and the common term in them; `exact`,
    `fidelity` and `planted` are None where they were not asked for.
    """
    selected = list(files.load(selection / "selected.jsonl"))
    table = pandas.read_parquet(scores / "scores.parquet")
    table = table.assign(selected=table["id"].isin([row["id"] for row in selected]))
    sources = pandas.Series(token_rows(tokens)["dataset"][:], dtype=object)
    with safe_open(scores / "influence.safetensors", "numpy") as stored:
        influence = Influence(stored.get_tensor("values"), json.loads(stored.metadata()["subtasks"]))
    findings = [
        length_correlation(table, warn),
        length_ratio(table, warn),
        *extremes(table, warn),
        source_mix(table, sources, warn),
        copies(selected, warn),
        subtask_share(method, table, influence, warn),
        stability(method, table, influence, resamples, seed, warn),
        momentum_share(table, momentum, warn),
        *leaks(leakage, warn),
        *([] if exact is None else [projected(json.loads((exact / "projection_error.json").read_text()), warn)]),
        *([] if fidelity is None else faithful(method, json.loads((fidelity / "metrics.json").read_text()))),
    ]
    said = [finding.as_json() for finding in findings]
    said += [] if planted is None else [json.loads((planted / "planted.json").read_text())]
    write_json(out / "diagnostics.json", said)


def leaks(leakage: Path, warn: Warn) -> list[Finding]:
    """A finding for each pair of sides: how many prompts are on both."""
    counts, all_leaks = json.loads((leakage / "leakage.json").read_text()), list(files.load(leakage / "leaks.jsonl"))
    findings = []
    for between, (whose, where, consequence) in SIDES.items():
        count, listed = counts[between], [leak for leak in all_leaks if leak["between"] == between][:LISTED]
        kinds = f"{count['exact']} word for word, {count['near']} nearly, {count['ngram']} by long runs of words"
        sentence = f"{count['leaked']} of {count['prompts']} {whose} prompts are in {where}"
        sentence += f" ({kinds}): {consequence}." if count["leaked"] else "."
        value = count["leaked"] / max(1, count["prompts"])
        name = f"leakage_{between.replace('/', '_')}"
        findings.append(Finding(name, value, value > warn.leaked, sentence, listed or None))
    return findings


def projected(error: dict, warn: Warn) -> Finding:
    value = error["spearman"]
    sentence = (
        f"Projected and whole gradients rank {error['rows']} sampled rows alike to {value:.3f} (Spearman); a single "
        f"influence is off by {percent(error['rms'] / error['spread'])} of the influences' spread."
    )
    return Finding("projection", value, value < warn.projection, sentence, error)


def faithful(method: Method, metrics: dict) -> list[Finding]:
    """Suspicious is a score whose 95 % interval reaches down to chance."""
    if reason := undefined(method):
        return [not_applicable("fidelity", f"No score outside the pool: {reason}.")]
    findings = []
    pairs = "held-out pairs"
    for name, what in (("fidelity", pairs), ("fidelity_matched", f"{pairs} of answers alike in length")):
        count = metrics[f"{name}_pairs"]
        if not count:
            findings.append(not_applicable(name, f"There are no {what}."))
            continue
        value, low, high = metrics[name], metrics[f"{name}_low"], metrics[f"{name}_high"]
        sentence = (
            f"As training rows, the chosen answer scores higher than the rejected one in {percent(value)} of {count} "
            f"{what} (95 %: {percent(low)} to {percent(high)}; chance: 50 %)."
        )
        findings.append(Finding(name, value, low <= 0.5, sentence))
    return findings
