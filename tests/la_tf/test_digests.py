"""Hashes of weights: of bytes in their order, however they are cut into parts or files."""

import hashlib

from la_tf import digests


def test_parts_and_files_are_one_stream_of_bytes(tmp_path, monkeypatch):
    wanted = hashlib.sha256(b"weights and more").hexdigest()[:12]
    assert digests.digest([b"weights ", b"", b"and more"]) == wanted
    monkeypatch.setattr(digests, "PIECE", 3)  # a file in several
    for name, content in (("a", b"weights"), ("b", b" and more")):
        (tmp_path / name).write_bytes(content)
    assert digests.digest_of_files([tmp_path / "a", tmp_path / "b"]) == wanted
