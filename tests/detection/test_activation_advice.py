"""What a user is told to do with batch norms, case by case, and that the table can be read in a terminal."""

import pytest

from detection.activation_advice import advice, conclusion, scale_warning, table

ENOUGH, FEW = 4, 3  # pictures in a batch


@pytest.mark.parametrize(
    ("drift", "of_pretraining", "batch_size", "devices", "wanted"),
    [
        (0.25, None, 1, 1, "frozen"),  # 0.25 is small without anything to compare with
        (0.2501, None, 1, 1, "recalibrated"),
        (0.25, 0.1, 1, 1, "frozen"),  # and whatever it is on its own pictures
        (0.2501, 0.1, 1, 1, "recalibrated"),
        (0.375, 0.25, 16, 8, "frozen"),  # half as much again as on its own pictures
        (0.3751, 0.25, 16, 8, "synchronised"),
        (0.5, 0.75, 1, 1, "frozen"),  # 0.5 is large whatever they do
        (0.5001, 0.75, 1, 1, "recalibrated"),
        (0.75, 0.75, 4, 1, "local"),  # an untrained network's
        (0.0, 0.0, 16, 8, "frozen"),
        (0.6, 0.1, FEW, 1, "recalibrated"),
        (0.6, 0.1, FEW, 3, "recalibrated"),
        (0.6, 0.1, ENOUGH, 1, "local"),
        (0.6, 0.1, ENOUGH, 2, "synchronised"),
        (0.6, None, 16, 1, "local"),
    ],
)
def test_which_batch_norm(drift, of_pretraining, batch_size, devices, wanted):
    suggestion, reason = advice(drift, of_pretraining, batch_size, devices)
    assert suggestion == wanted
    assert f"off their stored statistics by {drift:.2f}" in reason
    assert ("on its own pictures" in reason) is (of_pretraining is not None)


@pytest.mark.parametrize(
    ("drift", "batch_size", "devices", "said"),
    [
        (0.1, 1, 1, "by 0.10 (0.08 on its own pictures), no more than their own fluctuation"),
        (0.6, 2, 1, "by 0.60 (0.08 on its own pictures), and a batch of 2 is too small for statistics of its own"),
        (0.6, 8, 1, "by 0.60 (0.08 on its own pictures), and a batch of 8 has enough pictures"),
        (0.6, 8, 2, "by 0.60 (0.08 on its own pictures), and the batch of 8 on 2 devices has enough pictures"),
    ],
)
def test_reasons_have_the_numbers(drift, batch_size, devices, said):
    assert advice(drift, 0.08, batch_size, devices)[1] == f"what batch norms get is off their stored statistics {said}"


@pytest.mark.parametrize("deviation", [0.1, 0.7, 2.0])
def test_a_usual_scale_needs_no_word(deviation):
    assert scale_warning(deviation, "conv4", True, 4) is None


@pytest.mark.parametrize(
    ("deviation", "endpoint", "norms", "batch_size", "what", "remedy"),
    [
        (
            2.01, "conv4", True, 4, "2.01, large for the fresh layers behind it, which may diverge under frozen norms",
            "let norms learn (--batch_norm=local or synchronised, --extra_norm), or take a quarter of the",
        ),
        (
            0.099, "conv5", True, 16,
            "0.099, small for the fresh layers behind it, which will learn slowly under frozen norms",
            "let norms learn (--batch_norm=local or synchronised), or raise the",
        ),
        (
            12.3, "conv5", False, 4, "12.3, large for the fresh layers behind it, which may diverge",
            "take a quarter of the",
        ),
        (
            12.3, "conv4", False, 4, "12.3, large for the fresh layers behind it, which may diverge",
            "let norms learn (--extra_norm), or take a quarter of the",
        ),
        (
            2.01, "conv5", True, 3, "2.01, large for the fresh layers behind it, which may diverge under frozen norms",
            "take a quarter of the",
        ),
    ],
)  # fmt: skip
def test_an_unusual_scale_is_told_with_what_this_backbone_can_do(deviation, endpoint, norms, batch_size, what, remedy):
    wanted = f"{endpoint} has a deviation of {what}: {remedy} --learning_rate"
    assert scale_warning(deviation, endpoint, norms, batch_size) == wanted


# -- together ---------------------------------------------------------------------------------------------------------


def drifted(drift):
    return {"shift": 0.2, "ratio": 1.3, "drift": drift}


def stages(sd=0.7, norms=None):
    """Of the endpoints conv1 to conv5."""
    return {f"conv{n}": {"mean": 0.3, "sd": sd, "norms": norms} for n in range(1, 6)}


def test_own_pictures_are_compared_with_where_there_are_any():
    seen = {"detection": stages(norms=drifted(0.4)), "pretraining": stages(norms=drifted(0.3))}
    drifts = {"detection": drifted(0.4), "pretraining": drifted(0.3)}
    assert conclusion(seen, drifts, "conv4", 1, 1)["suggestion"] == "frozen"
    del seen["pretraining"], drifts["pretraining"]
    found = conclusion(seen, drifts, "conv4", 1, 1)
    assert found["suggestion"] == "recalibrated" and found["warning"] is None


def test_the_warning_is_of_the_map_that_regions_are_pooled_from():
    seen = {"detection": stages() | {"conv4": {"mean": 0.0, "sd": 5.0, "norms": None}}}
    drifts = {"detection": drifted(0.1)}
    assert conclusion(seen, drifts, "conv4", 1, 1)["warning"].startswith("conv4 has a deviation of 5, large")
    assert conclusion(seen, drifts, "conv5", 1, 1)["warning"] is None


def test_without_batch_norms_there_is_nothing_to_choose():
    found = conclusion({"detection": stages(sd=5.0)}, {"detection": None}, "conv5", 1, 1)
    assert found["suggestion"] is None and "no batch norms" in found["reason"]
    assert "deviation of 5" in found["warning"] and "norms" not in found["warning"]


def test_the_table_fits_a_terminal_and_has_every_number():
    fully = {"fc6": {"mean": 123.4567, "sd": 1234.5678, "norms": None}}
    seen = {"detection": stages(norms=drifted(0.4)), "pretraining": stages(norms=drifted(0.3)) | fully}
    names = {"detection": "2007_trainval+2012_trainval", "pretraining": "pretraining"}
    lines = table(seen, {"detection": drifted(0.45), "pretraining": None}, names).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["endpoint", "pictures", "mean", "sd", "norms:", "shift", "sd", "ratio", "drift"]
    rows = [line.split() for line in lines[2:]]
    assert [row[0] for row in rows] == [*(f"conv{n}" for n in range(1, 6) for _ in seen), "fc6", "all", "all"]
    assert rows[0] == ["conv1", names["detection"], "0.300", "0.700", "0.20", "1.30", "0.40"]
    assert rows[1] == ["conv1", "pretraining", "0.300", "0.700", "0.20", "1.30", "0.30"]
    assert rows[-3] == ["fc6", "pretraining", "123.457", "1234.568", "-", "-", "-"]
    assert rows[-2:] == [
        ["all", names["detection"], "0.20", "1.30", "0.45"],
        ["all", "pretraining", "-", "-", "-"],
    ]
