"""The schema of conf/dataset, conf/preference and the embedded world."""

from dataclasses import dataclass, field

from rose.config import choices
from rose.config.choices import IN_KEY_IF_SET, NOT_IN_KEY, Fault, Manners, OnBadRow


@dataclass
class WorldPool:
    seed: int  # of the rows
    manners: Manners  # what makes an answer good
    rows: int  # in the pool
    useful: float  # share of rows with the good manner
    distractor: float  # how strongly pairs and harmful rows share surface features, 0..1


@dataclass
class WorldPairs:
    seed: int  # of the pairs
    manners: Manners  # what makes an answer good
    targets: int  # preference pairs the selection may see
    tests: int  # held-out pairs
    overlap: float  # share of the answer's body that chosen and rejected have in common, 0..1
    distractor: float  # how strongly pairs and harmful rows share surface features, 0..1


@dataclass
class World:
    """Knobs that pool, pairs and base model of the embedded world must agree on."""

    seed: int  # of pool and pairs
    manners: Manners  # what makes an answer good: its phrases, or that opener and closer agree
    distractor: float  # how strongly pairs and harmful rows share surface features, 0..1


@dataclass
class Dataset:
    name: str  # in the report
    path: str | None = field(metadata=NOT_IN_KEY)  # file, folder of files, or hub dataset id
    revision: str | None  # of a hub dataset; null: main
    files: list[str]  # patterns inside a folder or hub dataset; empty: every data file
    per_source: int | None  # at most so many rows of each source, drawn with `seed`
    on_bad_row: OnBadRow  # end the run, or count and list the row
    seed: int  # of a thinned pool's rows
    world: WorldPool | None


@dataclass
class Plant:
    """Faults of known kind in some of the pool's rows: whether a selector sees them can be measured."""

    faults: list[Fault]  # each row is given one of these by lot; empty: none
    share: float  # of the rows that can have theirs
    aside: int = field(metadata=NOT_IN_KEY)  # rows kept out of the pool, to make planted pairs from
    seed: int  # of rows and faults


@dataclass
class Pairs:
    """The preference data: which pairs guide the selection and which test it."""

    path: str | None = field(metadata=NOT_IN_KEY)  # file, folder, or hub dataset id of the target pairs
    revision: str | None  # of a hub dataset; null: main
    files: list[str]  # patterns inside a folder or hub dataset; empty: every data file
    test_path: str | None = field(metadata=NOT_IN_KEY)  # null: `test_share` of each subtask's prompts is held out
    test_files: list[str]  # likewise, of test_path
    test_share: float  # of each subtask's prompts, where no test_path is given
    planted: bool = field(metadata=NOT_IN_KEY)  # made from rows that `plant.aside` kept out: answer over faulty answer
    faults: list[Fault] = field(metadata=NOT_IN_KEY)  # of planted pairs; empty: those of the pool
    min_score_ratio: float | None  # votes(chosen) / votes(rejected) at least; SHP's usual filter is 2
    shots: int | None  # target pairs a subtask, one a prompt
    tests: int | None  # test pairs a subtask, one a prompt; null: all pairs
    on_bad_row: OnBadRow  # end the run, or count and list the row
    seed: int  # of shots and tests
    world: WorldPairs | None
    # in whose columns the pairs stand, where these leave it open; null: by the columns
    layout: choices.PairLayout | None = field(default=None, metadata=IN_KEY_IF_SET)


@dataclass
class Preference:
    name: str  # in the report
    path: str | None  # short for pairs.path
    test_path: str | None  # short for pairs.test_path
    pairs: Pairs
    loss: choices.PreferenceLoss  # whose gradient a pair has
    beta: float  # of dpo, ipo and simpo
    gamma: float  # SimPO's target margin
    reference: choices.Reference  # the model that log-ratios are taken against
    first_tokens: int | None  # only so many tokens of each answer count; null: all
    normalize: choices.Normalize  # whether a pair's gradient has unit norm, their mean, or none
    # how a target pair is written for its gradient: by the chat template, or as ROSE's own code writes it
    format: choices.PairFormat
