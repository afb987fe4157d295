"""Shows a data set before training: python -m data.show --dataset=folder:PATH --out=grid.png

A row per picture: as evaluation sees it, then its views, exactly those that training with this --seed makes.  Below:
class counts, sizes, mean and deviation of each channel, and what was found wrong.
"""

import contextlib
import os
import sys

import numpy as np
from absl import flags

from data import cli
from data.augmentation import AUGMENTATION_FLAGS, augmentation_for, multi_crop, transfer_augmentation
from data.config import image_size_for, open_configured, require_dataset
from data.errors import FlagError, UserError
from data.findings import summary
from data.flags import data_config
from data.overview import channel_statistics, chosen_rows, look_at
from data.sources import evenly_spaced

VIEWS = ("train", "transfer", "patch", "multi_crop", "ten_crop")
EXTENSIONS = (".png", ".svg", ".pdf")
MOST = 50  # rows and columns
MEASURED = 1_000  # views
BAD_SHOWN = 4

flags.DEFINE_string("out", None, f"The file to draw into: {' | '.join(EXTENSIONS)}.")
flags.DEFINE_string("view", "train", f"Whose views: {' | '.join(VIEWS)}.")
flags.DEFINE_integer("pictures", 6, "Pictures to show.")
flags.DEFINE_integer("views", None, "Views of each, one an epoch. Default: 7; multi_crop has 2 or 8, ten_crop 10.")
flags.DEFINE_integer("seed", 0, "The seed of the run whose views are shown.")


def main():
    """Draws the sheet; returns what it says in numbers."""
    config, out, view = data_config(), flags.FLAGS["out"].value, flags.FLAGS["view"].value
    _check_flags(config, out, view)
    dataset = open_configured(config)
    _make_folder(out)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # all of this is the processor's work
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what is broken is told in other words
    cli.load_tensorflow()
    from data import figures

    split, image_size = dataset.train, image_size_for(config, dataset)
    looked_at, findings = look_at(split, config.workers)
    good = looked_at[findings.good]
    bad = [(split.names[looked_at[row]], reason) for row, reason in findings.problems.items()]
    if not len(good):
        raise UserError(f"--dataset={config.dataset}: nothing in it can be decoded; {bad[0][0]} {bad[0][1]}")
    measured = good[evenly_spaced(len(good), MEASURED)]
    mean, std = channel_statistics(split, image_size, measured, config.workers)
    numbers = summary(split, dataset.class_names, findings) | {"looked_at": len(looked_at)}
    counts = np.bincount(split.labels[split.labels >= 0], minlength=dataset.class_count)
    names = [*dataset.class_names, *map(str, range(len(dataset.class_names), len(counts)))]

    print("drawing", file=sys.stderr)
    rows = chosen_rows(split.labels, good, flags.FLAGS["pictures"].value, flags.FLAGS["seed"].value)
    captions = [
        _caption(split, names, *each)
        for each in zip(rows, findings.facts[np.searchsorted(looked_at, rows)], strict=True)
    ]
    groups, pictures, done = _drawn_views(config, split, rows, image_size, view)
    facts = figures.Facts(
        class_names=names,
        counts=counts,
        sizes=np.stack([findings.facts[side][findings.good] for side in ("width", "height")], axis=1),
        image_size=image_size,
        mean=mean,
        std=std,
        measured=len(measured),
        remarks=_remarks(numbers, bad),
    )
    lines = [(*caption, shown) for caption, shown in zip(captions, pictures, strict=True)]
    try:
        figures.save(figures.sheet(_title(dataset), f"--view={view}: {done}", groups, lines, facts), out)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror})") from error
    return {
        "dataset": dataset.spec,
        "out": out,
        "view": view,
        "image_size": image_size,
        "shown": [split.names[row] for row in rows],
        "pixel_mean": [round(float(x), 4) for x in mean],
        "pixel_std": [round(float(x), 4) for x in std],
        "measured": len(measured),
        **numbers,
        "first_bad": bad[:BAD_SHOWN],
        "counts": list(zip(names, counts.tolist(), strict=True)),
    }


def _check_flags(config, out, view):
    require_dataset(config)
    if not out:
        raise FlagError("--out: set it to the file to draw into, e.g. --out=grid.png")
    if not out.lower().endswith(EXTENSIONS):
        raise FlagError(f"--out={out}: must end in {', '.join(EXTENSIONS)}")
    if view not in VIEWS:
        raise FlagError(f"--view={view}: choose one of {', '.join(VIEWS)}")
    for name in ("pictures", "views"):
        value = flags.FLAGS[name].value
        if value is not None and not 1 <= value <= MOST:
            raise FlagError(f"--{name}={value}: must be 1 to {MOST}")
    if flags.FLAGS["views"].value and view.endswith("crop"):
        raise FlagError(f"--views={flags.FLAGS['views'].value}: --view={view} has a number of views of its own")
    for name in AUGMENTATION_FLAGS:
        if view == "ten_crop" and getattr(config, name) is not None:
            raise FlagError(f"--{name}={getattr(config, name)}: changes the views of training, not --view={view}")
    if view == "patch" and config.crop_min_area is not None:
        raise FlagError(f"--crop_min_area={config.crop_min_area}: patches have one size; take --view=transfer")


def _make_folder(out):
    folder = os.path.dirname(out) or "."
    try:
        with contextlib.suppress(FileNotFoundError):
            os.stat(out)  # tells a name that is too long; makedirs would go to the end of it
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={out}: {folder} cannot be made ({error.strerror})") from error
    if not os.access(folder, os.W_OK):  # better known now than when all is drawn
        raise UserError(f"--out={out}: nothing can be written into {folder}")


def _drawn_views(config, split, rows, image_size, view):
    """(groups of columns, for each of `rows` its pictures, what is done to them), as data.figures takes them."""
    from data.pipeline import evaluation_batches, views_of

    seed, epochs = flags.FLAGS["seed"].value, flags.FLAGS["views"].value or 7
    plain = next(
        evaluation_batches(split, image_size, len(rows), rows, ten_crop=view == "ten_crop").as_numpy_iterator()
    )
    evaluation = ("evaluation", [1.0])
    if view == "ten_crop":
        groups = [evaluation, ("ten-crop: centre and corners", [1.0] * 5), ("the same, mirrored", [1.0] * 5)]
        return groups, zip(plain["image"], *plain["views"], strict=True), f"{image_size} px, colours as they are"
    if view == "multi_crop":
        views = multi_crop(split.kind, image_size, overrides=config)
        (batch,) = views_of(split, rows, views, seed, 1).as_numpy_iterator()
        groups = [evaluation, ("2 large views, epoch 0", [1.0, 1.0])]
        subtitle = _described(views[0])
        if small := views[2:]:
            groups.append((f"{len(small)} small views", [small[0].image_size / image_size] * len(small)))
            subtitle += f"; small: {_described(small[0], colours=False)}"
        return groups, zip(plain["image"], *batch["views"], strict=True), subtitle
    if view == "train":
        augmentation, whose = augmentation_for(split.kind, image_size, config), "training"
    else:
        augmentation, whose = transfer_augmentation(split.kind, image_size, view == "patch", config), "readouts"
    batches = [batch["image"] for batch in views_of(split, rows, augmentation, seed, epochs).as_numpy_iterator()]
    heading = f"{whose}, epochs 0 to {epochs - 1}" if epochs > 1 else f"{whose}, epoch 0"
    groups = [evaluation, (heading, [1.0] * epochs)]
    return groups, zip(plain["image"], *batches, strict=True), _described(augmentation)


def _described(augmentation, colours=True):
    """What is done to a picture, in words."""
    hue = augmentation.jitter if augmentation.hue is None else augmentation.hue
    changes = {
        "a square of 7/8 of the short side": augmentation.patch,
        f"crops of {augmentation.crop_min_area or 0:.0%} to {augmentation.crop_max_area:.0%} of the area": (
            augmentation.crop_min_area
        ),
        f"turned by up to {augmentation.rotation:g}°": augmentation.rotation,
        f"size ± {augmentation.scale:.0%}": augmentation.scale,
        f"shift ± {augmentation.shift:.0%}": augmentation.shift,
        f"shear ± {augmentation.shear:.0%}": augmentation.shear,
        "mirrored or not": augmentation.flip,
        f"brightness, contrast, saturation ± {augmentation.jitter:.0%}": colours and augmentation.jitter,
        f"hue ± {360 * hue:.0f}°": colours and hue,
        f"{augmentation.grayscale:.0%} gray": colours and augmentation.grayscale,
        f"{augmentation.blur:.0%} blurred": colours and augmentation.blur,
    }
    return ", ".join([f"{augmentation.image_size} px", *(words for words, done in changes.items() if done)])


def _title(dataset):
    test = f", test {dataset.test.size:,}" if dataset.test else ", no test split"
    return f"{dataset.spec}: train {dataset.train.size:,} pictures{test}"


def _caption(split, names, row, facts):
    """(name, size) of the picture `row`: its class, or else its file."""
    label = int(split.labels[row])
    turned = ", turned" if facts["orientation"] > 1 else ""
    name = names[label] if label >= 0 else os.path.basename(split.names[row])
    return name, f"{facts['width']} × {facts['height']} px{turned}"


def _remarks(numbers, bad):
    looked_at, total, labelled = numbers["looked_at"], numbers["images"], numbers["labelled"]
    if 0 < labelled < total:
        yield f"{total - labelled:,} of {total:,} have no label"
    yield f"looked at {f'all {total:,}' if looked_at == total else f'{looked_at:,} of {total:,}, evenly spaced'}:"
    yield f"{numbers['gray']:,} without colour"
    yield f"{numbers['exif_rotated']:,} turned by EXIF" + (", shown upright" if numbers["exif_rotated"] else "")
    yield f"{len(bad):,} cannot be decoded" + (": training leaves them out" if bad else "")
    for name, reason in bad[:BAD_SHOWN]:
        yield f"  {name}"
        yield f"    {reason}"
    if len(bad) > BAD_SHOWN:
        yield "  ... (data.check lists them all)"


if __name__ == "__main__":
    cli.run(main)
