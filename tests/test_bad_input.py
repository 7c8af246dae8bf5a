"""Whatever is in a pool or pairs file: rows come out or an error in one line, and none is lost without being listed."""

import csv
import json
import sys
from collections import Counter
from pathlib import Path

import pandas
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_files import GOOD, lines, sifted, table

from rose.data import bad_rows, chat, files, formats, pool, preference_formats, world
from rose.data.bad_rows import BadRow
from rose.data.files import FileRow, Location
from rose.errors import RoseError

settings.register_profile(
    "short",
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # a slow machine is no fault
)
settings.load_profile("short")

PARSERS = [pool.parse, preference_formats.parse]
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
ODD = st.sampled_from(
    ["", " ", "\0", "🌹", "e\u0301", "\u2028", "\r\n", "﷐", '"', "\ufeff", "<|im_end|>", "../../x", "nan"]
)
WORDS = TEXT | ODD
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS
ROLES = st.sampled_from(["system", "user", "assistant", "tool", None, 1])
MESSAGES = st.lists(st.fixed_dictionaries({"role": ROLES, "content": WORDS | SCALARS}), max_size=4)
VALUES = st.recursive(
    SCALARS | MESSAGES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
MORE = [["id", "dataset"], ["score", "rank"], ["subtask"], ["domain", "post_id"], ["qid"], ["context"], ["response"]]
LAYOUTS = st.sampled_from(
    [
        ["messages"],
        ["prompt", "completion", "messages"],
        ["instruction", "output", "input"],
        ["prompt", "chosen", "rejected", "score_chosen", "score_rejected"],
        ["chosen", "rejected"],
        ["history", "human_ref_A", "human_ref_B", "labels", "score_ratio"],
        ["question", "answers", "metadata"],
    ]
)
ANSWERS = st.lists(st.fixed_dictionaries({"text": WORDS, "pm_score": SCALARS | st.integers(0, 5)}), max_size=3)
LINKS = st.lists(st.sampled_from(["http://[bad", "https://a.stackexchange.com/x", "http://a:port/", ""]), max_size=2)


@st.composite
def rows(draw) -> dict:
    """An object that has the columns of some layout, its values of any kind."""
    names = draw(LAYOUTS) + draw(st.sampled_from(MORE))
    values = {name: draw(VALUES | WORDS | MESSAGES) for name in names}
    for name, likely in (("answers", ANSWERS), ("metadata", LINKS), ("labels", st.sampled_from([0, 1]))):
        if name in values and draw(st.booleans()):
            values[name] = draw(likely)
    return values


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.mark.parametrize("parse", PARSERS, ids=["pool", "pairs"])
@given(data=st.binary(max_size=200) | st.lists(rows() | VALUES, max_size=4).map(lambda rows: lines(rows)))
def test_any_bytes_of_a_jsonl_file_are_rows_or_listed_line_by_line(folder, parse, data):
    (folder / "r.jsonl").write_bytes(data)
    found, skipped = sifted(folder / "r.jsonl", parse, folder / "skipped.jsonl")
    stripped = data.removeprefix(b"\xef\xbb\xbf")
    numbers = [number for number, line in enumerate(stripped.split(b"\n"), 1) if line.strip()]
    refused = Counter(row["line"] for row in skipped)
    assert set(refused) <= set(numbers) and max(refused.values(), default=1) == 1
    assert len(found) >= len(numbers) - len(refused)  # a Stack Exchange row holds several pairs
    assert len({row["id"] for row in found}) == len(found)


@pytest.mark.parametrize("parse", PARSERS, ids=["pool", "pairs"])
@pytest.mark.parametrize("name", ["r.jsonl.gz", "r.json", "r.parquet", "r.csv"])
@given(data=st.data())
def test_a_file_with_bytes_changed_lost_or_added_gives_rows_or_one_line(folder, parse, name, data):
    content = bytearray(table(name))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content)))
        kind = data.draw(st.sampled_from(["flip", "cut", "add", "end"]))
        if kind == "flip" and place < len(content):
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut":
            del content[place : place + data.draw(st.integers(1, 9))]
        elif kind == "add":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=5))
        else:
            del content[place:]
    (folder / name).write_bytes(content)
    try:
        found, _ = sifted(folder / name, parse, folder / "skipped.jsonl")
    except RoseError as error:
        assert name in str(error)
    else:
        assert all(isinstance(row["id"], str) for row in found)


@given(data=st.data())
def test_an_arrow_file_with_bytes_changed_lost_or_added_gives_rows_or_one_line(folder, data):
    content = bytearray(table("r.arrow"))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))
    (folder / "r.arrow").write_bytes(content)
    try:
        found, _ = sifted(folder / "r.arrow", pool.parse, folder / "skipped.jsonl")
    except RoseError as error:
        assert "r.arrow" in str(error)
    else:
        assert all(isinstance(row["id"], str) for row in found)


@given(rows())
def test_a_row_of_any_values_is_parsed_or_refused_with_a_reason(values):
    values = json.loads(json.dumps(values))
    for parse in PARSERS:
        try:
            found = parse(FileRow("r.jsonl", 1, values))
        except BadRow as error:
            assert str(error)
        else:
            json.dumps(found, allow_nan=False)
            for row in found:
                assert all(isinstance(m["content"], str) for m in row.get("messages", row.get("chosen")))


TURNS = st.lists(st.sampled_from(["system", "user", "assistant"]), min_size=1, max_size=5)


@given(TURNS, st.data())
def test_every_conversation_with_an_answer_comes_through_word_for_word(roles, data):
    messages = [{"role": role, "content": data.draw(WORDS)} for role in roles]
    text = json.dumps({"messages": messages}, ensure_ascii=False)
    values = formats._parse(text.encode())
    if any(m["role"] == "assistant" and m["content"].strip() for m in messages):
        (row,) = pool.parse(FileRow("r.jsonl", 1, values))
        assert row["messages"] == messages
    else:
        with pytest.raises(BadRow, match="no assistant message with text"):
            pool.parse(FileRow("r.jsonl", 1, values))


@given(TURNS, st.data())
def test_every_conversation_is_encoded_or_refused_with_a_reason(tokenizer, roles, data):
    messages = [{"role": role, "content": data.draw(WORDS)} for role in roles]
    length = data.draw(st.integers(1, 40))
    try:
        row = chat.encode(tokenizer, messages, length)
    except RoseError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert row is None or len(row["input_ids"]) == len(row["labels"]) <= length


@pytest.fixture(scope="module")
def tokenizer():
    return world.tokenizer()


def test_a_conversation_of_many_turns_takes_no_longer_than_its_length_asks(tokenizer):
    turn = [{"role": "user", "content": "tomato"}, {"role": "assistant", "content": "lantern"}]

    def steps(turns: int) -> int:
        """How many lines of rose/data/chat.py are run."""
        lines = Counter()

        def trace(frame, event, _):
            lines[event] += 1
            return trace if frame.f_code.co_filename == chat.__file__ else None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            assert chat.encode(tokenizer, turn * turns, 10**6) is not None
        finally:
            sys.settrace(before)
        return lines["line"]

    assert steps(500) < steps(2000) < 5 * steps(500)  # 16 times if it grew with the square


def test_a_row_of_ten_megabytes_comes_through(tmp_path):
    text = "tomato 🌹\n" * 900_000
    (tmp_path / "r.jsonl").write_bytes(lines([{"prompt": "?", "completion": text}]))
    (row,), skipped = sifted(tmp_path / "r.jsonl", pool.parse, tmp_path / "skipped.jsonl")
    assert row["messages"][1]["content"] == text and skipped == []


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz", "r.json", "r.parquet", "r.arrow", "r.csv"])
def test_a_row_that_is_too_long_is_listed_and_the_rest_is_read(tmp_path, monkeypatch, name):
    monkeypatch.setattr(bad_rows, "MAX_ROW", 120)
    long = {**GOOD[1], "completion": "x" * 500}
    (tmp_path / name).write_bytes(table(name, [GOOD[0], long, GOOD[2]]))
    found, (skipped,) = sifted(tmp_path / name, pool.parse, tmp_path / "skipped.jsonl")
    assert [row["id"] for row in found] == ["r0", "r2"] and skipped["reason"].startswith("longer than")


def test_a_line_longer_than_fits_in_memory_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(bad_rows, "MAX_ROW", 120)
    (tmp_path / "r.jsonl").write_bytes(lines(GOOD[:1]) + b"x" * 500 + b"\n" + lines(GOOD[1:2]))
    found, (skipped,) = sifted(tmp_path / "r.jsonl", pool.parse, tmp_path / "skipped.jsonl")
    assert [row["id"] for row in found] == ["r0", "r1"] and skipped["line"] == 2


@pytest.mark.parametrize("name", ["r.jsonl.gz", "r.jsonl.zst", "r.csv.gz", "r.json.gz", "r.parquet"])
def test_a_small_file_that_unfolds_without_end_is_stopped(tmp_path, monkeypatch, name):
    monkeypatch.setattr(bad_rows, "MAX_UNFOLDED", 10_000)
    many = [{"prompt": "?", "completion": "0" * 1000}] * 2000
    if name == "r.parquet":
        pandas.DataFrame(many).to_parquet(tmp_path / name)
    else:
        with pyarrow.output_stream(str(tmp_path / name)) as file:  # packs by the name
            file.write(json.dumps(many).encode() if name == "r.json.gz" else lines(many))
    with pytest.raises(RoseError, match="unfolds to more than .* unpack it yourself"):
        sifted(tmp_path / name, pool.parse, tmp_path / "skipped.jsonl")


REPEATED = "0" * (2 << 20)
REPEATING = {
    "in every row": {"prompt": ["?"] * 64, "completion": [REPEATED] * 64},
    "in one row's list": {"prompt": ["?"], "messages": [[REPEATED] * 64]},
}


@pytest.mark.parametrize("where", REPEATING)
@pytest.mark.parametrize("schema", [True, False])
def test_what_a_small_table_says_once_is_once_in_memory(tmp_path, monkeypatch, where, schema):
    monkeypatch.setattr(bad_rows, "MAX_ROW", 32 << 20)
    path = tmp_path / "r.parquet"
    pyarrow.parquet.write_table(pyarrow.table(REPEATING[where]), path, compression="zstd", store_schema=schema)
    assert path.stat().st_size < 2048
    before, peak, found = pyarrow.total_allocated_bytes(), 0, []
    for row in files.read_rows(Location("dataset.path", str(path), [], None)):
        peak = max(peak, pyarrow.total_allocated_bytes() - before)
        found.append(row.error is not None or row.values == {"prompt": "?", "completion": REPEATED})
    assert found == [True] * len(REPEATING[where]["prompt"])
    assert len(REPEATED) < peak < 8 * len(REPEATED)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("r.csv", b"prompt,prompt,completion\n1,2,3\n", "has the column 'prompt' twice"),
        ("r.csv", b'prompt,completion\n1,2\n3,"4\n5,6\n', "unexpected end"),
        ("r.csv", b'"prompt,completion\n1,2\n', "unexpected end"),
        ("r.json", b'[{"prompt": "1", "completion": "2"}, {"prompt"', "not JSON"),
    ],
)
def test_what_would_cost_many_rows_stops_the_run_even_where_bad_rows_are_skipped(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RoseError, match=f"cannot read {name} to its end.*{reason}"):
        sifted(tmp_path / name, pool.parse, tmp_path / "skipped.jsonl")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "1", "prompt": "2", "completion": "3"}', "has 'prompt' twice"),
        (b'{"prompt": "1", "completion": "2", "x": {"y": 1, "y": 2}}', "has 'y' twice"),
        (b'{"prompt": "1", "completion": NaN}', "completion is NaN"),
        (b'{"messages": [{"role": "system", "content": "only"}]}', "no answer"),
        (b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]}', "no answer"),
        (b'{"messages": [{"role": "assistant", "content": [{"type": "text", "text": 1}]}]}', "must be a text"),
        (b'{"instruction": "a", "input": 0, "output": "b"}', "input is 0"),
        (b'{"prompt": "\\udc80", "completion": "b"}', "not valid Unicode"),
    ],
)
def test_a_row_that_would_lose_something_is_refused_by_name(tmp_path, line, reason):
    (tmp_path / "r.jsonl").write_bytes(line)
    found, (skipped,) = sifted(tmp_path / "r.jsonl", pool.parse, tmp_path / "skipped.jsonl")
    assert found == [] and reason in skipped["reason"]


def test_messages_that_are_null_give_way_to_prompt_and_completion(tmp_path):
    (tmp_path / "r.jsonl").write_bytes(b'{"messages": null, "prompt": "a", "completion": "b"}')
    (row,), _ = sifted(tmp_path / "r.jsonl", pool.parse, tmp_path / "skipped.jsonl")
    assert [message["content"] for message in row["messages"]] == ["a", "b"]


def test_line_ends_of_windows_and_a_byte_order_mark_change_nothing(tmp_path):
    for name in ("r.jsonl", "r.csv"):
        plain = lines(GOOD) if name == "r.jsonl" else table(name)
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + plain.replace(b"}\n", b"}\r\n"))
        found, skipped = sifted(tmp_path / name, pool.parse, tmp_path / "skipped.jsonl")
        assert [row["messages"][1]["content"] for row in found] == [row["completion"] for row in GOOD] and not skipped
    assert csv.field_size_limit() > 1 << 30
