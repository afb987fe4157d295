"""What is said of our results in a table of the paper: labels of lines, marks, caption, notes. No TensorFlow."""

import itertools
import json
import re

from la_tf.paper_tables import DATA_SETS, backbone_title

EMPTY = "·"  # our sign for a number that we do not have
MARKS = {
    "†": "selected on the test split",
    "‡": "scored on the validation slice of the train split",
    "§": "it is not known whether the network was trained on these pictures",
    "‖": "pictures of the test set were learned from",
    "¶": "a smoke run: it saw fewer pictures than its schedule asks for, so it says nothing of the method",
}
MOST_SAID = 3  # differences between lines that a label spells out
# Said by a mark or by the name of the data set.
NOT_SAID = {"data_set", "split", "selected_on", "select_on", "smoke", "learned_test_pictures"}
SYMBOLS = {
    "clusterings": "H", "clusters": "m", "background_k": "k", "close_k": "k'", "neighbors": "K",
    "background_clusterings": "H of B_i", "background_clusters": "m of B_i",
}  # fmt: skip
BOOLEANS = {
    "batch_norm": ("with BN", "without BN"), "sobel": ("Sobel", "without Sobel"), "fast": ("fast", "by SGD"),
    "ten_crop": ("10 crops", "one crop"),
}  # fmt: skip
TITLES = {"knn": "KNN", "linear": "Readouts", "detection": "Detection"}


def marks(entry):
    """Returns the marks behind a number of ours."""
    record = entry.record
    unknown = record["protocol"] != "detection" and record["dataset"].get("own") is None
    learned, smoke = (record["settings"].get(name, 0) for name in ("learned_test_pictures", "smoke"))
    holds = (record["selected_on"] == "test", record["split"] == "validation", unknown, learned, smoke)
    return "".join(mark for mark, this in zip(MARKS, holds, strict=True) if this)


class Wording:
    """Words for the Entries `placed` in a paper_tables.Table; a line is a list of Entries, one for each part of it."""

    def __init__(self, table, placed):
        self.table, self.placed = table, placed
        # data_set -> its record, its short name
        self.pictures = {entry.fields["data_set"]: entry.record["dataset"] for entry in placed}
        self.names = _told_apart(self.pictures)
        # (protocol, setting) -> the values that it has, a dict keyed by their JSON
        self.settings = {}
        for entry in placed:
            for name, value in entry.fields.items():
                if "." in name and name.split(".")[1] not in NOT_SAID:
                    self.settings.setdefault((*name.split("."),), {})[_key(value)] = value

    def data_set(self, entry):
        """Returns the short name of the pictures that an Entry is about."""
        return self.names[entry.fields["data_set"]]

    def label(self, line, lines):
        """Returns what sets `line` apart from the paper's row, from the other `lines` below it, and in the table."""
        pictures = line[0].fields["data_set"]
        siblings = [other for other in lines if other[0].fields["data_set"] == pictures]
        said = [self.names[pictures]] if len(self.names) > 1 else []
        said += [*_departures(line), *_differences(line, siblings), *self._choices(line)]
        return "; ".join(dict.fromkeys(said))

    def _choices(self, line):
        """The settings that have several values in the table, by protocol."""
        by_protocol = {}
        for entry in line:
            for (protocol, setting), values in self.settings.items():
                if len(values) > 1 and f"{protocol}.{setting}" in entry.fields:
                    by_protocol.setdefault(protocol, {})[setting] = entry.fields[f"{protocol}.{setting}"]
        return [f"{TITLES[protocol]}: {_listed(settings)}" for protocol, settings in by_protocol.items()]

    def caption(self):
        """Returns what the table is in the paper, and what our numbers are on."""
        table = self.table
        number = f"Supplementary Table {table.name[1:]}" if table.name[0] == "S" else f"Table {table.name}"
        unit = "in %" if table.name == "3" else "top-1 in %"
        caption = f"{number} of Zhuang, Zhai and Yamins (2019): {table.caption}; {unit}."
        if not self.placed:
            return caption
        paper = DATA_SETS[table.data]
        others = [self.names[key] for key, dataset in self.pictures.items() if not paper.is_this(dataset)]
        where = " and ".join(self.names.values())
        if others:
            where += (
                f", not {table.data}"
                if len(others) == len(self.names)
                else f" ({' and '.join(others)}: not {table.data})"
            )
        return f"{caption} Lines with “here” are runs of la_tf on {where if others else table.data}."

    def notes(self):
        """Yields what has to be known to read our numbers."""
        if not self.placed:
            return
        yield (
            "here: mean ± sample standard deviation over n runs that differ in nothing but the seed; a single run has "
            f"no ±. {EMPTY}: a number that we do not have; –: one that the paper does not have."
        )
        for key, dataset in self.pictures.items():
            test = f"{dataset['test']:,} test pictures, " if dataset.get("test") else ""
            yield f"{self.names[key]}: {dataset['train']:,} training pictures, {test}{dataset['classes']:,} classes."
        yield from self._settings_notes()
        yield from self._feature_notes()
        if self.table.name in ("5", "S1"):
            yield (
                "Our m stands at the paper's (H, m) where it is that number, or the same part of N to a tenth "
                "(ImageNet: N = 1,281,167); where it is another number, the line says which."
            )
        if self.table.name == "S3":
            yield "k = 2048 and k = 8192, here: that number, or half and twice the k that follows from our N."
        used = {mark for entry in self.placed for mark in marks(entry)}
        yield from (f"{mark}: {meaning}." for mark, meaning in MARKS.items() if mark in used)

    def _settings_notes(self):
        """What the results of a protocol have in common."""
        for protocol in dict.fromkeys(protocol for protocol, _ in self.settings):
            found = [entry for entry in self.placed if entry.record["protocol"] == protocol]
            everywhere, somewhere = {}, {}
            for (of, setting), values in self.settings.items():
                if of == protocol and len(values) == 1:
                    in_all = all(f"{protocol}.{setting}" in entry.fields for entry in found)
                    (everywhere if in_all else somewhere)[setting] = next(iter(values.values()))
            said = [_listed(everywhere)] if everywhere else []
            said += [f"where it applies: {_listed(somewhere)}"] if somewhere else []
            if said:
                yield f"{TITLES[protocol]}, here: {'; '.join(said)}."

    def _feature_notes(self):
        """How many features the readouts saw."""
        places = {}
        for entry in self.placed:
            found = entry.record["results"] if entry.record["protocol"] == "linear" else {}
            sizes = ", ".join(f"{name} {one['features']:,}" for name, one in found.items() if "features" in one)
            if sizes:
                places.setdefault(sizes, {})[f"{entry.section}: {entry.row}"] = None
        for sizes, lines in places.items():
            yield f"Features read out, here ({', '.join(lines)}): {sizes}."


def _departures(line):
    """What is not as in the paper's row."""
    for entry in line:
        for name in entry.departures:
            several = name in entry.own and len(line) > 1
            yield phrase(f"{entry.part}: {name}" if several else name, entry.fields[name])


def _differences(line, siblings):
    """What sets a line apart from others below the same row on the same pictures, by facts of the network."""
    facts = [_facts(other) for other in siblings]
    names = [name for name in dict.fromkeys(itertools.chain(*facts)) if _kinds(facts, [name]) > 1]
    said = names
    if len(names) > MOST_SAID:  # those that suffice to tell the lines apart
        said = []
        for name in names:
            if _kinds(facts, [*said, name]) > _kinds(facts, said):
                said.append(name)
    rest = len(names) - len(said)
    own = {name: value for name, value in _facts(line).items() if name in said}
    return [phrase(name, value) for name, value in own.items()] + ([f"and {rest} other settings"] if rest else [])


def _facts(line):
    """The facts of the network in a line that `_departures` does not tell; those of one part under the part's name."""
    facts = {}
    for entry in line:
        facts |= {name: value for name, value in entry.shared.items() if _is_fact(name, entry)}
        facts |= {f"{entry.part}: {name}": value for name, value in entry.own.items() if _is_fact(name, entry)}
    return facts


def _is_fact(name, entry):
    return "." not in name and name not in NOT_SAID and name not in entry.expected


def _kinds(facts, names):
    """How many kinds of lines there are by these names; a line without the part that a name is of is no kind of it."""
    has_parts = (one for one in facts if all(name in one for name in names if ": " in name))
    return len({_key([one.get(name) for name in names]) for one in has_parts})


def phrase(name, value):
    """Returns how a label says that a field has a value: "width 16", "without BN", "m 34"."""
    part, _, name = name.rpartition(": ")
    words = name.replace("_", " ")
    if isinstance(value, bool):
        said = BOOLEANS.get(name, (words, f"no {words}"))[not value]
    elif name == "image_size":
        said = f"{value} px"
    elif name == "backbone":
        said = backbone_title(value)
    elif name == "data":
        said = f"trained on pictures {str(value)[:6]}"
    else:
        said = f"{SYMBOLS.get(name, words)} {_value(value)}"
    return f"{part}: {said}" if part else said


def _value(value):
    if isinstance(value, list):
        return "-".join(map(str, value)) or "none"
    if isinstance(value, int) and value >= 10000:
        return f"{value:,}"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _listed(settings):
    return ", ".join(phrase(name, value) for name, value in settings.items())


def _key(value):
    return json.dumps(value, sort_keys=True)


def _told_apart(pictures):
    """Short names of data sets; where several have the same, with the beginnings of those hashes that differ."""
    names = {key: short_name(dataset["spec"]) for key, dataset in pictures.items()}
    told = {}
    for key, name in names.items():
        same = [pictures[other] for other in names if names[other] == name]
        differ = [part for part in ("hash", "test_hash") if len({dataset.get(part) for dataset in same}) > 1]
        told[key] = " ".join([name, *(str(pictures[key].get(part))[:6] for part in differ)])
    return told


def short_name(spec):
    """Returns what a data set is called: "folder:/data/scenes" is scenes, "tfds:cifar10:3.0.2" cifar10."""
    form, _, rest = spec.partition(":")
    if not rest or form == "tfds":
        return rest.partition(":")[0] or form
    parts = [part for part in rest.split(",")[0].split("/") if part and not set(part) & set("*?[")]
    return re.sub(r"\.\w+$", "", parts[-1]) if parts else rest
