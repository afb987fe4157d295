"""If these fail, a user is not told which file to mend, or a script goes on with a set that is broken."""

import json

from tests.data.voc_folders import some_pictures, write_devkit
from tests.programs import run


def checked(*flags):
    process = run("detection.check", *flags)
    assert "Traceback" not in process.stderr, process.stderr
    return process, json.loads(process.stdout.splitlines()[-1]) if process.stdout else None


def test_a_good_set_ends_with_0_and_its_numbers(tmp_path):
    write_devkit(
        tmp_path,
        {
            "2007_train": {"a": [("cat", (1, 1, 9, 9)), ("dog", (1, 1, 9, 9), True)], "b": [("cat", (5, 5, 9, 9))]},
            "2007_val": {"c": []},
        },
    )
    process, result = checked(f"--devkit={tmp_path}", "--sets=2007_train,2007_val")
    assert process.returncode == 0, process.stderr
    train, val = result["sets"]["2007_train"], result["sets"]["2007_val"]
    assert (train["pictures"], train["objects"], train["difficult"]) == (2, 3, 1)
    assert (train["classes"]["cat"], train["classes"]["dog"], len(train["classes"])) == (2, 0, 20)
    assert (train["defects"], val["defects"], result["stops"]) == ({}, {"no objects": 1}, 0)
    assert "2007_train: 2 pictures, 3 objects (1 of them difficult) of 1 classes; without any: aero" in process.stderr


def test_a_broken_set_ends_with_1_and_its_numbers(tmp_path):
    """Without --sets those of a training's own flags are looked at."""
    pictures = some_pictures(3) | {"broken": [("bee", (0, 1, 5, 5)), ("ant", (5, 5, 4, 9))]}
    write_devkit(tmp_path, {"train": pictures, "val": some_pictures(1, seed=1)})
    (tmp_path / "classes.txt").write_text("ant\ncat\ndog\n")
    flags = f"--devkit={tmp_path}", "--train_set=train", f"--classes_file={tmp_path}/classes.txt"
    process, result = checked(*flags)
    assert process.returncode == 1 and result["stops"] == 3
    assert result["sets"]["train"]["defects"] == {"unknown class": 1, "origin": 1, "flipped": 1}
    assert process.stderr.count(f"{tmp_path}/Annotations/broken.xml  object 1 (bee)") == 2
    assert list(result["sets"]) == ["train"]
    assert list(checked(*flags, "--val_set=val")[1]["sets"]) == ["train", "val"]
    (tmp_path / "Annotations" / "broken.xml").unlink()
    assert checked(*flags)[1]["sets"]["train"]["defects"] == {"no annotation": 1}


def test_flags_that_are_wrong_end_with_2(tmp_path):
    for flags, part in (
        ([f"--devkit={tmp_path}/none"], f"--devkit={tmp_path}/none: there is no such folder"),
        ([], "--devkit"),
        ([f"--devkit={tmp_path}", "--sets=a,a"], "--sets=a,a: a set is named twice"),
        ([f"--devkit={tmp_path}", "--box_origin=2"], "--box_origin=2"),
    ):
        process, result = checked(*flags)
        assert (process.returncode, result) == (2, None)
        (line,) = process.stderr.splitlines()
        assert line.startswith("error: ") and part in line
