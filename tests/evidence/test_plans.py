"""What was not run: the plans that stand in for it."""

from pathlib import Path

from evidence import page, plans
from evidence.cells import Place, digest
from la_tf import commands

PLAN = {
    "plan": {
        "images": 1281167, "devices": 1, "steps": {"ir": 100_000, "la": 1_900_000},
        "step_seconds": {"ir": 14.84, "la": 17.7}, "clustering_seconds": {"from nothing": 7200.0, "from the last": 1.0},
    },
    "memory_bytes": 7_930_000_000,
    "run_hours": 24 * 488.6,
}  # fmt: skip


def test_each_preset_is_planned_once_for_imagenet_and_told(monkeypatch, tmp_path):
    asked = []

    def run(main, *flags, log):
        asked.append((main, *flags))
        return PLAN

    monkeypatch.setattr(commands, "run", run)
    place = Place(tmp_path, "/pictures", {})
    known = {"alexnet": digest(plans.flags("alexnet")), "resnet18": "of other flags"}
    known = {plans.key(preset): {"cell": {"settings": settings}} for preset, settings in known.items()}
    lines = [*plans.lines(place, known)]
    assert [page.key(line)[1] for line in lines] == ["resnet18", "resnet50"]
    assert asked[0] == (
        "la_tf.train", "--flagfile=resnet18.flags", "--dataset=folder:/pictures/imagenette224", "--plan",
        "--plan_size=1281167",
    )  # fmt: skip
    text = page.of([], lines)
    assert "| resnet18 | 2,000,000 |" in " ".join(text.split())
    assert "7.9 GB | 14.8 s | 17.7 s | 2.0 h | 489 days |" in " ".join(text.split())
    assert "python -m la_tf.train --flagfile=resnet50.flags --dataset=folder:$LA_TF_DATA/imagenette224" in text
    older = dict(lines[0]["cell"], settings="of other flags")
    assert "| resnet18 |" not in page.of([], [lines[0] | {"cell": older}, lines[1]])
    assert "/pictures" not in text and "What was not run" in text


def test_the_presets_are_there():
    for preset in plans.PRESETS:
        assert (Path(__file__).parents[2] / f"{preset}.flags").exists()
