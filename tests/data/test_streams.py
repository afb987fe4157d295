"""If these fail, a long stream of records eats memory, damage costs more than the damaged pictures, or a run read by
other workers, by other readers or from another step sees other pictures."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from data import reading
from data.augmentation import Augmentation, augmentation_for
from data.pipeline import evaluation_batches, training_batches
from data.sources import open_dataset
from tests.data.pictures import encoded, example, write_folder, write_records
from tests.data.strange_pictures import bad, convertible, write_all
from tests.data.test_build_tfrecords import built
from tests.programs import ROOT, environment

# -- record files of pictures that tell by their colour which they are ------------------------------------------------

COUNT, SHARDS, CLASSES = 1000, 4, 7
PLAIN = Augmentation(16, crop_min_area=0.3, flip=True)  # leaves the colour as it is


def coloured(number, widths=(20, 22)):
    """A JPEG of one colour that tells `number`, 0 to 999, of one of two sizes: such pictures are not kept in memory."""
    colour = [12 + 25 * int(digit) for digit in f"{number:03d}"]
    return encoded(np.full((20, widths[number % 2], 3), colour, np.uint8), "jpeg", quality=95)


def numbers_of(views):
    """The numbers that views [B, S, S, 3] tell, [B]."""
    digits = np.round((255 * np.mean(views, axis=(1, 2)) - 12) / 25)
    return (digits @ [100, 10, 1]).astype(int)


def write_own(folder, widths):
    """As data.build_tfrecords makes them, of a folder."""
    for number in range(COUNT):
        place = folder / "pictures" / "train" / f"c{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.JPEG").write_bytes(coloured(number, widths))
    built(f"folder:{folder}/pictures", folder / "records", shards=SHARDS)


def write_foreign(folder, widths, fields):
    """As others make them: `fields(number, picture)` of each record, and no description beside the files."""
    (folder / "records").mkdir(parents=True)
    for shard in range(SHARDS):
        numbers = range(COUNT * shard // SHARDS, COUNT * (shard + 1) // SHARDS)
        examples = [example(**fields(number, coloured(number, widths))) for number in numbers]
        write_records(folder / "records" / f"train-{shard:05d}-of-{SHARDS:05d}", examples)


def write_tfds(folder, widths):
    write_foreign(
        folder, widths, lambda i, picture: {"image": picture, "label": i % CLASSES, "file_name": b"n_%d.JPEG" % i}
    )


def write_classic(folder, widths):
    """As TensorFlow's ImageNet script does: classes count from 1."""

    def fields(i, picture):
        names = {"image__class__synset": b"n01440764", "image__class__text": b"tench", "image__filename": b"n_%d" % i}
        sizes = {"image__height": 20, "image__width": widths[i % 2], "image__channels": 3}
        return {"image__encoded": picture, "image__class__label": i % CLASSES + 1, **names, **sizes}

    write_foreign(folder, widths, fields)


WRITERS = {"own": write_own, "tfds": write_tfds, "classic": write_classic}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A function from who wrote the records, and the two widths of their pictures, to their folder, which is kept."""
    made = {}

    def folder(writer, widths=(20, 22)):
        if (writer, widths) not in made:
            made[writer, widths] = tmp_path_factory.mktemp(writer)
            WRITERS[writer](made[writer, widths], widths)
        return made[writer, widths] / "records"

    return folder


def opened(folder):
    return open_dataset(f"tfrecord:{folder}").train


def numbers_by_row(split):
    number = {coloured(i, widths): i for i in range(COUNT) for widths in ((20, 22), (20, 20))}
    return np.array([number[split.source.read(row)] for row in range(split.size)])


def positions(data):
    """Where the records of a file begin, and its end."""
    found = [0]
    while found[-1] < len(data):
        found.append(found[-1] + 16 + int.from_bytes(data[found[-1] :][:8], "little"))
    return found


# What happens to records of each shard: {record: kind of damage}.
DAMAGE = [
    {3: "cut picture", 100: "picture", 101: "header", 140: "name"},
    {0: "header", 60: "length", 249: "checksum"},
    {17: "cut picture"},
    {124: "length", 249: "cut file"},
]
DAMAGED = sorted(250 * shard + record for shard, damage in enumerate(DAMAGE) for record in damage)


def cut_picture(serialized):
    """An Example whose picture lost its end before it was written: as a record it is whole."""
    message = tf.train.Example.FromString(serialized)
    name = next(name for name in ("image/encoded", "image") if name in message.features.feature)
    (value,) = message.features.feature[name].bytes_list.value
    message.features.feature[name].bytes_list.value[0] = value[: len(value) // 2]
    return message.SerializeToString()


def spoil(path, damage):
    """Damages records of a file, {record: kind}."""
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    for record, kind in damage.items():
        if kind == "cut picture":
            records[record] = cut_picture(records[record])
    write_records(path, records)
    data = bytearray(path.read_bytes())
    begins = positions(data)
    for record, kind in damage.items():
        begin, end = begins[record], begins[record + 1]
        if kind == "name":  # of the field that holds the picture: listing stumbles over it
            data[data.index(b"image", begin)] ^= 1
        elif kind != "cut picture" and kind != "cut file":
            place = {"header": begin + 9, "length": begin + 1, "picture": data.index(b"\xff\xd8", begin) + 300}
            data[place.get(kind, end - 2)] ^= 16
    if "cut file" in damage.values():
        del data[-200:]
    path.write_bytes(data)


def spoilt(source, folder, index):
    """A copy of the records, of which a hundredth is damaged; returns what was in each row.

    `index`: "none", the records were never listed before; "older", they were listed while they were whole; "trusted",
    the damage came unnoticed, as by a failing disk, and a file of the same size looks unchanged.
    """
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(".la_tf-*"))
    numbers = numbers_by_row(opened(folder))
    for path, damage in zip(sorted(folder.glob("train-*")), DAMAGE, strict=True):
        status = os.stat(path)
        spoil(path, damage)
        if index == "trusted":
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    if index == "none":
        next(folder.glob(".la_tf-*")).unlink()
    return numbers


def check_epoch(split, numbers, batch_size=50, **options):
    """Goes through one epoch and checks that it lacks the damaged records and nothing else."""
    seen, lost = [], []
    batches = training_batches(split, PLAIN, batch_size, seed=1, **options)
    for batch in batches.take(COUNT // batch_size).as_numpy_iterator():
        valid, shown = batch["valid"], numbers_of(batch["image"])
        assert np.array_equal(shown[valid], numbers[batch["index"][valid]])
        assert np.array_equal(batch["label"][valid], shown[valid] % CLASSES)
        assert set(shown[~valid]) <= set(shown[valid])  # copies stand in
        seen += batch["index"].tolist()
        lost += batch["index"][~valid].tolist()
    assert sorted(seen) == list(range(COUNT))
    assert sorted(lost) == DAMAGED


QUICK = {("own", "none"), ("classic", "trusted")}
CASES = [
    pytest.param(writer, index, marks=() if (writer, index) in QUICK else pytest.mark.slow)
    for writer in WRITERS
    for index in ("none", "older", "trusted")
]


@pytest.mark.parametrize(("writer", "index"), CASES)
def test_damaged_records_cost_an_epoch_themselves_and_nothing_else(recorded, tmp_path, writer, index):
    numbers = spoilt(recorded(writer), tmp_path / "spoilt", index)
    split = opened(tmp_path / "spoilt")
    assert split.size == COUNT and len(DAMAGED) == COUNT // 100
    check_epoch(split, numbers)


@pytest.mark.parametrize("memory", [2**30, pytest.param(0, marks=pytest.mark.slow)])
def test_damaged_records_of_pictures_of_one_size(recorded, tmp_path, monkeypatch, memory):
    """Which are kept decoded where there is room."""
    monkeypatch.setattr(reading, "MEMORY", memory)
    numbers = spoilt(recorded("tfds", (20, 20)), tmp_path / "spoilt", "older")
    check_epoch(opened(tmp_path / "spoilt"), numbers)


def test_a_flipped_bit_costs_its_record_and_no_other(recorded, tmp_path):
    """Wherever in the record it is: in a header, a name, a label, a picture, a checksum."""
    data = (recorded("own") / f"train-00000-of-{SHARDS:05d}").read_bytes()
    begins = positions(data)[:7]
    data, path = data[: begins[6]], tmp_path / "train-0"
    path.write_bytes(data)
    whole = opened(tmp_path)
    pictures = [whole.source.read(row) for row in range(6)]
    for place in range(begins[2], begins[3], 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        next(tmp_path.glob(".la_tf-*")).unlink()
        split = opened(tmp_path)
        assert split.size == 6 and reading.problem(split, 2) is not None, place
        for row in (0, 1, 3, 4, 5):
            assert (split.labels[row], split.source.read(row)) == (whole.labels[row], pictures[row]), place


# -- one picture, whoever reads it ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of 51 pictures of all sizes and formats, 11 of which TensorFlow does not read."""
    root = tmp_path_factory.mktemp("folder")
    write_folder(root / "train", count=8, size=(70, 90), extension="jpg")
    write_folder(root / "train", count=8, classes=("bee", "cat"), size=(30, 40))
    write_all(root / "train" / "cat")
    return root


@pytest.fixture(scope="module")
def own_records(folder, tmp_path_factory):
    """That folder as records, two of which were damaged later."""
    out = tmp_path_factory.mktemp("built") / "out"
    assert built(f"folder:{folder}", out, shards=3)["bad"] == len(bad())
    spoil(sorted(out.glob("train-*"))[1], {2: "picture", 5: "header"})
    return out


@pytest.fixture(params=["digits", "folder", "records"])
def split_and_size(request, folder, own_records):
    spec, size = {
        "digits": ("digits", 16),
        "folder": (f"folder:{folder}", 40),
        "records": (f"tfrecord:{own_records}", 40),
    }[request.param]
    return open_dataset(spec).train, size


def assert_same(got, expected):
    """Bit for bit."""
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.keys() == b.keys() == {"image", "index", "label", "valid"}
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_workers_and_the_step_of_a_resume_change_no_bit(split_and_size):
    """With all that colour and crops do, and with pictures that stand in for broken ones."""
    split, size = split_and_size
    batch_size = split.size // 10
    view = augmentation_for(split.kind, size)

    def batches(first_step, **options):
        stream = training_batches(split, view, batch_size, 5, first_step, **options)
        return list(stream.take(13 - first_step).as_numpy_iterator())

    whole = batches(0)
    assert split.kind == "digits" or not all(batch["valid"].all() for batch in whole)
    assert_same(batches(0, workers=1), whole)
    assert_same(batches(7, workers=5), whole[7:])  # of an epoch of 10


def test_records_show_what_the_files_they_were_built_from_show(folder, own_records):
    def views(split):
        """{bytes of the file and its label: view} of the pictures that can be read, and how many cannot."""
        (batch,) = evaluation_batches(split, 40, split.size).as_numpy_iterator()
        rows = np.flatnonzero(batch["valid"])
        found = {(split.source.read(row), batch["label"][row]): batch["image"][row] for row in rows}
        return found, split.size - len(rows)

    of_files, unread = views(open_dataset(f"folder:{folder}").train)
    of_records, damaged = views(opened(own_records))
    assert (unread, damaged) == (len(bad()) + len(convertible()), 2)
    both = of_files.keys() & of_records.keys()
    assert len(both) >= len(of_files) - 2
    for picture in both:
        np.testing.assert_array_equal(of_records[picture], of_files[picture])


# -- a part of each batch for each of several machines ----------------------------------------------------------------


@pytest.fixture(scope="module")
def eight_shards(tmp_path_factory):
    """240 records in 8 files, 3 of them damaged."""
    root = tmp_path_factory.mktemp("eight")
    for shard in range(8):
        numbers = range(30 * shard, 30 * shard + 30)
        examples = [example(image__encoded=coloured(i), image__class__label=i % CLASSES) for i in numbers]
        write_records(root / f"train-{shard}", examples)
    spoil(root / "train-2", {0: "header", 17: "picture"})
    spoil(root / "train-7", {29: "cut file"})
    return root


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_machines_that_share_the_records_see_each_once_an_epoch(eight_shards, count):
    split = opened(eight_shards)

    def epochs(**options):
        """Two, of 20 steps each."""
        view = augmentation_for("photo", 16)
        return list(training_batches(split, view, 12, 4, **options).take(40).as_numpy_iterator())

    whole = {key: np.concatenate(parts) for key, parts in columns(epochs()).items()}
    parts = [columns(epochs(shard=(part, count))) for part in range(count)]
    joined = {key: np.concatenate([part[key] for part in parts], axis=1) for key in whole}
    joined = {key: values.reshape(whole[key].shape) for key, values in joined.items()}
    for key in ("index", "label", "valid"):
        np.testing.assert_array_equal(joined[key], whole[key])
    # But for what a picture's place in the batch does to the last bit of a number; for a damaged picture another
    # of the part stands in.
    valid = whole["valid"]
    np.testing.assert_allclose(joined["image"][valid], whole["image"][valid], atol=1e-6)
    for index, fine in zip(np.split(joined["index"], 2), np.split(valid, 2), strict=True):
        assert sorted(index) == list(range(240)) and sorted(index[~fine]) == [60, 77, 239]


def columns(batches):
    """Batches as {key: [steps, B, ...]}."""
    return {key: np.stack([batch[key] for batch in batches]) for key in batches[0]}


# -- a million pictures go by -----------------------------------------------------------------------------------------

STREAM = """
import sys
from data import reading
from data.augmentation import augmentation_for
from data.pipeline import training_batches
from data.sources import open_dataset

def resident():
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024  # MB

reading.MEMORY = 0
split = open_dataset(f"tfrecord:{sys.argv[1]}").train
seen, bad, first, most = 0, 0, None, 0
for batch in training_batches(split, augmentation_for("photo", 16), 100, seed=0).take(split.size // 100):
    seen += 100
    bad += 100 - int(batch["valid"].numpy().sum())
    if seen % 5000 == 0:
        first = first or resident()
        most = max(most, resident())
print(seen, bad, most - first)
"""


@pytest.mark.slow
@pytest.mark.parametrize("widths", [(20, 22), (20, 20)])
def test_a_long_stream_of_records_takes_no_more_memory_than_a_short_one(tmp_path, widths):
    """100,000 pictures, a hundredth cut short; decoded one at a time, or whole as there is no memory to keep them."""
    examples = [example(image__encoded=coloured(20 * i + i % 2, widths), image__class__label=i) for i in range(50)]
    for shard in range(8):
        records = [examples[i % 50] for i in range(12_500)]
        records[::100] = [cut_picture(record) for record in records[::100]]
        write_records(tmp_path / f"train-{shard}", records)
    process = subprocess.run(
        [sys.executable, "-c", STREAM, str(tmp_path)], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    seen, damaged, growth = process.stdout.split()
    assert (int(seen), int(damaged)) == (100_000, 1000)
    assert float(growth) < 100  # MB
