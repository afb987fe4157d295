"""What an export says of itself, its backbone.json: read and checked. No TensorFlow."""

from pathlib import Path

from data.errors import UserError
from la_tf import model_dir
from models.backbone import checked_architecture

FORMAT = 1
FILE = "backbone.json"


def read_description(folder):
    """Returns backbone.json of an export; raises UserError when the folder is no export, or a damaged one."""
    path = Path(folder) / FILE
    if not path.exists():
        raise UserError(f"--export={folder}: no export (it has no {FILE}); make one by la_tf.export")
    try:
        description = model_dir.read_json(path)
        if description.get("format") != FORMAT:
            raise UserError(f"{path}: is format {description.get('format')!r:.40}, this version reads {FORMAT}")
        model_dir.checked(path, description, architecture=dict, embedding_dim=int, endpoints=list, step=int)
        for name in ("config", "imported", "view"):  # which not every export has
            if description.get(name) is not None:
                model_dir.checked(path, description, **{name: dict})
        view = description.get("view")
        if view is None:  # of before there was one
            view = {"image_size": 0}
        model_dir.checked(path, {"common_size": None, **view}, image_size=int, common_size=list | None)
        if unknown := view.keys() - {"image_size", "kind", "common_size"}:
            raise ValueError(f"view has an unknown {min(unknown)}")
        checked_architecture(description["architecture"])
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); export again") from None
    return description
