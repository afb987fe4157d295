"""What la_tf.search does: builds an index of pictures beside an export, adds to it, searches it and draws."""

import csv
import functools
import io
import os
import shutil
import sys
import time
from pathlib import Path

from data import cli
from data.errors import FlagError, UserError
from la_tf import embedded_pictures, model_dir, names_file
from la_tf.embedded_pictures import EmbeddedPictures

KINDS = ("flat", "ivf", "hnsw")
SCRATCH = ".embeddings"  # in the index's folder: what is embedded and not yet in the index
BAD = "bad_images.csv"  # those that the last --source or --add could not read
ONLY_OF = {"lists": "ivf", "nprobe": "ivf", "links": "hnsw", "ef_search": "hnsw"}
BUILDING = ("kind", "quantised", "lists", "links", "rebuild")
SHEETS = (".png", ".svg", ".pdf")
GROWN = 4  # times as many pictures as an index was built of: its lists and bytes may no longer fit


def run(value):
    """Builds, adds and searches, whichever the flags, `value` by their names, ask for; returns what was found."""
    check(value)
    folder = Path(value["index"] or Path(value["export"]) / "index")
    weights = embedded_pictures.weights_of(value["export"])
    images = image_files(value["image"])
    from la_tf.image_index import ImageIndex

    added = {}
    if value["source"] or value["add"] or value["embeddings"]:
        with model_dir.locked(folder, "index", "wait for it", doing="changing the index"):
            added = grow(folder, weights, value)
    index = ImageIndex.open(folder, weights)
    check_kind(value, index.description["kind"], f"--index={folder}, {index.description['kind']},")
    if index.description["kind"] != "flat" and len(index) > GROWN * index.description["built_of"]:
        print(
            f"{folder}: has {len(index)} pictures and was built of {index.description['built_of']}; --rebuild with all "
            "of them for the recall it had",
            file=sys.stderr,
        )
    found = {"index": str(folder), **facts(index), **added}
    return found | (searched(index, images, value) if images else {})


@functools.cache
def embedder_of(export):
    """Returns the ExportEmbedder of a folder, loaded when there is something to embed."""
    cli.load_tensorflow()
    from la_tf.export_embedder import ExportEmbedder

    return ExportEmbedder(export)


def check(value):
    """Raises FlagError for flags that are wrong or do not go together."""
    given = [name for name in ("source", "embeddings", "add") if value[name]]
    if len(given) > 1:
        raise FlagError(f"--{' and --'.join(given)}: give one of them at a time")
    if not given and not value["image"]:
        raise FlagError("--image: name a picture to search for; or build an index by --source, add by --add")
    building = bool(value["source"] or value["embeddings"])
    for name in BUILDING:
        if value[name] and not building:
            raise FlagError(f"--{name}: goes with --source or --embeddings, of which an index is built")
    if value["split"] and not (value["source"] or value["add"]):
        raise FlagError("--split: goes with --source or --add")
    if value["kind"] is not None and value["kind"] not in KINDS:
        raise FlagError(f"--kind={value['kind']}: choose one of {', '.join(KINDS)}")
    if value["out"] and not value["image"]:
        raise FlagError("--out: draws what was found for --image; name a picture")
    if value["out"] and not value["out"].lower().endswith(SHEETS):
        raise FlagError(f"--out={value['out']}: name a file that ends in {', '.join(SHEETS)}")
    for name in ONLY_OF:
        if value[name] is not None and value[name] < 1:
            raise FlagError(f"--{name}={value[name]}: must be at least 1")
    for name in ("nprobe", "ef_search"):
        if value[name] and not (building or value["image"]):
            raise FlagError(f"--{name}: goes with --image, or with --source or --embeddings for an index to be built")
    if value["kind"]:
        check_kind(value, value["kind"], f"--kind={value['kind']}")
    for name in ("export", "index"):
        model_dir.check_utf8(name, value[name] or "")
    if value["nearest"] < 1:
        raise FlagError(f"--nearest={value['nearest']}: must be at least 1")


def check_kind(value, kind, found):
    """Raises FlagError for a flag that an index of this kind does not read; `found` says where the kind comes from."""
    for name, of in ONLY_OF.items():
        if value[name] is not None and kind != of:
            raise FlagError(f"--{name}: goes with --kind={of}; {found} does not read it, leave it out")


def image_files(text):
    """Returns the files of `--image`, one or several; raises UserError naming one that is not there."""
    if not text:
        return []
    try:
        listed = next(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True))
    except csv.Error as error:
        raise FlagError(f"--image: is no list of files ({error})") from None
    images = [text] if os.path.isfile(text) else listed or [text]
    for image in images:
        if not os.path.isfile(image):
            raise UserError(f"--image={names_file.shown(image)}: there is no such file")
    return images


def grow(folder, weights, value):
    """Builds the index, or adds what it does not have; returns how many pictures that were, and how many are bad."""
    from la_tf.image_index import ImageIndex

    old = existing(folder, weights, value)
    scratch = folder / SCRATCH
    if value["embeddings"]:
        embedded = EmbeddedPictures(value["embeddings"])
        if embedded.weights != weights:
            raise UserError(
                f"--embeddings={value['embeddings']}: were made by another export (weights {embedded.weights} there, "
                f"{weights} here); embed again"
            )
    else:
        flag = "source" if value["source"] else "add"
        pictures = embedded_pictures.open_source(value[flag], value["split"], value["options"], flag)
        locations = names_file.Locations(names_file.root(pictures), pictures.names)
        rows = names_file.unseen(locations, old.names if old else ())
        (folder / BAD).unlink(missing_ok=True)
        if not len(rows):
            shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed when all was in the index
            return {"added": 0, "bad": 0}
        if not old:
            check_automatic(value, len(rows))  # before hours of embedding
        how = {name: value[name] for name in ("batch_size", "workers", "options")}
        embedded = embedder_of(value["export"]).embed(pictures, scratch, rows, scratch=True, **how)
        if (scratch / BAD).exists():
            os.replace(scratch / BAD, folder / BAD)
    if not (old or embedded.description["rows"]):
        raise UserError(f"--source={value['source']}: not one picture can be read; {folder / BAD} says why")
    sources = [[embedded.description[name] for name in ("source", "split", "options")]]
    if old:
        index = old.add(embedded.rows, embedded.locations, sources)
    else:
        check_automatic(value, len(embedded.rows))
        chosen = {name: value[name] for name in ("kind", "quantised", "lists", "links")}
        chosen |= {"effort": value["nprobe"] or value["ef_search"], "sources": sources}
        started = time.monotonic()
        index = ImageIndex.build(folder, embedded.rows, embedded.locations, weights, **chosen)
        print(f"built in {time.monotonic() - started:.1f} s: {told(index)}", file=sys.stderr)
    shutil.rmtree(scratch, ignore_errors=True)
    return {"added": len(index) - (len(old) if old else 0), "bad": embedded.description["bad"]}


def check_automatic(value, size):
    """Raises FlagError for a flag that an index does not read whose kind follows from its `size`."""
    from la_tf.vector_index import automatic_kind

    if not value["kind"]:
        kind = automatic_kind(size)
        check_kind(value, kind, f"{kind}, which an index of {size} pictures is by default,")


def existing(folder, weights, value):
    """Returns the index to add to, None where one is to be built; raises UserError where it is built otherwise."""
    from la_tf import image_index, vector_index
    from la_tf.image_index import ImageIndex

    if value["rebuild"] or (image_index.describe(folder) is None and not value["add"]):
        return None
    index = ImageIndex.open(folder, weights)
    there = index.description
    wanted = {name: value[name] for name in ("kind", "quantised", "lists", "links")}
    if not value["kind"]:
        check_kind(value, there["kind"], f"--index={folder}, {there['kind']},")
    if there["effort"] and not value["image"]:  # with --image it is that of this search
        for name in ("nprobe", "ef_search"):
            wanted[name] = value[name] and min(value[name], vector_index.most_effort(index.index))
    for name, given in wanted.items():
        found = there["effort" if name in ("nprobe", "ef_search") else name]
        if given and given != found:
            raise UserError(
                f"--index={folder}: is there already, with --{name}={found}; give --rebuild to build it anew, or "
                "another --index"
            )
    return index


def told(index):
    """Returns an index in words."""
    found = index.description
    kind = found["kind"] + (", quantised" if found["quantised"] else "")
    if found["effort"] is None:
        return f"{kind}, {len(index)} pictures"
    effort = f"{'nprobe' if found['kind'] == 'ivf' else 'ef_search'} {found['effort']}"
    recall = "" if found["recall_at_10"] is None else f", recall@10 {found['recall_at_10']:.3f}"
    return f"{kind}, {len(index)} pictures, {effort}{recall}"


def facts(index):
    """Returns what the result says of an index."""
    return {name: index.description[name] for name in ("kind", "quantised", "size", "effort", "recall_at_10")}


def searched(index, images, value):
    """Searches, prints and draws; returns what was found as a part of the result."""
    index.check(value["nearest"])
    queries = embedder_of(value["export"]).embed_files(images)
    effort = value["nprobe"] if index.description["kind"] == "ivf" else value["ef_search"]
    started = time.perf_counter()
    similarities, rows = index.search(queries, value["nearest"], effort)
    seconds = time.perf_counter() - started
    nearest = [
        [(index.names[row], round(float(similarity), 4)) for row, similarity in zip(*of_query, strict=True) if row >= 0]
        for of_query in zip(rows, similarities, strict=True)
    ]
    for image, of_query in zip(images, nearest, strict=True):
        print(names_file.shown(image))
        for name, similarity in of_query:
            print(f"  {similarity:.4f}  {names_file.shown(name)}")
    found = {"ms_per_query": round(1000 * seconds / len(images), 2)}
    if value["out"]:
        from la_tf import search_sheet

        drawn = search_sheet.draw(list(zip(images, nearest, strict=True)), index.description["sources"])
        search_sheet.save(drawn, value["out"])
        found["sheet"] = value["out"]
    results = [
        {"image": image, "nearest": [{"name": name, "similarity": similarity} for name, similarity in of_query]}
        for image, of_query in zip(images, nearest, strict=True)
    ]
    return found | {"queries": results}
