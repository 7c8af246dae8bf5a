"""What a selection is made of beside what the pool is made of: lengths, sources, copies.

`table` is a scores.parquet with a column `selected`; `length` is in tokens.
"""

import pandas

from rose.config.schema import Warn
from rose.data.chat import said
from rose.diagnostics.finding import Finding, constant_score, not_applicable, percent
from rose.diagnostics.overlap import near_duplicates
from rose.methods.duplicates import SIMILAR
from rose.methods.subtasks import spearman

LISTED = 20  # examples of a finding; of leaks, the leakage stage has all


def length_correlation(table: pandas.DataFrame, warn: Warn) -> Finding:
    """Spearman's correlation of score and length over the rows that have a score."""
    scored = table.dropna(subset="score")
    if len(set(scored["score"])) < 2:
        return constant_score("length_correlation")
    value = spearman(scored.score, scored.length)
    if value is None:
        return not_applicable("length_correlation", "All rows have the same length.")
    trend = "hardly follows length" if abs(value) < 0.1 else f"rises with {'length' if value > 0 else 'shortness'}"
    sentence = f"The score {trend}: Spearman's correlation is {value:+.2f}."
    return Finding("length_correlation", value, abs(value) > warn.length_correlation, sentence)


def length_ratio(table: pandas.DataFrame, warn: Warn) -> Finding:
    """Mean length of the selected rows over that of the pool."""
    selected, pool = table.loc[table["selected"], "length"].mean(), table["length"].mean()
    value = float(selected / pool)
    sentence = f"A selected row has {selected:.0f} tokens on average, a row of the pool {pool:.0f}."
    return Finding("length_ratio", value, not 1 / warn.length_ratio <= value <= warn.length_ratio, sentence)


def extremes(table: pandas.DataFrame, warn: Warn) -> list[Finding]:
    """How much of the selection is among as many longest, and shortest, rows (ties: pool order).

    Suspicious is what exceeds chance k/n by more than `warn.extremes` of what is left above chance.
    """
    count = int(table.selected.sum())
    chance = count / len(table)
    findings = []
    for name, lengths in (("longest", -table["length"]), ("shortest", table["length"])):
        extreme = lengths.to_numpy().argsort(kind="stable")[:count]
        value = float(table["selected"].to_numpy()[extreme].mean())
        suspicious = value > chance + warn.extremes * (1 - chance)
        among = f"among the pool's {count} {name} rows"
        sentence = f"{percent(value)} of the selection is {among} (chance: {percent(chance)})."
        findings.append(Finding(f"overlap_{name}", value, suspicious, sentence))
    return findings


def source_mix(table: pandas.DataFrame, sources: pandas.Series, warn: Warn) -> Finding:
    """Total variation distance ½Σ|p − q| of the sources' shares in pool and selection."""
    shares = pandas.DataFrame({"pool": sources.value_counts(normalize=True)})
    if len(shares) < 2:
        return not_applicable("source_mix", "The pool has one source.")
    shares["selection"] = sources.loc[table["selected"].to_numpy()].value_counts(normalize=True)
    shares = shares.fillna(0.0)
    gain = shares.selection - shares.pool
    value, most = float(gain.abs().sum() / 2), gain.idxmax()
    pool, selection = shares.loc[most]
    sentence = (
        f"{percent(value)} of the selection would have to change source to be mixed like the pool; "
        f"{most} is {percent(selection)} of it and {percent(pool)} of the pool."
    )
    shares = {str(name): share for name, share in shares.to_dict("index").items()}
    return Finding("source_mix", value, value > warn.source_mix, sentence, shares)


def copies(selected: list[dict], warn: Warn) -> Finding:
    """Share of the selected rows (best first) that are near-duplicates of a better one."""
    pairs = near_duplicates([said(row["messages"]) for row in selected], SIMILAR)
    value = len(pairs) / max(1, len(selected))
    sentence = f"{len(pairs)} of {len(selected)} selected rows are nearly the text of a better one"
    sentence += "; selection.dedup=near passes over them." if pairs else "."
    listed = [{"id": selected[row]["id"], "of": selected[better]["id"]} for row, better in pairs[:LISTED]]
    return Finding("near_duplicates", value, value > warn.near_duplicates, sentence, listed or None)
