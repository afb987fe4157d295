import json
import subprocess
import sys

import pytest

from models import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


@pytest.mark.parametrize(
    ("image_size", "short_side"),
    [(224, 256), (448, 512), (112, 128), (96, 110), (64, 64), (32, 32), (8, 8)],  # 96 * 256 / 224 = 109.7
)
def test_short_side_keeps_the_papers_margin_and_none_for_small_images(image_size, short_side):
    assert Preprocessing(image_size=image_size).short_side == short_side


def test_defaults_are_imagenets():
    spec = Preprocessing()
    assert spec.mean == IMAGENET_MEAN == (0.485, 0.456, 0.406)
    assert spec.std == IMAGENET_STD == (0.229, 0.224, 0.225)
    assert (spec.image_size, spec.short_side, spec.channel_order) == (224, 256, "RGB")


def test_survives_json():
    spec = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 1), image_size=40, short_side=48, channel_order="BGR")
    assert Preprocessing.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_from_json_names_unknown_and_missing_keys():
    fields = Preprocessing().to_json()
    with pytest.raises(ValueError, match="unknown key crop_size, scale;"):
        Preprocessing.from_json({**fields, "scale": 255, "crop_size": 7})
    with pytest.raises(ValueError, match="missing key std"):
        Preprocessing.from_json({key: value for key, value in fields.items() if key != "std"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (
            "mean",
            (123.68, 116.78, 103.94),
        ),  # 0..255 units: everything would be shifted by hundreds of deviations
        ("mean", (0.5, 0.5)),
        ("mean", 0.5),
        ("mean", (0.5, 0.5, float("nan"))),
        ("mean", (0.5, 0.5, "0.5")),
        ("std", (0.2, 0.0, 0.2)),
        ("std", (58.4, 57.1, 57.4)),
        ("image_size", 0),
        ("image_size", 224.0),
        ("image_size", True),
        ("short_side", 200),  # the crop would not fit
        ("channel_order", "bgr"),
    ],
)
def test_refuses_bad_values_and_names_the_field(field, value):
    with pytest.raises(ValueError, match=f"^{field}="):
        Preprocessing(**{field: value})


def test_importing_models_does_not_import_tensorflow():
    code = "import sys, models; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
