"""Pictures with captions side by side in one array, by Pillow: quick enough for every epoch. No TensorFlow."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP, WORDS = 6, 12  # px as all lengths here
LINE = WORDS + 4
INK, PAPER = "#222222", "white"


def tiled(pictures, captions, side=96):
    """Returns a table of pictures, each above its caption, as uint8 `[h, w, 3]`.

    pictures: rows of pictures `[s, s, 3]` in [0, 1]; captions: rows of (text, colour), lines parted by a newline; what
    is too long for `side`, the width of a picture, is cut off with an ellipsis.
    """
    lines = max(text.count("\n") + 1 for row in captions for text, _ in row)
    width, height = side + GAP, side + LINE * lines + GAP
    columns = max(len(row) for row in pictures)
    sheet = Image.new("RGB", (columns * width + GAP, len(pictures) * height + GAP), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(WORDS)
    for down, (row, words) in enumerate(zip(pictures, captions, strict=True)):
        for across, (picture, (text, color)) in enumerate(zip(row, words, strict=True)):
            left, top = GAP + across * width, GAP + down * height
            sheet.paste(scaled(picture, side), (left, top))
            for number, line in enumerate(text.split("\n")):
                pen.text((left, top + side + 1 + number * LINE), _fitting(line, side, font), color, font)
    return np.asarray(sheet)


def scaled(picture, side):
    """Returns a picture `[s, s, 3]` in [0, 1] as an Image of `side` px; small ones keep the edges of their pixels."""
    image = Image.fromarray(np.uint8(np.clip(picture, 0, 1) * 255 + 0.5))
    how = Image.Resampling.NEAREST if side > image.width else Image.Resampling.BOX
    return image.resize((side, side), how)


def _fitting(text, width, font):
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
