"""The model card of an export: what it is, how it is used, what it came from and what it cannot do. No TensorFlow.

`model_card.json` holds all of it; `model_card.md` is the same for people, made of nothing but the JSON.
"""

import html
import re
import time
from pathlib import Path

from la_tf import model_dir, names_file
from models.preprocessing import SMALL_IMAGE

FORMAT = 1
JSON, MARKDOWN = "model_card.json", "model_card.md"
NOT_STATED = "not stated by whoever trained them; ask before you pass them on"
NAMES_SHOWN = 20  # classes that the Markdown names; the JSON names all
METHODS = {
    "la": "Local Aggregation (Zhuang, Zhai, Yamins 2019)",
    "ir": "Instance Recognition (Wu, Xiong, Yu, Lin 2018)",
    "dc": "DeepCluster (Caron, Bojanowski, Joulin, Douze 2018)",
    "swav": "SwAV (Caron, Misra, Mairal, Goyal, Bojanowski, Joulin 2020)",
    "supervised": "Supervised classification, a control: it learned from labels",
    "random": "Random initialisation, a control: it has learned nothing",
}
# Flag -> symbol, meaning, and the methods that it is a main parameter of; WORKSPACE.md has the symbols.
PARAMETERS = {
    "embedding_dim": ("D", "length of an embedding", None),
    "tau": ("tau", "temperature of every softmax and of the kNN votes", ("la", "ir", "swav")),
    "bank_momentum": ("t", "weight of the new embedding in a row of the memory bank", ("la", "ir")),
    "ir_loss": ("", "Instance Recognition: softmax over all images, or noise-contrastive", ("la", "ir")),
    "warmup_epochs": ("", "epochs of Instance Recognition before Local Aggregation", ("la",)),
    "background": ("", "what the background neighbours B_i are", ("la",)),
    "background_k": ("k", "background neighbours of an image", ("la",)),
    "close": ("", "what the close neighbours C_i are", ("la",)),
    "close_k": ("k'", "rows that C_i has where it is the nearest ones", ("la",)),
    "clusterings": ("H", "clusterings whose clusters C_i is the union of", ("la",)),
    "clusters": ("m", "clusters of each clustering", ("la", "dc")),
    "cluster_every": ("", "how often the clusters are renewed", ("la", "dc")),
    "dc_head": ("", "DeepCluster's head", ("dc",)),
    "prototypes": ("", "prototypes", ("swav",)),
    "sinkhorn_epsilon": ("", "entropy of the codes", ("swav",)),
    "small_views": ("", "small views of a picture", ("swav",)),
    "batch_size": ("B", "images a step", ("la", "ir", "dc", "swav", "supervised")),
    "learning_rate": ("", "at the start", ("la", "ir", "dc", "swav", "supervised")),
    "schedule": ("", "how the learning rate falls", ("la", "ir", "dc", "swav", "supervised")),
    "momentum": ("", "of the optimizer", ("la", "ir", "dc", "swav", "supervised")),
    "weight_decay": (
        "lambda",
        "weight decay of convolution and dense kernels",
        ("la", "ir", "dc", "swav", "supervised"),
    ),
    "seed": ("", "of all that is random", None),
}
# Of the last line of metrics, what is no measure of the result.
BOOKKEEPING = {"step", "epoch", "time", "learning_rate", "images_per_s", "cluster_seconds", "phase"}
METRICS = {
    "loss": "mean over the last epoch, without weight decay",
    "knn_top1": "share of test pictures that the K nearest rows of the memory bank classify rightly",
    "validation_knn_top1": "the same of the validation slice, which schedules and Best look at",
    "accuracy": "share of training views that are classified rightly",
    "bad_images": "training pictures that could not be read",
}


def model_card(description, data, bank, licence=None):
    """Returns the card, a dict that JSON can take.

    description: the contents of backbone.json. data: a `data.manifest.summary`, None where it is not known. bank: what
    `bank_facts` returns. licence: that of the weights, in words.
    """
    config, imported = description.get("config", {}), description.get("imported")
    metrics = description.get("metrics", {})
    return {
        "format": FORMAT,
        "title": _title(description),
        "exported": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "embedding_dim": description["embedding_dim"],
        "architecture": {name: value for name, value in description["architecture"].items() if name != "preprocessing"},
        "imported": imported,
        "data": data and _data(data),
        "method": {
            "name": config.get("method"),
            "title": METHODS.get(config.get("method"), "not known"),
            "parameters": _parameters(config),
        },
        "step": description["step"],
        "epoch": metrics.get("epoch"),
        "metrics": {name: value for name, value in metrics.items() if name not in BOOKKEEPING},
        "preprocessing": _preprocessing(description),
        "signatures": _signatures(description, bank),
        "bank": bank,
        "example": _example(description, bank),
        "limits": _limits(description, bank),
        "licence": {
            "code": "Apache-2.0 (la_tf)",
            "weights": licence or (f"that of their source, {imported['source']}" if imported else NOT_STATED),
            "data": "that of the data set; no picture is part of this export",
        },
        "versions": model_dir.versions(),
    }


def bank_facts(written, dimension, stored_in="float32", method=None):
    """Returns what a card says of a memory bank, of whose N rows `written` `[N]` bool are part of the export.

    stored_in: the numbers that it was trained in; method: how, for an untrained network's rows average nothing.
    """
    rows = int(written.sum())
    averaged = "the running average of its embeddings under augmentation"
    return {
        "included": True,
        "rows": rows,
        "of": len(written),
        "dimension": dimension,
        "megabytes": round(rows * (4 * dimension + 8) / 1e6, 1),
        "trained_in": stored_in,
        "is": "one unit row for each training picture: "
        + ("the embedding of its central view" if method == "random" else averaged),
        "indices": "rows of the training split, as the run's dataset.json lists them; rows never written are left out",
    }


def no_bank(why):
    """Returns what a card says where there is none."""
    return {"included": False, "why": why}


def write(folder, card):
    """Writes both files of a card into `folder`."""
    model_dir.write_json(Path(folder) / JSON, card)
    model_dir.write_text(Path(folder) / MARKDOWN, markdown(card))


# --- what the card says ----------------------------------------------------------------------------------------------


def _title(description):
    architecture, config = description["architecture"], description.get("config", {})
    method = METHODS.get(config.get("method"), description.get("imported", {}).get("source", "embedding"))
    return f"{re.split(r' [(]|, a control', method)[0]}: {architecture['name']} width {architecture['width']}"


def _data(data):
    names, splits = data["class_names"], data["splits"]
    return {
        "spec": data["spec"],
        "kind": data["kind"],
        "hash": data["hash"],
        "train_fingerprint": splits["train"]["fingerprint"],
        "train_images": splits["train"]["count"],
        "test_images": splits["test"]["count"] if "test" in splits else 0,
        "classes": len(names),
        "class_names": names,
    }


def _parameters(config):
    found = []
    for flag, (symbol, meaning, methods) in PARAMETERS.items():
        value = config.get(flag)
        read = methods is None or config.get("method") in methods
        # k, k' and H, m belong to one kind of neighbours each.
        idle = (
            (flag == "background_k" and config.get("background") != "knn")
            or (flag == "close_k" and config.get("close") != "knn")
            or (flag in ("clusterings", "clusters") and config.get("close", "clusters") != "clusters")
        )
        if read and not idle and value is not None:
            found.append({"flag": flag, "symbol": symbol, "value": value, "meaning": meaning})
    return found


def _preprocessing(description):
    """What `embed_bytes` does to a picture, and a caller of `embed` has to do."""
    view, pixels = description["view"], description["preprocessing"]
    size = view["image_size"]
    if view["kind"] == "digits":
        height, width = view["common_size"]
        cut = [
            f"Scale the whole picture to {width} x {height} px: bilinear, below half the size averages.",
            f"Scale that to {size} x {size} px, bilinear, black beyond the borders.",
        ]
    else:
        side = "7/8 of the short side, rounded" if size > SMALL_IMAGE else "the short side"  # `data.augment.PATCH_PART`
        cut = [
            f"Cut out the central square; its side is {side}.",
            f"Scale it to {size} x {size} px: bilinear (pixel centres at 0.5, no filter) down to half the size, below "
            "that the average over the area of each pixel.",
        ]
        if view["common_size"]:
            height, width = view["common_size"]
            cut.append(f"Pictures of {width} x {height} px, as in training, are filtered wherever they are shrunk.")
    return {
        "image_size": size,
        "steps": [
            "Decode to RGB; turn a JPEG upright as its EXIF orientation says.",
            *cut,
            "Divide by 255, at most 1.",
        ],
        "inside": f"the network itself subtracts the mean {pixels['mean']} of R, G, B and divides by {pixels['std']}",
        "mean": pixels["mean"],
        "std": pixels["std"],
    }


def _signatures(description, bank):
    dimension = description["embedding_dim"]
    images = {"images": "float32 [B, H, W, 3], RGB in [0, 1]"}
    embedding = {"embedding": f"float32 [B, {dimension}], unit rows"}
    endpoints = {name: f"float32 [B, h, w, {channels}]" for name, channels in description["channels"].items()}
    found = {
        "embed_bytes": {
            "takes": {"image_bytes": "string [B], encoded pictures of any sizes (JPEG, PNG, GIF, still WebP, BMP)"},
            "gives": embedding,
            "raises": "InvalidArgumentError that names the first picture that cannot be read, as image_bytes[3]",
        },
        "embed": {"takes": images, "gives": embedding, "default": True},
        "features": {"takes": images, "gives": endpoints},
    }
    if bank["included"]:
        found["nearest"] = {
            "takes": {
                "embedding": f"float32 [B, {dimension}], unit rows",
                "neighbors": "int32, a scalar: n, at least 1; more than there are rows means all of them",
            },
            "gives": {
                "indices": "int64 [B, n], rows of the training split, most similar first, ties to the lowest",
                "similarities": "float32 [B, n], dot products",
            },
        }
    return found


def _example(description, bank):
    dimension = description["embedding_dim"]
    lines = [
        "import tensorflow as tf",
        "",
        'model = tf.saved_model.load("EXPORT")  # the folder that this card lies in; nothing of la_tf is needed',
        'pictures = tf.constant([open(name, "rb").read() for name in ["a.jpg", "b.png"]])',
        f'embedding = model.signatures["embed_bytes"](image_bytes=pictures)["embedding"]  # [2, {dimension}]',
        "similarity = tf.matmul(embedding, embedding, transpose_b=True)  # [2, 2], 1 on the diagonal",
    ]
    if bank["included"]:
        lines += [
            'found = model.signatures["nearest"](embedding=embedding, neighbors=tf.constant(10))',
            'found["indices"], found["similarities"]  # of the ten most similar training pictures of each',
        ]
    return "\n".join(lines)


def _limits(description, bank):
    name, config = description["architecture"]["name"], description.get("config", {})
    size = description["preprocessing"]["image_size"]
    whole = description["view"]["kind"] == "digits"
    found = (
        [] if whole else ["`embed_bytes` sees the central square of a picture; what lies beyond it has no influence."]
    )
    if config.get("method") == "dc":
        found.append(f"Images for `embed` and `features` have to be {size} x {size} px, as in training.")
    elif name in ("alexnet", "vgg16"):
        found.append(f"Images for `embed` and `features` have to be at least {size} px high and wide.")
    found.append(
        "Not read: TIFF, moving WebP, BMP below 24 bit. Of a GIF the first frame counts; transparency is ignored; EXIF "
        "orientation counts in JPEG alone."
    )
    if config.get("method") == "random":
        found.append("The network is untrained: a yardstick, nothing to build on.")
    elif config.get("method") not in (None, "supervised"):
        found.append("It learned without labels: what it takes for alike need not be what a class has in common.")
    found.append(
        "What its training pictures lack or show too often is missing or too strong in the embedding as well; pictures "
        "unlike them were not tried, and no bias was examined."
    )
    if bank["included"]:
        if config.get("method") != "random":
            found.append(
                "A bank row averages views of a picture over training: the picture's own embedding is near it, not on "
                "it."
            )
        if bank["trained_in"] != "float32":
            found.append(
                f"The bank was trained in {bank['trained_in']}: its rows have unit length to three digits or so."
            )
    return found


# --- how it is said in Markdown --------------------------------------------------------------------------------------


def markdown(card):
    """Returns the card as Markdown; names that are not ours are escaped, so that they can change nothing but words."""
    parts = [
        f"# {_text(card['title'])}",
        f"An embedding of pictures: {card['embedding_dim']} numbers for each, of unit length; the more alike two "
        f"pictures, the larger the dot product. Step {card['step']:,}, exported {_text(card['exported'])}.",
        f"```python\n{card['example']}\n```",
        "## Signatures",
        _table(("signature", "takes", "gives"), map(_signature_row, card["signatures"].items())),
        *_raised(card["signatures"]),
        "## What happens to a picture",
        "`embed_bytes` does all of it; for `embed` and `features` it is the caller's:",
        "\n".join(f"{number}. {step}" for number, step in enumerate(card["preprocessing"]["steps"], 1)),
        f"Then {card['preprocessing']['inside']}.",
        "## Memory bank",
        _bank(card["bank"]),
        "## Where it comes from",
        _table(("", ""), _origin(card)),
    ]
    if card["method"]["parameters"]:
        rows = [(f"`{p['flag']}`", p["symbol"], _text(p["value"]), p["meaning"]) for p in card["method"]["parameters"]]
        parts.append(_table(("flag", "symbol", "value", "meaning"), rows))
    if card["metrics"]:
        metrics = {name: _number(value) for name, value in card["metrics"].items()}
        rows = [(f"`{name}`", metrics[name], meaning) for name, meaning in METRICS.items() if name in metrics]
        others = ", ".join(f"{_text(name)} {value}" for name, value in metrics.items() if name not in METRICS)
        parts += ["## Metrics", "At this step:", _table(("metric", "value", "meaning"), rows)]
        parts += [f"Health of the training, as la_tf's WORKSPACE.md explains it: {others}."] if others else []
    parts += [
        "## Limits",
        "\n".join(f"- {limit}" for limit in card["limits"]),
        "## Licence",
        "\n".join(f"- {name}: {_text(text)}" for name, text in card["licence"].items()),
        "## Versions",
        ", ".join(f"{_text(name)} {_text(version)}" for name, version in card["versions"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def _signature_row(item):
    name, facts = item
    both = ("<br>".join(f"`{key}` {text}" for key, text in facts[side].items()) for side in ("takes", "gives"))
    return (f"`{name}`" + (" (default)" if facts.get("default") else ""), *both)


def _raised(signatures):
    return [f"`{name}` raises {facts['raises']}." for name, facts in signatures.items() if "raises" in facts]


def _bank(bank):
    if not bank["included"]:
        return f"Not part of this export ({_text(bank['why'])}), so there is no signature `nearest`."
    return (
        f"{bank['rows']:,} of {bank['of']:,} rows of {bank['dimension']} numbers, float32 ({bank['megabytes']:,} MB): "
        f"{bank['is']}. Indices are {bank['indices']}."
    )


def _origin(card):
    yield "method", _text(card["method"]["title"])
    told = (f"{name} {value}" for name, value in card["architecture"].items() if value not in (None, False))
    yield "network", _text(", ".join(told))
    if imported := card["imported"]:
        yield "weights", _text(f"{imported['source']}: {imported['file']}, SHA-256 {imported['sha256']}")
    if data := card["data"]:
        yield (
            "pictures",
            _text(f"{data['spec']}: {data['train_images']:,} for training, {data['test_images']:,} for tests"),
        )
        names = ", ".join(data["class_names"][:NAMES_SHOWN])
        more = ", ..." if data["classes"] > NAMES_SHOWN else ""
        yield "classes", _text(f"{data['classes']:,}: {names}{more}" if names else "none are named")
        yield "hash of the data set", _text(data["hash"])
    else:
        yield "pictures", "not known"


def _table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _number(value):
    return f"{value:.4g}" if isinstance(value, float) else _text(value)


def _text(value):
    """Returns `value` as text that Markdown, its tables and the HTML within it leave as it is, on one line."""
    text = html.escape(names_file.shown(value)).replace("|", "&#124;").replace("`", "&#96;").replace("\\", "&#92;")
    return re.sub(r"([*_\[\]~])", r"\\\1", text)
