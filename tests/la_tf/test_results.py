"""results.jsonl: whole lines however a process ended, one record an evaluation."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import UserError
from la_tf import results


def record(top1=0.5, time="2026-11-21T12:00:00+00:00", seed=0):
    return {
        "time": time, "protocol": "knn", "subject": {"kind": "run", "seed": seed}, "dataset": {"spec": "digits"},
        "settings": {"neighbors": 200, "tau": 0.07}, "split": "test", "selected_on": "nothing",
        "results": {"top1": top1}, "versions": {"numpy": "2"}, "command": ["a"], "seconds": 1.5,
    }  # fmt: skip


def test_what_is_appended_is_read_back_with_its_id(tmp_path):
    first = results.append(tmp_path / "new" / "run", record())
    second = results.append(tmp_path / "new" / "run", record(seed=1))
    assert first["id"] == results.identity(record()) != second["id"]
    assert results.read([tmp_path / "new" / "run"]) == [first, second]
    assert first == {"id": first["id"], **record()}
    assert results.identified(record()) == first


def test_the_id_is_a_hash_of_what_lasts():
    plain = results.identity(record())
    assert len(plain) == 12 and int(plain, 16) >= 0
    volatile = {"id": "x", "time": "y", "versions": {}, "command": [], "seconds": 9, "results": {"top1": 1.0}}
    assert results.identity(record() | volatile) == plain
    for change in ({"split": "validation"}, {"selected_on": "test"}, {"settings": {"neighbors": 1, "tau": 0.07}}):
        assert results.identity(record() | change) != plain


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.integers())))
def test_the_id_survives_json_and_the_order_of_keys(subject):
    one = record() | {"subject": subject}
    turned = json.loads(json.dumps({key: one[key] for key in reversed(one)}))
    turned["subject"] = {key: turned["subject"][key] for key in reversed(turned["subject"])}
    assert results.identity(turned) == results.identity(one)


def test_a_repeated_evaluation_counts_once_the_newest(tmp_path):
    results.append(tmp_path / "a", record(0.7, time="2026-11-21T14:00:00+00:00"))
    results.append(tmp_path / "a", record(0.1, time="2026-11-21T15:30:00+02:00"))  # half an hour earlier
    results.append(tmp_path / "a", record(0.2, seed=1))
    results.append(tmp_path / "b", record(0.3, seed=1))  # at the same moment: the later line
    assert [found["results"]["top1"] for found in results.read([tmp_path / "a", tmp_path / "b"])] == [0.7, 0.3]
    assert results.find(tmp_path / "a", results.identity(record()))["results"]["top1"] == 0.7
    assert results.find(tmp_path / "a", "0" * 12) is None
    assert results.find(tmp_path / "nowhere", "0" * 12) is None


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_torn_last_line_is_passed_over_and_mended(tmp_path, cut):
    first, second = results.append(tmp_path, record()), results.append(tmp_path, record(seed=1))
    path = tmp_path / results.FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])  # 1: the newline alone, so the record is whole
    kept = [first, second] if cut == 1 else [first]
    assert results.read([tmp_path]) == kept
    third = results.append(tmp_path, record(seed=2))
    assert results.read([tmp_path]) == [*kept, third]
    assert path.read_text().count("\n") == len(kept) + 1


@pytest.mark.parametrize(
    "line", ['{"id": "x", "ti', "[1]", "\xff", '{"id": "x"}', json.dumps({"id": "x", **record(time="noon")})]
)
def test_a_damaged_line_is_named(tmp_path, line):
    results.append(tmp_path, record())
    with open(tmp_path / results.FILE, "ab") as file:
        file.write(line.encode("latin-1") + b"\n")
    results.append(tmp_path, record(seed=1))
    with pytest.raises(UserError, match=r"results\.jsonl, line 2: is damaged .*delete the line") as error:
        results.read([tmp_path])
    assert "\n" not in str(error.value)


def test_a_folder_without_results_says_what_makes_them(tmp_path):
    with pytest.raises(UserError, match=r"holds no results\.jsonl yet; python -m la_tf\.evaluate --model_dir="):
        results.read([tmp_path])
    with pytest.raises(UserError, match=r"nowhere: there is no such folder"):
        results.read([tmp_path / "nowhere"])


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: results\.jsonl cannot be written \("):
        results.append(tmp_path / "file", record())
