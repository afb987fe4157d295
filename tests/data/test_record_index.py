"""If these fail, damage to a record file moves or loses pictures that are intact, or a set is listed at every start."""

import functools
import json
import os
import shutil
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data import record_frames, record_index
from data.errors import UserError
from data.record_frames import frames, length_crc
from data.record_index import list_shards
from tests.data.pictures import example, write_records

COUNT = 20


def masked_crc(data):
    """CRC-32C bit by bit as RFC 3720 defines it, masked as the TFRecord format does."""
    crc = 0xFFFFFFFF
    for bit in (byte >> i & 1 for byte in data for i in range(8)):
        crc = crc >> 1 ^ (0x82F63B78 if (crc ^ bit) & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def picture(i, size=None):
    """Bytes that stand for picture i; random ones hold no zeros in a row that a search could stumble over."""
    generator = np.random.default_rng(i)
    return generator.bytes(size or int(generator.integers(500, 1500)))


def records(count=COUNT, first=0, **extra):
    return [
        example(image__encoded=picture(i), image__class__label=i % 7, **{name: i for name in extra})
        for i in range(first, first + count)
    ]


@functools.cache
def intact():
    """The bytes of a file of 20 records, and (begin, end) of each."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_records(f"{folder}/a", records())
        with open(f"{folder}/a", "rb") as file:
            data = file.read()
    ends = np.cumsum([16 + len(record) for record in records()]).tolist()
    assert ends[-1] == len(data)
    return data, list(zip([0, *ends[:-1]], ends, strict=True))


def positions():
    return [begin for begin, _ in intact()[1]]


@settings(max_examples=200, deadline=None)
@given(length=st.integers(0, 2**31 - 1))
def test_the_header_crc_is_that_of_the_format(length):
    assert length_crc(length) == masked_crc(struct.pack("<Q", length))


def test_the_header_crc_is_what_tensorflow_writes():
    data, spans = intact()
    for begin, end in spans:
        assert struct.unpack_from("<QI", data, begin) == (end - begin - 16, length_crc(end - begin - 16))
    assert frames(data) == spans


def overwritten(data, begin, stretch):
    return data[:begin] + stretch[: len(data) - begin] + data[begin + len(stretch) :]


stretches = st.one_of(st.integers(1, 6000).map(bytes), st.binary(min_size=1, max_size=40))


@settings(max_examples=150, deadline=None)
@given(damages=st.lists(st.tuples(st.integers(0, 20000), stretches), min_size=1, max_size=3))
def test_overwritten_stretches_cost_only_the_records_whose_headers_they_hit(damages):
    data, spans = intact()
    damaged = data
    for begin, stretch in damages:
        damaged = overwritten(damaged, begin % len(data), stretch)
    whole = [damaged[begin : begin + 12] == data[begin : begin + 12] for begin, _ in spans]
    # An earlier listing tells everything.
    expected = [(begin, end if fine else None) for (begin, end), fine in zip(spans, whole, strict=True)]
    assert frames(damaged, positions()) == expected
    # The number of records alone: nothing that a search can tell to be a record is lost, and the number is right.
    found = frames(damaged, (), COUNT)
    assert len(found) == COUNT
    untouched = {span for span in spans if damaged[slice(*span)] == data[slice(*span)]}
    assert untouched <= set(found) <= set(spans) | {(begin, None) for begin, _ in found}
    # Neither: a stretch is one lost record at least.
    alone = frames(damaged)
    assert untouched <= set(alone) and len(alone) <= COUNT and (None in dict(alone).values()) == (not all(whole))


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, 20000))
def test_a_file_that_was_cut_short_keeps_its_count(cut):
    data, spans = intact()
    cut %= len(data)
    expected = [(begin, end if end <= cut else None) for begin, end in spans]
    assert frames(data[:cut], positions()) == expected
    ends = [end for _, end in expected]
    assert [end for _, end in frames(data[:cut], (), COUNT)] == ends
    whole = [span for span in spans if span[1] <= cut]
    boundary = cut in {0, *(end for _, end in spans)}
    assert [end for _, end in frames(data[:cut])] == ends[: len(whole) + (not boundary)]


@settings(max_examples=150, deadline=None)
@given(begin=st.integers(0, 20000), length=st.integers(1, 5000), known=st.booleans())
def test_what_follows_missing_bytes_is_found(begin, length, known):
    data, spans = intact()
    begin %= len(data)
    damaged = data[:begin] + data[begin + length :]
    length = len(data) - len(damaged)
    sums = {later_end - first_begin for first_begin, _ in spans for _, later_end in spans}
    assume(length not in sums)  # as many bytes as some records take put the next ones into their places: no gap shows
    before = [span for span in spans if span[1] <= begin]
    after = [(a - length, b - length) for a, b in spans if a >= begin + length]
    found = frames(damaged, positions(), None) if known else frames(damaged, (), COUNT)
    assert len(found) == COUNT
    assert found[: len(before)] == before
    assert [span for span in found if span in after] == after
    assert found[len(found) - len(after) :] == after, "the lost records stand where they were"


def test_a_record_that_comes_to_lie_at_a_known_position_is_not_taken_for_the_known_one():
    data, spans = intact()
    length = spans[12][0] - spans[8][0]  # missing in record 2: record 12 lies where 8 was
    damaged = data[: spans[2][0] + 100] + data[spans[2][0] + 100 + length :]
    after = [(begin - length, end - length) for begin, end in spans if begin >= spans[2][0] + 100 + length]
    assert spans[8][0] in dict(after) and spans[8] not in after
    found = frames(damaged, positions())
    assert found[:2] == spans[:2] and found[-len(after) :] == after and len(found) == COUNT


def test_lost_records_are_shared_out_by_the_width_of_the_gaps():
    data, spans = intact()
    damaged = overwritten(data, spans[3][0] + 4, b"\xff")
    damaged = overwritten(damaged, spans[8][0] + 4, b"\xff" * 5000)
    lost = {3} | {i for i, (begin, _) in enumerate(spans) if 0 <= begin - spans[8][0] < 5000}
    assert len(lost) >= 5
    assert {i for i, (_, end) in enumerate(frames(damaged, (), COUNT)) if end is None} == lost


def test_fewer_records_of_the_same_sizes_are_no_damage_where_the_count_says_so():
    data, spans = intact()
    shorter = data[: spans[14][1]]
    assert frames(shorter, positions(), 15) == spans[:15]
    assert len(frames(shorter, positions())) == COUNT


@pytest.mark.parametrize("window", [1, 50, 1000])
def test_headers_are_found_across_the_windows_of_a_search(monkeypatch, window):
    monkeypatch.setattr(record_frames, "_WINDOW", window)
    data, spans = intact()
    for number in range(0, COUNT, 2):
        data = overwritten(data, spans[number][0] + 9, b"\xff")
    assert frames(data) == [(begin, end if number % 2 else None) for number, (begin, end) in enumerate(spans)]


def test_what_was_appended_is_no_record_where_the_count_is_known():
    data, spans = intact()
    assert frames(data + b"\0" * 100, (), COUNT) == spans
    assert frames(data + b"\0" * 100) == [*spans, (len(data), None)]


def test_a_record_between_two_damaged_ones_is_found():
    data, spans = intact()
    for number in (3, 5):
        data = overwritten(data, spans[number][0], b"\xff" * 8)
    assert [end is None for _, end in frames(data)] == [number in (3, 5) for number in range(COUNT)]


def test_an_empty_file_that_held_records_keeps_them():
    assert frames(b"") == [] and frames(b"", positions()) == [(begin, None) for begin in positions()]


# The index


@pytest.fixture
def folder(tmp_path):
    write_records(tmp_path / "train-0", records(10))
    write_records(tmp_path / "train-1", records(10, 10))
    return tmp_path


def listed(folder, counts=None):
    return list_shards(sorted(str(path) for path in folder.glob("train-*")), counts)


def labels(shards):
    return [shard.rows["label"].tolist() for shard in shards]


def index_of(folder):
    (path,) = folder.glob(".la_tf-*")
    return path


def replace(path, examples, keep_time):
    """Other records of the same sizes."""
    status = os.stat(path)
    write_records(path, examples)
    assert os.stat(path).st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + (0 if keep_time else 1)))


def test_a_second_opening_reads_only_the_index(folder):
    first = listed(folder)
    assert labels(first) == [[i % 7 for i in range(10)], [i % 7 for i in range(10, 20)]]
    for name in ("train-0", "train-1"):
        path = folder / name
        status = os.stat(path)
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = listed(folder)
    for old, new in zip(first, second, strict=True):
        np.testing.assert_array_equal(old.rows, new.rows)
        assert (old.problems, old.fields) == (new.problems, new.fields)


def test_only_a_file_that_changed_is_listed_anew(folder):
    listed(folder)
    others = [example(image__encoded=picture(i), image__class__label=6 - i % 7) for i in range(20)]
    replace(folder / "train-0", others[:10], keep_time=True)
    replace(folder / "train-1", others[10:], keep_time=False)
    for _ in range(2):
        assert labels(listed(folder)) == [[i % 7 for i in range(10)], [6 - i % 7 for i in range(10, 20)]]


def test_the_index_moves_with_the_files(folder, tmp_path_factory):
    listed(folder)
    moved = tmp_path_factory.mktemp("elsewhere") / "set"
    shutil.copytree(folder, moved)  # keeps the times
    replace(moved / "train-0", [example(image__encoded=picture(i), image__class__label=0) for i in range(10)], True)
    assert labels(listed(moved)) == labels(listed(folder))


def test_another_count_is_another_listing(folder):
    assert [len(shard.rows) for shard in listed(folder)] == [10, 10]
    assert [len(shard.rows) for shard in listed(folder, {str(folder / "train-1"): 12})] == [10, 12]


def test_a_count_that_is_told_later_corrects_a_guess(folder):
    path = folder / "train-0"
    data = path.read_bytes()
    first, second = listed(folder)[0].rows["position"][3:5]
    index_of(folder).unlink()
    path.write_bytes(overwritten(data, first + 9, bytes(second - first)))
    guess, _ = listed(folder)
    assert (len(guess.rows), list(guess.problems)) == (9, [3])
    told, _ = listed(folder, {str(path): 10})
    assert (len(told.rows), list(told.problems)) == (10, [3, 4])


def test_a_folder_that_cannot_be_written_has_its_index_in_the_cache(folder, tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    listed(folder)
    beside = index_of(folder)
    assert not cache.exists() or not list(cache.rglob("*.npz"))
    beside.unlink()
    beside.mkdir()  # nothing can take its name now
    first = labels(listed(folder))
    assert len(list((cache / "la_tf").iterdir())) == 1
    replace(folder / "train-0", [example(image__encoded=picture(i), image__class__label=0) for i in range(10)], True)
    assert labels(listed(folder)) == first
    assert sorted(path.name for path in folder.iterdir()) == [beside.name, "train-0", "train-1"]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"words"])
def test_a_broken_index_is_made_anew(folder, damage):
    first = labels(listed(folder))
    path = index_of(folder)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert labels(listed(folder)) == first
    assert path.read_bytes() == whole


def test_a_set_that_was_away_comes_back_as_it_was(folder):
    first = labels(listed(folder))
    good = [path.read_bytes() for path in sorted(folder.glob("train-*"))]
    for name in ("train-0", "train-1"):
        (folder / name).write_bytes(b"")
    assert [len(shard.problems) for shard in listed(folder)] == [10, 10]
    for name, data in zip(("train-0", "train-1"), good, strict=True):
        (folder / name).write_bytes(data)
    shards = listed(folder)
    assert labels(shards) == first and not any(shard.problems for shard in shards)


def test_nothing_is_written_beside_files_that_hold_no_records(tmp_path):
    (tmp_path / "train-words").write_text("dear reader, this is a letter")
    assert list(listed(tmp_path)[0].problems) == [0]
    assert [path.name for path in tmp_path.iterdir()] == ["train-words"]


def test_long_work_is_announced_and_says_where_the_index_is(folder, monkeypatch, capsys):
    listed(folder)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(record_index, "_NOTABLE", 0)
    index_of(folder).unlink()
    listed(folder)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "listed 20 records" in line]
    assert str(index_of(folder)) in line


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_compressed_files_are_refused(tmp_path, compression):
    import tensorflow as tf

    path = str(tmp_path / "train-0")
    with tf.io.TFRecordWriter(path, tf.io.TFRecordOptions(compression_type=compression)) as writer:
        for record in records(3):
            writer.write(record)
    with pytest.raises(UserError, match=r"train-0: is compressed.*data.build_tfrecords"):
        list_shards([path])


# The second is compressed: nothing.
@pytest.mark.parametrize("head", [b"\x1f\x8b\x08\0\0\0\0\0", b"\x78\x9c\x01\0\0\xff\xff\0\0\0\x01"])
def test_a_damaged_first_header_is_not_taken_for_compression(folder, head):
    path = folder / "train-0"
    path.write_bytes(overwritten(path.read_bytes(), 0, head))
    assert list(listed(folder)[0].problems) == [0]


# What damage does to a listing


def flipped(record, byte):
    def damage(data, spans):
        place = spans[record][0] + byte
        return overwritten(data, place, bytes([data[place] ^ 0x40]))

    return damage


def cut(record, byte):
    return lambda data, spans: data[: spans[record][0] + byte]


def zeroed(record, byte, length):
    return lambda data, spans: overwritten(data, spans[record][0] + byte, bytes(length))


def removed(record, byte, length):
    return lambda data, spans: data[: spans[record][0] + byte] + data[spans[record][0] + byte + length :]


# Damage to a file of 20 records, and which records a listing has to give up.
DAMAGES = {
    "length byte": (flipped(4, 0), {4}),
    "huge length": (flipped(4, 7), {4}),
    "first record": (flipped(0, 1), {0}),
    "last record": (flipped(19, 1), {19}),
    "crc byte": (flipped(4, 9), {4}),
    "data byte": (flipped(4, 300), set()),
    "last record cut": (cut(19, 200), {19}),
    "last header cut": (cut(19, 5), {19}),
    "cut in the middle": (cut(12, 100), set(range(12, 20))),
    "cut between records": (cut(12, 0), set(range(12, 20))),
    "10 kB zeroed": (zeroed(4, 6, 10000), None),
    "bytes lost": (removed(4, 100, 50), {4}),
    "header lost": (removed(4, 0, 12), {4}),
}


@pytest.mark.parametrize("helper", ["index", "count", "neither"])
@pytest.mark.parametrize("name", DAMAGES)
def test_damage_takes_only_what_it_hits(tmp_path, name, helper):
    data, spans = intact()
    damage, lost = DAMAGES[name]
    path = tmp_path / "train-0"
    path.write_bytes(data)
    before = listed(tmp_path)[0]
    if helper != "index":
        index_of(tmp_path).unlink()
    damaged = damage(data, spans)
    if lost is None:
        lost = {i for i, (begin, _) in enumerate(spans) if damaged[begin : begin + 12] != data[begin : begin + 12]}
        assert len(lost) >= 8
    path.write_bytes(damaged)
    after = listed(tmp_path, {str(path): COUNT} if helper == "count" else None)[0]
    if helper == "neither":  # a stretch counts as one record
        first = min(lost, default=COUNT)
        lost_rows = {first} & lost if name != "cut between records" else set()
        rows = [i for i in range(COUNT) if i not in lost - lost_rows]
    else:
        lost_rows, rows = lost, list(range(COUNT))
    assert set(after.problems) == lost_rows
    assert len(after.rows) == len(rows)
    shift = len(data) - len(damaged) if name in ("bytes lost", "header lost") else 0
    for row, (new, i) in enumerate(zip(after.rows, rows, strict=True)):
        if row in lost_rows:
            assert (new["label"], new["index"], new["length"]) == (-1, -1, 0)
        else:
            old = before.rows[i].copy()
            old["position"] -= shift if i > 4 else 0
            assert new == old


def test_an_index_that_knows_of_damage_serves_the_next_listing(tmp_path):
    data, spans = intact()
    path = tmp_path / "train-0"
    path.write_bytes(data)
    listed(tmp_path)
    for record in (4, 5, 9):
        data = flipped(record, 1)(data, spans)
        path.write_bytes(data)
        os.utime(path, ns=(0, record))
        shard = listed(tmp_path)[0]
        assert set(shard.problems) == {4, 5, 9} & set(range(record + 1))
        assert shard.rows["position"].tolist() == positions()


def test_an_index_holds_no_pickles(folder):
    listed(folder)
    with np.load(index_of(folder), allow_pickle=False) as archive:
        assert json.loads(bytes(archive["about"]))["shards"][0][0] == "train-0"
        assert archive["rows"].dtype.itemsize * 1_281_167 < 50e6  # ImageNet's index is read in a moment


def rewritten(folder, change=lambda about, rows: (about, rows), compressed=False):
    """Writes the index anew with what `change` makes of its two parts."""
    path = index_of(folder)
    with np.load(path) as archive:
        about, rows = json.loads(bytes(archive["about"])), archive["rows"].copy()
    about, rows = change(about, rows)
    save = np.savez_compressed if compressed else np.savez
    with open(path, "wb") as file:
        save(file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), rows=rows)


def with_rows(column, value):
    def change(about, rows):
        rows[column][3] = value
        return about, rows

    return change


def with_shard(place, value):
    def change(about, rows):
        about["shards"][0][place] = value
        return about, rows

    return change


@pytest.mark.parametrize(
    "change",
    [
        with_rows("position", -1),
        with_rows("position", 2**62),
        with_rows("position", 2**63 - 1),
        with_rows("begin", -5),
        with_rows("length", -1),  # read(-1) would be the whole rest of the file
        with_rows("length", 2**31 - 1),
        with_shard(1, True),  # no stamp
        with_shard(1, [float("inf"), 0, None]),
        with_shard(2, 10**30),
        with_shard(3, {"99": "is lost"}),
        with_shard(3, {"-1": "is lost"}),
        with_shard(3, {"x": "is lost"}),
        with_shard(4, [None]),
        lambda about, rows: ("[" * 100_000, rows),
        lambda about, rows: (about, rows[:-1]),
        lambda about, rows: (about, rows[None]),
    ],
)
def test_an_index_that_leads_out_of_its_files_is_made_anew(folder, change):
    before = [shard.rows.tolist() for shard in listed(folder)]
    rewritten(folder, change)
    again = listed(folder)
    assert [shard.rows.tolist() for shard in again] == before
    assert [shard.problems for shard in again] == [{}] * len(again)


def test_a_compressed_index_is_none_of_ours_and_not_unpacked(folder):
    before = [shard.rows.tolist() for shard in listed(folder)]
    rewritten(folder, with_rows("label", 77))
    assert [shard.rows.tolist() for shard in listed(folder)] != before  # which one could be told by
    rewritten(folder, compressed=True)
    assert [shard.rows.tolist() for shard in listed(folder)] == before


@pytest.mark.parametrize(
    "header", [b"(" * 100, b"{'descr': '<i8', 'shape': (99999999999999999999,)}", b"", b"\xff" * 30]
)
def test_an_index_whose_arrays_are_none_is_made_anew(folder, header):
    before = [shard.rows.tolist() for shard in listed(folder)]
    with zipfile.ZipFile(index_of(folder), "w") as file:
        for name in ("about.npy", "rows.npy"):
            file.writestr(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    assert [shard.rows.tolist() for shard in listed(folder)] == before


@settings(max_examples=100, deadline=None)
@given(count=st.integers(0, 300), widths=st.lists(st.integers(0, 5000), max_size=5))
def test_records_are_shared_out_one_by_one_or_not_to_the_same_end(count, widths):
    wanted = [0] * len(widths)
    for _ in range(count if widths else 0):
        averages = [max(width, 0.5) / (share + 1) for width, share in zip(widths, wanted, strict=True)]
        wanted[averages.index(max(averages))] += 1
    found = record_frames._shares(count, widths)
    assert sum(found) == sum(wanted)
    # Where averages are equal, either may have one more.
    assert all(abs(one - other) <= 1 for one, other in zip(found, wanted, strict=True))


def test_a_count_without_end_is_no_work_without_end():
    assert record_frames._shares(10**15, [1, 3]) == [10**15 // 4, 3 * 10**15 // 4]
