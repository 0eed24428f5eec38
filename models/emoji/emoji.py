"""The emoji that the model learns: Google's Noto Color Emoji at 32x32, in eight classes made of Unicode's subgroups.

Needs two Debian packages, `fonts-noto-color-emoji` (SIL Open Font License 1.1) and `unicode-data`; both files may also
be given by `NOTO_COLOR_EMOJI` and `EMOJI_TEST`. Only emoji of one code point are used: no flags, no skin tones.
"""

import os
import re

import torch
from PIL import Image, ImageDraw, ImageFont

FONT = os.environ.get("NOTO_COLOR_EMOJI", "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
TEST = os.environ.get("EMOJI_TEST", "/usr/share/unicode/emoji/emoji-test.txt")

# Class name, and what the names of its subgroups in emoji-test.txt begin with.
CLASSES = [
    ("faces", ("face-", "cat-face", "monkey-face")),
    ("hearts", ("heart",)),
    ("animals", ("animal-",)),
    ("plants", ("plant-",)),
    ("food", ("food-", "drink")),
    ("places", ("place-building", "place-religious", "place-geographic", "place-other")),
    ("transport", ("transport-ground", "transport-water", "transport-air")),
    ("weather", ("sky & weather",)),
]
NO_CLASS = len(CLASSES)


def code_points() -> list[tuple[str, int]]:
    """(emoji, class) in the order of emoji-test.txt."""
    found = []
    subgroup = ""
    for line in open(TEST, encoding="utf-8"):
        if line.startswith("# subgroup:"):
            subgroup = line.split(":", 1)[1].strip()
        elif entry := re.match(r"([0-9A-F ]+?)\s*; fully-qualified", line):
            points = [int(point, 16) for point in entry[1].split() if point != "FE0F"]
            for index, (_, prefixes) in enumerate(CLASSES):
                if len(points) == 1 and subgroup.startswith(prefixes):
                    found.append((chr(points[0]), index))
    return found


def load() -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Images (N, 3, 32, 32) in [-1, 1] on white, labels (N), and the emoji themselves."""
    font = ImageFont.truetype(FONT, 109)  # the only size of the bitmaps: 136 x 128 pixels
    images, labels, names = [], [], []
    for emoji, label in code_points():
        canvas = Image.new("RGBA", (136, 128), (255, 255, 255, 255))
        left, top, right, bottom = font.getbbox(emoji)
        at = ((136 - (right - left)) // 2 - left, (128 - (bottom - top)) // 2 - top)
        ImageDraw.Draw(canvas).text(at, emoji, font=font, embedded_color=True)
        small = canvas.convert("RGB").crop((4, 0, 132, 128)).resize((32, 32), Image.Resampling.BOX)
        pixels = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(32, 32, 3)
        if (pixels < 250).sum() < 100:
            continue  # newer than the font
        images.append(pixels.permute(2, 0, 1).float() / 127.5 - 1)
        labels.append(label)
        names.append(emoji)
    return torch.stack(images), torch.tensor(labels), names
