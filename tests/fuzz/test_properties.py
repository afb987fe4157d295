"""If these fail, there is a spec, a Config or an annotation that ends in a traceback, or comes back as another."""

import dataclasses
from types import NoneType, UnionType
from typing import get_args, get_origin, get_type_hints
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.config import DataConfig
from data.errors import FlagError
from data.spec import FORMS, parse_spec
from data.voc_xml import annotation_of, parse
from la_tf.config import Config, MethodConfig, ModelConfig, OptimizerConfig, RunOptions
from la_tf.resolve import resolve

# Specs


@given(st.text() | st.builds(lambda form, rest: f"{form}:{rest}", st.sampled_from([*FORMS]), st.text()))
def test_a_spec_comes_apart_into_what_it_was_or_is_refused(spec):
    try:
        form, rest = parse_spec(spec)
    except FlagError as error:
        assert str(error).startswith(f"--dataset={spec}: ")
    else:
        assert form in FORMS and (f"{form}:{rest}" if rest else form) == spec and "\0" not in spec


# Flags: of each the default, or any value of its type, the words among them those that some flag or other takes

WORDS = (
    "la", "ir", "dc", "swav", "random", "resnet18", "alexnet", "knn", "all", "cluster", "clusters", "self", "cells",
    "exact", "nce", "softmax", "kmeans", "dbscan", "bank", "1epoch", "100steps", "sgd", "lars", "cosine", "steps",
    "float32", "bfloat16", "mixed_float16", "mirrored", "multiworker", "sharded", "digits", "folder:a", "small", "auto",
)  # fmt: skip


def values(hint):
    if get_origin(hint) is UnionType:
        return st.one_of(*map(values, get_args(hint)))
    if get_origin(hint) is tuple:
        return st.lists(values(get_args(hint)[0]), max_size=5).map(tuple)
    return {
        int: st.integers(-2, 300) | st.sampled_from((2**31 - 1, 2**31, 2**63 - 1)),
        float: st.floats(0, 1) | st.floats(allow_nan=False),
        str: st.sampled_from(WORDS) | st.text(max_size=5),
        bool: st.booleans(),
        NoneType: st.none(),
    }[hint]


PARTS = (DataConfig, ModelConfig, MethodConfig, OptimizerConfig, RunOptions)
HINTS = {name: hint for part in PARTS for name, hint in get_type_hints(part).items()}
FLAGS = st.fixed_dictionaries({}, optional={name: values(hint) for name, hint in HINTS.items()})


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([*HINTS]), max_size=6, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: values(HINTS[name]) for name in names})
    ),
    st.integers(1, 10**7),
)
def test_flags_make_a_config_that_comes_back_or_one_is_named(given_values, size):
    flat = {"model_dir": "runs/a", "dataset": "digits", **given_values}
    try:
        config = Config.from_flat(flat)
    except FlagError as error:
        assert str(error).startswith("--") and str(error)[2:].split("=")[0].split(":")[0].split(",")[0] in HINTS
        return
    assert Config.from_flat(config.flat()) == config
    assert {name: value for name, value in config.flat().items() if name in flat} == {
        name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()
    }
    try:
        settled, _ = resolve(config, size)
    except FlagError as error:
        assert str(error).startswith("--")
    else:
        assert dataclasses.is_dataclass(settled)


# XML

TAGS = st.sampled_from(("annotation", "object", "name", "bndbox", "xmin", "ymin", "xmax", "ymax", "difficult", "size"))
TEXT = st.sampled_from(("", "0", "1", "2.5", "1e3", "1e999", "nan", "dog", " person ")) | st.text(
    st.characters(min_codepoint=32, exclude_categories=("Cs",)), max_size=8
)


def element(tag, text, children):
    made = ElementTree.Element(tag)
    made.text = text
    made.extend(children)
    return made


LEAF = st.builds(element, TAGS, TEXT, st.just(()))
TREE = st.recursive(LEAF, lambda inner: st.builds(element, TAGS, TEXT, st.lists(inner, max_size=6)), max_leaves=30)


@settings(max_examples=300, deadline=None)
@given(TREE.map(lambda tree: element("annotation", "", [tree, *tree])))
def test_any_tree_is_read_or_refused_in_a_few_words(root):
    try:
        size, objects = annotation_of(parse(ElementTree.tostring(root)))
    except ValueError as error:
        assert str(error).isprintable() and len(str(error)) < 200
    else:
        assert len(objects) == len(root.findall("object"))
        assert size is None or min(size) >= 0


@given(st.binary())
def test_any_bytes_are_read_or_refused_in_a_few_words(data):
    with pytest.raises(ValueError) as error:
        annotation_of(parse(data))
    assert str(error.value).isprintable() and len(str(error.value)) < 200
