"""If these fail, broken pictures go unnoticed, whole ones are called broken, or an interrupted look starts again."""

import hashlib
import threading
import time

import numpy as np
import pytest

from data import examination
from data.conversion import to_png
from data.examination import examine, find, in_order
from data.findings import FACTS, Findings, duplicates, summary
from data.sources import ArraySource, FileSource, Split, open_dataset
from tests.data.pictures import encoded, example, smooth, write_folder, write_records
from tests.data.strange_pictures import HEIGHT, WIDTH, bad, convertible, readable, write_all


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """By name: what is said of each strange picture."""
    root = tmp_path_factory.mktemp("strange")
    names = write_all(root / "train")
    split = open_dataset(f"folder:{root}").train
    return dict(zip(names, examine(split, workers=2), strict=True))


@pytest.mark.parametrize("name", readable())
def test_what_tensorflow_reads_is_read_whatever_it_is_called(strange, name):
    data, form = readable()[name]
    seen = strange[name]
    assert seen.problem is None and not seen.convertible
    assert seen.format == form and seen.size == len(data) and seen.sha256 == hashlib.sha256(data).digest()
    assert (seen.height, seen.width) == ((256, 256) if name == "deep.png" else (HEIGHT, WIDTH))  # as stored
    assert seen.orientation == (6 if name == "turned.jpg" else 1)
    assert seen.gray == (name in ("gray.jpg", "deep.png"))


@pytest.mark.parametrize("name", convertible())
def test_what_pillow_alone_reads_is_convertible_to_the_same_pixels(strange, name):
    import tensorflow as tf

    data, pixels = convertible()[name]
    assert strange[name].problem and strange[name].convertible
    png, height, width = to_png(data)
    assert (height, width) == pixels.shape[:2]
    assert np.array_equal(tf.io.decode_png(png, channels=3), pixels)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", bad())
def test_what_nobody_reads_is_bad_and_the_reason_is_told(strange, name):
    data, word = bad()[name]
    assert word in strange[name].problem and not strange[name].convertible
    assert strange[name].sha256 == hashlib.sha256(data).digest()
    assert to_png(data) is None


def test_a_missing_file_is_a_bad_picture(tmp_path):
    (tmp_path / "here.png").write_bytes(encoded(smooth(0, 9, 9)))
    split = Split(
        "s", "train", "photo", np.zeros(3, np.int64), FileSource(str(tmp_path), ["a.png", "here.png", "b.png"])
    )
    gone, here, gone_too = examine(split)
    assert here.problem is None
    assert "No such file" in gone.problem and "No such file" in gone_too.problem and not gone.convertible


def test_the_end_of_a_file_may_be_zeros(tmp_path):
    data = encoded(np.zeros([8, 8, 3], np.uint8), "bmp")  # NumPy's byte strings would lose them
    (tmp_path / "a.bmp").write_bytes(data)
    (seen,) = examine(open_dataset(f"folder:{tmp_path}").train)
    assert seen.problem is None and seen.size == len(data)


def test_a_record_with_a_wrong_checksum_is_bad_even_where_it_could_be_decoded(tmp_path):
    png = encoded(smooth(0, 20, 20), "bmp")
    write_records(tmp_path / "train-0", [example(image__encoded=png, image__index=i) for i in range(3)])
    data = bytearray((tmp_path / "train-0").read_bytes())
    data[len(data) // 2] ^= 1  # one bit of a pixel of the second
    (tmp_path / "train-0").write_bytes(bytes(data))
    first, second, third = examine(open_dataset(f"tfrecord:{tmp_path}/train-0").train)
    assert first.problem is None and third.problem is None
    assert "checksum" in second.problem and not second.convertible


def test_arrays_have_no_problems():
    pixels = np.stack([np.full([4, 6, 3], 7), smooth(0, 4, 6)]).astype(np.uint8)
    gray, colour = examine(Split("s", "train", "digits", np.zeros(2, np.int64), ArraySource(pixels, "s")))
    assert gray.problem is None and (gray.height, gray.width, gray.gray) == (4, 6, True)
    assert not colour.gray and colour.sha256 == hashlib.sha256(pixels[1].tobytes()).digest()


def test_results_do_not_depend_on_the_number_of_threads(tmp_path):
    write_folder(tmp_path, count=30)
    (tmp_path / "ant" / "7.png").write_bytes(b"words")
    split = open_dataset(f"folder:{tmp_path}").train
    one, many = list(examine(split, workers=1)), list(examine(split, workers=7))
    assert one == many and len(one) == 60
    assert [row for row, seen in enumerate(one) if seen.problem] == [split.names.index("ant/7.png")]


def test_in_order_keeps_the_order_and_runs_little_ahead():
    started, lock = set(), threading.Lock()

    def slow_at_first(item):
        with lock:
            started.add(item)
        time.sleep(0.02 if item % 5 == 0 else 0)
        return item * item

    for place, result in enumerate(in_order(slow_at_first, range(200), workers=4)):
        assert result == place**2
        time.sleep(0.05 if place == 10 else 0)  # time for the threads to run away
        assert len(started) <= place + 20
    assert place == 199


def test_in_order_passes_on_what_is_raised_and_ends():
    before = threading.active_count()
    results = in_order(lambda item: 1 // (5 - item), range(1000), workers=3)
    with pytest.raises(ZeroDivisionError):
        list(results)
    assert threading.active_count() == before


def test_an_interrupted_examination_goes_on_from_the_last_block(tmp_path, monkeypatch):
    monkeypatch.setattr(examination, "BLOCK", 32)
    write_folder(tmp_path / "pictures", count=50)
    (tmp_path / "pictures" / "ant" / "10.png").write_bytes(b"words")
    split = open_dataset(f"folder:{tmp_path}/pictures").train
    whole = find(split, workers=2)
    read, looked_at = split.source.read, []

    def read_until(row):
        looked_at.append(row)
        if row == 90:
            raise KeyboardInterrupt
        return read(row)

    monkeypatch.setattr(split.source, "read", read_until)
    (tmp_path / "kept").mkdir()
    with pytest.raises(KeyboardInterrupt):
        find(split, workers=2, folder=str(tmp_path / "kept"))
    looked_at.clear()
    monkeypatch.setattr(split.source, "read", lambda row: looked_at.append(row) or read(row))
    resumed = find(split, workers=2, folder=str(tmp_path / "kept"))
    assert sorted(looked_at) == list(range(64, 100))
    assert np.array_equal(resumed.facts, whole.facts) and resumed.problems == whole.problems
    assert len(whole.problems) == 1
    looked_at.clear()
    again = find(split, workers=2, folder=str(tmp_path / "kept"))
    assert looked_at == [] and np.array_equal(again.facts, whole.facts) and again.problems == whole.problems


def findings(*pictures, problems=()):
    """Findings of pictures given by a letter each: the same letter, the same bytes."""
    facts = np.zeros(len(pictures), FACTS)
    for row, letter in enumerate(pictures):
        facts[row] = (
            hashlib.sha256(letter.encode()).digest(),
            100,
            20 + row,
            30,
            "jpeg",
            1 + (letter == "r"),
            row == 0,
            0,
        )
    return Findings(facts, dict.fromkeys(problems, "is broken"))


def test_duplicates_are_found_within_and_across_splits():
    train, test = findings("a", "b", "a", "c", "d", problems=[4]), findings("x", "c", "d", "c")
    assert duplicates([train, test]) == [[(0, 0), (0, 2)], [(0, 3), (1, 1), (1, 3)]]
    assert duplicates([findings("a", "b")]) == []


def test_the_summary_counts_what_can_be_decoded():
    labels = np.array([1, 0, 1, -1, 1])
    split = Split("s", "train", "photo", labels, FileSource("", [""] * 5))
    assert summary(split, ("ant", "bee"), findings("a", "r", "r", "a", "a", problems=[4])) == {
        "images": 5,
        "bad": 1,
        "convertible": 0,
        "labelled": 4,
        "classes": 2,
        "least": ["ant", 1],
        "most": ["bee", 3],
        "formats": {"jpeg": 4},
        "height": [20, 23],
        "width": [30, 30],
        "exif_rotated": 2,
        "gray": 1,
        "bytes": 400,
    }
