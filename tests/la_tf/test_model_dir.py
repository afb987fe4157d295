"""What makes a folder the folder of one run, and metrics.jsonl across kills and resumes."""

import json
import subprocess
import sys

import pytest

from data.errors import UserError
from la_tf import model_dir
from la_tf.model_dir import MetricsFile
from tests.programs import ROOT

IDENTITY = {"tau": 0.07, "method": "la", "drop_epochs": [160, 190], "image_size": None}


def claim(folder, identity=IDENTITY, circumstances=None, **options):
    model_dir.claim(folder, identity, circumstances or {"epochs": 3}, {"numpy": "2"}, **options)


def test_a_new_folder_gets_identity_circumstances_and_versions(tmp_path):
    claim(tmp_path / "deep" / "run")
    written = model_dir.read_json(tmp_path / "deep" / "run" / "config.json")
    assert written == {"identity": IDENTITY, "circumstances": {"epochs": 3}, "versions": {"numpy": "2"}}


def test_the_same_run_claims_its_folder_again_and_new_circumstances_replace_the_old(tmp_path):
    claim(tmp_path)
    claim(tmp_path, circumstances={"epochs": 9, "workers": 2})
    assert model_dir.read_json(tmp_path / "config.json")["circumstances"] == {"epochs": 9, "workers": 2}


def test_a_conflict_names_every_key_that_differs_with_both_values_and_no_other(tmp_path):
    claim(tmp_path)
    other = {**IDENTITY, "tau": 0.2, "method": "ir", "extra": 1}
    with pytest.raises(UserError) as caught:
        claim(tmp_path, other)
    message = str(caught.value)
    assert message.startswith(f"--model_dir={tmp_path}: ") and "\n" not in message
    for part in ("tau 0.07 there, 0.2 here", "method 'la' there, 'ir' here", "extra None there, 1 here"):
        assert part in message
    assert "drop_epochs" not in message and "image_size" not in message
    assert model_dir.read_json(tmp_path / "config.json")["identity"] == IDENTITY, "a refused run changed the folder"


def test_a_flag_that_did_not_exist_then_and_is_unset_now_is_no_conflict(tmp_path):
    claim(tmp_path)
    claim(tmp_path, {**IDENTITY, "new_flag": None})


def test_a_run_of_before_a_flag_existed_has_had_its_default(tmp_path):
    defaults = {"tau": 0.07, "background": "knn"}  # and one that follows from N has none
    claim(tmp_path)
    claim(tmp_path, {**IDENTITY, "background": "knn", "close_k": 42}, defaults=defaults)
    other = tmp_path / "other"
    claim(other)
    with pytest.raises(UserError, match="background 'knn' there, 'all' here"):
        claim(other, {**IDENTITY, "background": "all"}, defaults=defaults)


def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"no config\.json"):
        claim(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ['{"model_type": "bert"}', "[]"])
def test_another_programs_config_is_refused_and_left_alone(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json: (was not written by la_tf|is damaged .it is no object)"):
        claim(tmp_path)
    assert (tmp_path / "config.json").read_text() == content


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"identity": ')
    with pytest.raises(UserError, match=r"config\.json: is damaged \("):
        claim(tmp_path)


def test_a_file_where_the_folder_should_be_is_said(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        claim(tmp_path / "run")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    model_dir.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        model_dir.write_json(path, {"a": object()})
    assert model_dir.read_json(path) == {"a": 1}


def test_a_folder_in_which_a_process_trains_is_closed_to_others_until_it_ends(tmp_path):
    with model_dir.locked(tmp_path):
        with pytest.raises(UserError, match=f"{tmp_path}: another process"), model_dir.locked(tmp_path):
            pass
        claim(tmp_path)  # the lock does not make the folder look used
    with model_dir.locked(tmp_path):
        pass


def test_a_process_that_was_killed_holds_no_lock(tmp_path):
    hold = f"with model_dir.locked({str(tmp_path)!r}):\n    print(1, flush=True)\n    input()"
    script = f"from la_tf import model_dir\n{hold}"
    holder = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        holder.stdout.readline()
        assert model_dir.is_locked(tmp_path)
        with pytest.raises(UserError, match="another process is training there"), model_dir.locked(tmp_path):
            pass
        holder.kill()
    assert not model_dir.is_locked(tmp_path)
    with model_dir.locked(tmp_path):
        pass
    assert not model_dir.is_locked(tmp_path / "nothing")


def metrics(folder, *steps):
    file = MetricsFile(folder)
    for step in steps:
        file.append({"step": step, "loss": step / 10})
    return file


def test_lines_after_the_checkpoint_are_cut_off(tmp_path):
    file = metrics(tmp_path, 10, 20, 30)
    file.cut(20)
    assert [record["step"] for record in file.read()] == [10, 20]
    file.append({"step": 30})
    assert [json.loads(line)["step"] for line in file.path.read_text().splitlines()] == [10, 20, 30]


def test_a_line_torn_by_a_kill_is_passed_over_and_gone_after_the_cut(tmp_path):
    file = metrics(tmp_path, 10, 20)
    with open(file.path, "a") as torn:
        torn.write('{"step": 25, "lo')
    assert [record["step"] for record in file.read()] == [10, 20]
    file.cut(20)
    file.append({"step": 30})
    assert [record["step"] for record in file.read()] == [10, 20, 30]


def test_a_run_without_metrics_has_none_to_read_or_cut(tmp_path):
    file = MetricsFile(tmp_path)
    file.cut(5)
    assert file.read() == [] and not file.path.exists()
    file.append({"step": 1})
    file.cut(0)
    assert file.read() == []
