"""The data set spec: one string that says where the pictures come from."""

from data.errors import FlagError

FORMS = {
    "digits": "digits",
    "folder": "folder:PATH",
    "list": "list:FILE",
    "tfrecord": "tfrecord:GLOB|DIR",
    "tfds": "tfds:NAME[/CONFIG][:VERSION]",
}
IMAGENET_HINT = (
    "for ImageNet unpack the ILSVRC2012 archives to PATH/train/<wnid>/*.JPEG and PATH/val/<wnid>/*.JPEG "
    "and give folder:PATH"
)


def parse_spec(spec: str) -> tuple[str, str]:
    """`"folder:/pictures"` -> `("folder", "/pictures")`; raises FlagError for a form that does not exist."""
    if "\0" in spec:  # flagfiles may hold one
        raise FlagError(f"--dataset={spec}: holds a zero byte, which no path does")
    form, colon, rest = spec.partition(":")
    takes_argument = ":" in FORMS.get(form, "")
    if form not in FORMS or bool(rest) != takes_argument or (colon and not takes_argument):
        raise FlagError(f"--dataset={spec}: unknown data set; the forms are {' | '.join(FORMS.values())}")
    return form, rest


def missing_dataset() -> FlagError:
    """The error for a run that was given no data set."""
    return FlagError(f"--dataset is not set: give {' | '.join(FORMS.values())}; {IMAGENET_HINT}")
