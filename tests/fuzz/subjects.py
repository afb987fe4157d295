"""Which readers are tried: a group a module, imported when one of it is, so that its coverage counts from its start."""

import importlib
from collections.abc import Callable
from typing import NamedTuple

from data.errors import UserError


class Subject(NamedTuple):
    """A reader. `read` may raise UserError, or of `refusals` what a `raise` of ours raises."""

    mutate: Callable  # numbers, a random.Random -> an input, bytes
    parses: Callable  # the input -> whether it gets past the first parse
    read: Callable  # the input -> anything: what it says is read
    files: tuple[str, ...]  # whose branches are counted
    refusals: tuple[type[Exception], ...] = ()


# Name -> where the function is that makes it in a scratch folder.
SUBJECTS = {
    "records": "of_records.records",
    "record_data": "of_records.record_data",
    "sidecar": "of_records.sidecar",
    "shards_json": "of_records.description",
    "jpeg": "of_pictures.jpeg",
    "pictures": "of_pictures.others",
    "picture_size": "of_pictures.size",
    "conversion": "of_pictures.conversion",
    "voc_xml": "of_texts.voc_xml",
    "voc_set": "of_texts.voc_set",
    "list": "of_texts.list_file",
    "spec": "of_texts.spec",
    "flagfile": "of_texts.flagfile",
    "manifest": "of_runs.manifest_json",
    "config": "of_runs.config_json",
    "metrics": "of_runs.metrics_jsonl",
    "results": "of_runs.results_jsonl",
    "bad_images": "of_runs.bad_images_csv",
    "state": "of_runs.state_json",
    "checksums": "of_runs.sha256_json",
    "arrays": "of_runs.arrays_npz",
    "embeddings": "of_exports.embeddings",
    "names": "of_exports.names",
    "backbone_json": "of_exports.backbone_json",
    "index_json": "of_exports.index_json",
}


# Not among them: one that does all that no reader should, so that it is seen that it is seen.
BROKEN = {"broken": "of_nobody.broken"}


def subject(name, folder) -> Subject:
    """The Subject `name`, which keeps what it needs in `folder`."""
    module, function = {**SUBJECTS, **BROKEN}[name].split(".")
    return getattr(importlib.import_module(f"tests.fuzz.{module}"), function)(folder)


def each(*calls):
    """Makes all the calls, though one is refused; raises the first refusal."""
    refusal = None
    for call in calls:
        try:
            call()
        except UserError as error:
            refusal = refusal or error
    if refusal:
        raise refusal
