"""If these fail, an input that once ended in a traceback, or never ended, does so again. All were found by fuzzing."""

import pytest

from tests.fuzz.child import _outcome
from tests.fuzz.subjects import subject

DEEP = b"[" * 100_000
FOUND = {
    "shards_json": [
        DEEP,
        b'{"splits": {"train": {"shards": [{"name": "train-00000-of-00001", "count": 1e999}]}}}',
        b'{"splits": {"train": {"shards": [{"name": "train-00000-of-00001", "count": 4294967297}]}}}',
    ],
    "spec": [b"folder:\0", b"list:a\0", b"tfrecord:a\0/*"],
    "list": [b"1.jpg\0\n", b"1.jpg,\r1", b'"' + b"x" * 200_000],
    "checksums": [DEEP, b"true", b'{"/dev/zero": "a"}', b'{"../..": "a"}', b'{"\\ud800": "a"}', b'{"state.json": 5}'],
    "state": [
        DEEP,
        b"[]",
        b'{"format": [], "step": 1}',
        b'{"format": 1, "step": "1"}',
        b'{"format": 1, "step": 1, "logs": []}',
        b'{"format": 1, "step": 1, "logs": {"knn_top1": []}}',
    ],
    "arrays": [
        b"r\x93NUMPY\x01\0;\0{'descr': '|S0', 'fortran_order': False, 'shape': (-1,), }\n" + bytes(64),
        b"z",
        b"zPK",
        b"r",
        b"r\x93NUMPY\x01\0\x03\0(((",
        b"r\x93NUMPY\x01\0\x02\0\xff\xff",
    ],
    "metrics": [
        b'{"step": 1, "epoch": 0, "loss": "3"}\n',
        b'{"step": 1, "epoch": 0, "knn_top1": []}\n',
        b'{"step": 1, "epoch": 0, "loss": 1, "phase": {}}\n',
        b'{"step": 1, "epoch": 0, "cluster_max": 5}\n',
        DEEP + b"\n",
    ],
    "manifest": [
        DEEP,
        b'{"spec": "a", "kind": "photo", "hash": "b", "class_names": [], "class_count": "2", "splits": {}}',
        b'{"spec": "a", "kind": "photo", "hash": "b", "class_names": [[]], "splits": {}}',
        b'{"spec": "a", "kind": "photo", "hash": "b", "class_names": [], "splits": {"train": {"count": 1e999}}}',
    ],
    "flagfile": [b"--" + b"x" * 5000 + b"=1"],
    "bad_images": [b"a,b\nc,d\n", b"split,index,name,reason\ntrain,x,y,z\n", b"\xb2,\0"],
}


@pytest.mark.parametrize(("reader", "data"), [(reader, data) for reader, each in FOUND.items() for data in each])
def test_it_is_read_or_refused(reader, data, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "files").mkdir()
    outcome = _outcome(subject(reader, tmp_path / "files"), data)
    assert outcome["failure"] is None
    assert outcome["seconds"] < 10
