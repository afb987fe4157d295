"""Which cell of which of the paper's tables a line of results.jsonl belongs into. No TensorFlow.

Two results may share a line of a table only where all fields agree that say how they came about; here is what those
fields are.
"""

import re
from dataclasses import dataclass, field

from data import json_shapes
from data.errors import UserError
from la_tf import paper_tables, results
from la_tf.config import CIRCUMSTANCES, Config, interval
from la_tf.paper_tables import backbone_letter, backbone_title, count
from la_tf.resolve import BACKGROUND_SHARE, LEAST_BACKGROUND
from la_tf.results import moment

METHODS = {"la": "LA", "ir": "IR", "dc": "DC", "swav": "SwAV", "supervised": "Supervised", "random": "Random"}
IR_WITHOUT_BN = ("alexnet", "vgg16")  # the paper's plain IR rows of these have no batch normalisation
CLUSTERINGS = {"alexnet": 3, "vgg16": 6}  # H, section 4.1; every ResNet has 10
CLUSTERS = (1000, 10000, 20000, 30000)  # m in the paper's tables
OTHER_NETWORKS = "Other networks"
# What a line holds that belongs into a table, beyond what every one does.
_SIZE = json_shapes.record(
    {"spec": json_shapes.text, "train": json_shapes.count, "classes": json_shapes.count},
    {
        "test": json_shapes.optional(json_shapes.count),
        "own": json_shapes.optional(json_shapes.boolean),
        **dict.fromkeys(("hash", "test_hash"), json_shapes.optional(json_shapes.text)),
    },
)
_FACTS = json_shapes.record(
    allowed={
        **dict.fromkeys(("method", "backbone", "name"), json_shapes.optional(json_shapes.text)),
        "config": json_shapes.optional(json_shapes.record()),
        "seed": json_shapes.optional(json_shapes.whole),
    }
)
_SETTINGS = json_shapes.record(allowed={"seed": json_shapes.optional(json_shapes.whole)})
_RECORD = json_shapes.record({"dataset": _SIZE, "subject": _FACTS, "settings": _SETTINGS})
_TOP1 = json_shapes.record(
    {"top1": json_shapes.finite}, {"ten_crop_top1": json_shapes.finite, "features": json_shapes.count}
)
_FOUND = {
    "knn": _TOP1,
    "linear": json_shapes.table(_TOP1),
    "detection": json_shapes.record({"mAP": json_shapes.finite}),
}
NEAR = 0.1  # how far a number that follows N may be off
# The choices behind an ablation that its table does not vary.
PLAIN = {
    "background": "knn", "close": "clusters", "cluster_on": "bank", "cluster_every": "1epoch", "clustering": "kmeans",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One result at its place. `cells`: per cent by the title of the column.

    `part` is the columns that go together (the readouts of Table 1, its KNN): of its results, `own` says what may be
    another in other parts of the same line, `shared` what must be the same. Names with a dot are settings of a
    protocol, others facts of the network. `expected`: the paper's values of fields, None where it does not tell.
    """

    section: str
    row: str
    part: str
    cells: dict
    shared: dict
    own: dict
    expected: dict
    record: dict = field(repr=False)

    @property
    def fields(self):
        """All fields."""
        return {**self.shared, **self.own}

    @property
    def departures(self):
        """The names of the fields that are not as in the paper."""
        return [name for name, value in self.expected.items() if self.fields.get(name, value) != value]

    @property
    def unit(self):
        """What distinguishes the runs that a mean is taken over: the seed of training; of detectors theirs, too."""
        seed = self.record["subject"].get("seed")
        return (seed, self.record["settings"].get("seed")) if self.record["protocol"] == "detection" else seed

    @property
    def time(self):
        """When it was measured, seconds."""
        return moment(self.record)


def entries(table, records):
    """Returns the Entries of `records` (dicts as `results.read` gives them) in the table of that name."""
    judged = (record for record in records if record["results"].get("judged", 1))
    placed = (_placed(table, record) for record in judged)
    return [entry for entry in placed if entry and entry.cells]


def _placed(table, record):
    """The Entry of a record, None where it belongs elsewhere; raises UserError where it lacks what a result has."""
    try:
        json_shapes.check(record, _RECORD)
        json_shapes.check(record["results"], _FOUND.get(record["protocol"], json_shapes.anything))
        return _PLACES[table](table, record)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"{results.FILE}: the line with the id {record.get('id')!r:.40} is damaged ({error!r:.200}); delete it and "
            "evaluate again"
        ) from None


# -- Tables 1, 2 and S2: transfer -------------------------------------------------------------------------------------


def _transfer(table, record):
    """Readouts of conv1 to conv5 and KNN, K = 200; in Table 1 of the pictures trained on, in Tables 2 and S2 of others.

    Where that is not known, in all of them.
    """
    protocol, own = record["protocol"], record["dataset"].get("own")
    if own is (table != "1"):
        return None
    if protocol == "linear" and table in ("1", "2"):
        cells = {endpoint: _percent(found) for endpoint, found in record["results"].items()}
    elif protocol == "knn" and table in ("1", "S2") and record["settings"].get("neighbors") == 200:
        cells = {"KNN": _percent(record["results"])}
    else:
        return None
    network = _network(record)
    section, row = _section(network), _method_row(network)
    if table == "S2":
        letter = backbone_letter(network.get("backbone") or "", hyphen="")
        row = row.replace("(with BN)", " with BN")
        section, row = "", f"{row} - {letter}" if network.get("backbone") else row
    part = "KNN" if protocol == "knn" else protocol
    return Entry(section, row, part, cells, network, _settings(record), _expected(network), record)


def _percent(found):
    return 100 * found.get("ten_crop_top1", found["top1"])


def _section(network):
    backbone = network.get("backbone")
    return backbone_title(backbone) if backbone else OTHER_NETWORKS


def _method_row(network):
    method = network.get("method")
    if method is None:
        return str(network.get("name") or network.get("backbone") or "?")
    with_bn = method == "ir" and network.get("backbone") in IR_WITHOUT_BN and network.get("batch_norm")
    return "IR(with BN)" if with_bn else METHODS.get(method, method)


def _expected(network):
    """What the paper's row of this network has; fields that the paper does not tell are left out."""
    method, backbone = network.get("method"), network.get("backbone")
    expected = {"width": 64, "image_size": 224}
    if method is None:
        return expected
    if method != "random":
        expected["sobel"] = method == "dc"
    if method not in ("ir", "random") or backbone not in IR_WITHOUT_BN:
        expected["batch_norm"] = True
    if method == "la":
        expected |= {name: PLAIN[name] for name in PLAIN if name != "cluster_every"}
        expected["clusterings"] = CLUSTERINGS.get(backbone, 10)
    return expected


# -- Table 3: detection -----------------------------------------------------------------------------------------------


def _detection(table, record):
    if record["protocol"] != "detection":
        return None
    network, settings = _network(record), _settings(record)
    settings["data_set"] = network.pop("data_set")
    backbone = network.get("backbone") or "?"
    letter = "R" if backbone == "resnet50" else backbone_letter(backbone)
    part = f"{letter}_{settings.pop('detection.detector', 'faster').capitalize()}"
    cells = {part: 100 * record["results"]["mAP"]}
    row = _method_row(network).replace("(with BN)", "")  # the paper's row does not say
    return Entry("", row, part, cells, settings, network, {"width": 64}, record)


# -- Tables 4, 5, S1 and S3: ablations by the nearest neighbour -------------------------------------------------------


def _ablation(table, record):
    nearest = record["protocol"] == "knn" and record["settings"].get("neighbors") == 1
    if not nearest or record["dataset"].get("own") is not True or record["subject"].get("method") != "la":
        return None
    network = {"cluster_every": PLAIN["cluster_every"], **_network(record)}
    varied = {"4": {"background"}, "5": {"close"}, "S1": set(), "S3": {"cluster_on", "cluster_every"}}[table]
    if any(network.get(name) != value for name, value in PLAIN.items() if name not in varied):
        return None
    size = record["dataset"]["train"]
    expected = {"width": 64, "image_size": 224, "background_k": 4096, "backbone": "resnet18", "clusterings": 1}
    expected |= {"clusters": 10000, "background_clusterings": 3, "background_clusters": 1000}
    expected |= {"cluster_every": "1000steps"} if table == "S3" else {"close_k": None}
    value = 100 * record["results"]["top1"]
    row, part, free = _ABLATIONS[table](network, size)  # and takes out what the place says, and what has no effect
    own = {name: network.pop(name) for name in free if name in network}
    expected |= _clusters_of(row) | _clusters_of(part)
    if row.startswith("k = "):
        expected["background_k"] = int(row.removeprefix("k = "))
    return Entry("", row, part, {part: value}, network | _settings(record), own, expected, record)


def _of_background(network, size):
    """Table 4: a column a choice of B_i."""
    background = network.pop("background")
    unread = ["close_k"]
    unread += ["background_k"] if background != "knn" else []
    unread += ["background_clusterings", "background_clusters"] if background != "cluster" else []
    _drop(network, *unread)
    part = {"all": "{1, 2, ..., N}", "cluster": "Cluster-based", "knn": "N_4096"}[background]
    return "NN performance", part, ("background_k", "background_clusterings", "background_clusters")


def _of_close(network, size):
    """Table 5: a column a choice of C_i."""
    close = network.pop("close")
    part = {"self": "{i}", "knn": "N_k'"}.get(close) or close_setting(network, size)
    _drop(network, "clusterings", "background_clusterings", "background_clusters")
    _drop(network, *{"self": ("clusters", "close_k"), "knn": ("clusters",), "clusters": ("close_k",)}[close])
    return "NN", part, ("clusters", "close_k")


def _of_clusters(network, size):
    """Table S1: a row an (H, m), a column a network; those differ in the steps that they take."""
    row, part = close_setting(network, size), backbone_letter(network["backbone"])
    _drop(network, "clusterings", "backbone", "close_k", "background_clusterings", "background_clusters")
    return row, part, ("clusters", "step")


def _of_the_rest(network, size):
    """Table S3: a row a change to the baseline."""
    changes = ["center_crop"] if network.pop("cluster_on") == "center_crops" else []
    number, unit = interval(network["cluster_every"])
    epoch = size // network["batch_size"]
    steps = number * (epoch if unit == "epochs" else 1)
    if steps == epoch:
        network.pop("cluster_every")
    else:
        changes.append("more_freq" if steps < epoch else "less_freq")
    _drop(network, "close_k", "background_clusterings", "background_clusters")
    return ", ".join(changes) or background_setting(network["background_k"], size), "NN perf.", ("background_k",)


_ABLATIONS = {"4": _of_background, "5": _of_close, "S1": _of_clusters, "S3": _of_the_rest}
_PLACES = dict.fromkeys(("1", "2", "S2"), _transfer) | {"3": _detection} | dict.fromkeys(_ABLATIONS, _ablation)


def _drop(network, *names):
    for name in names:
        network.pop(name, None)


def close_setting(network, size):
    """Returns "(H, m)" as the paper has it: its own m, or the one that is in proportion to N, else ours."""
    clusters = network["clusters"]
    literal = [m for m in CLUSTERS if m == clusters]
    near = [m for m in CLUSTERS if abs(clusters / size * paper_tables.N / m - 1) <= NEAR]
    return f"({network['clusterings']}, {count([*literal, *near, clusters][0])})"


def background_setting(k, size):
    """The row of Table S3: the paper's own k, or the one that is the same multiple of what follows from N."""
    names = {4096: "Baseline", 2048: "k = 2048", 8192: "k = 8192"}
    usual = min(size - 1, max(LEAST_BACKGROUND, round(size * BACKGROUND_SHARE)))
    near = [name for paper_k, name in names.items() if abs(k / usual * 4096 / paper_k - 1) <= NEAR]
    return names.get(k) or [*near, f"k = {k}"][0]


def _clusters_of(place):
    """The m of a place that is named "(H, m)", so that another one is told."""
    match = re.fullmatch(r"\(\d+, (\d+)(k?)\)", place)
    return {"clusters": int(match[1]) * (1000 if match[2] else 1)} if match else {}


# -- the fields -------------------------------------------------------------------------------------------------------


def _network(record):
    """What a network is but for its seed: flags of the run, step, and the pictures it is judged on."""
    subject = record["subject"]
    config = subject.get("config") or {}
    facts = {name: value for name, value in subject.items() if name not in ("kind", "seed", "config")}
    if config:
        facts.pop("weights", None)  # every seed has its own
        facts = {**Config.defaults(), **config, **facts}
        facts = {name: value for name, value in facts.items() if name not in CIRCUMSTANCES | {"seed"}}
    if record["dataset"].get("own"):
        facts.pop("data", None)  # the next line says it
    facts["data_set"] = f"{record['dataset'].get('hash')} {record['dataset'].get('test_hash')}"
    return {name: value for name, value in facts.items() if value is not None}


def _settings(record):
    """The settings of a protocol but for its seed and which endpoints it took, named "protocol.setting"."""
    settings = {name: value for name, value in record["settings"].items() if name not in ("seed", "endpoints")}
    settings |= {"split": record["split"], "selected_on": record["selected_on"]}
    if record["protocol"] == "linear":
        settings["ten_crop"] = any("ten_crop_top1" in found for found in record["results"].values())
    return {f"{record['protocol']}.{name}": value for name, value in settings.items() if value is not None}
