"""If these fail, Pillow decodes what may fill the memory, or says so on stderr in words of its own."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data import conversion, pixel_limit
from data.picture_size import upright_size
from data.pixel_limit import TooManyPixels, opened
from data.sources import FileSource, Split
from tests.data.bombs import declared
from tests.data.pictures import encoded, smooth
from tests.programs import ROOT

FORMATS = ("PNG", "GIF", "JPEG", "WEBP", "BMP")


def test_a_picture_is_opened_up_to_the_limit(monkeypatch):
    data = encoded(smooth(1, 4, 6))
    for most in (24, 23):
        monkeypatch.setattr(pixel_limit, "MOST_PIXELS", most)
        try:
            with opened(io.BytesIO(data), FORMATS) as picture:
                assert picture.size == (6, 4)
        except TooManyPixels as error:
            assert most == 23 and str(error) == "has 6 x 4 pixels, more than the 178,956,970 that are read"
        else:
            assert most == 24


@pytest.mark.parametrize("form", ["png", "jpeg", "gif", "webp lossless"])
@pytest.mark.parametrize("own_limit", [1000, 2**30 // 12, None], ids=str)
def test_whatever_limit_pillow_has_more_is_not_opened(form, own_limit, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", own_limit)
    data = io.BytesIO(declared(form, 16_000, 16_000))
    with pytest.raises(TooManyPixels, match="than the 178,956,970 that are read"), opened(data, FORMATS):
        pass


def test_pillow_does_not_warn_from_half_of_the_limit_on(tmp_path):
    code = "import sys; from data.pixel_limit import opened; opened(open(sys.argv[1], 'rb'), ['PNG']).__enter__()"
    (tmp_path / "large.png").write_bytes(declared("png", 13_377, 13_377))
    command = [sys.executable, "-c", code, str(tmp_path / "large.png")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_no_reader_by_pillow_decodes_a_bomb(tmp_path):
    data = declared("png", 65_500, 65_500)
    assert conversion.to_png(data) is None
    with pytest.raises(ValueError, match=r"^has more pixels than the 178,956,970 that are read$"):
        upright_size(io.BytesIO(data))
    (tmp_path / "bomb.png").write_bytes(data)
    split = Split("folder:x", "train", "photo", np.array([0]), FileSource(str(tmp_path), ["bomb.png"]))
    assert split.common_size is None
