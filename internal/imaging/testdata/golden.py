"""Writes what the Go code is compared with: golden/*.png and golden/cases.json.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install pillow numpy opencv-python-headless
    /tmp/venv/bin/python internal/imaging/testdata/golden.py

Pillow 13.0.0, OpenCV 5.0.0 and NumPy 2.4.6 wrote the committed files.
"""

import io
import json
import pathlib

import cv2
import numpy as np
from PIL import Image, ImageEnhance

OUT = pathlib.Path(__file__).parent / "golden"
OUT.mkdir(exist_ok=True)
cases = {"resize": [], "jitter": [], "decode": []}


def save(name, array):
    Image.fromarray(array).save(OUT / name, optimize=True)
    return name


def picture(w, h):
    """A smooth picture with hard, coloured edges and some noise."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:h, 0:w]
    p = np.stack([
        127 + 120 * np.sin(x / 5) * np.cos(y / 7),
        255 * ((x // 6 + y // 5) % 2),
        127 + 120 * np.cos((x - y) / 9),
    ], -1)
    p += rng.normal(0, 6, p.shape)
    return np.clip(p, 0, 255).astype(np.uint8)


rgb = picture(61, 47)
gray = np.asarray(Image.fromarray(rgb).convert("L"))
save("rgb.png", rgb)
save("gray.png", gray)

for source, array in (("rgb", rgb), ("gray", gray)):
    for w, h in ((24, 24), (31, 47), (61, 20), (90, 70), (30, 23), (122, 94), (7, 3)):
        for filter in ("bilinear_antialias", "bilinear"):
            if filter == "bilinear":
                out = cv2.resize(array, (w, h), interpolation=cv2.INTER_LINEAR)
            else:
                out = np.asarray(Image.fromarray(array).resize((w, h), Image.BILINEAR))
            name = save(f"{source}_{w}x{h}_{filter}.png", out)
            cases["resize"].append(dict(source=f"{source}.png", w=w, h=h, filter=filter, want=name))

ops = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color}
small = np.asarray(Image.fromarray(rgb).crop((0, 0, 24, 20)))
for source, array in (("rgb_small", small), ("gray_small", np.asarray(Image.fromarray(small).convert("L")))):
    save(f"{source}.png", array)
    for op, enhance in ops.items():
        for f in (0.0, 0.6, 0.83, 1.0, 1.17, 1.4):
            out = np.asarray(enhance(Image.fromarray(array)).enhance(f))
            name = save(f"{source}_{op}_{f}.png", out)
            cases["jitter"].append(dict(source=f"{source}.png", op=op, factor=f, want=name))

JPEGS = {
    "444": dict(subsampling="4:4:4"),
    "422": dict(subsampling="4:2:2"),
    "420": dict(subsampling="4:2:0"),
    "411": dict(subsampling="4:1:1"),
    "progressive": dict(subsampling="4:2:0", progressive=True),
    "gray": dict(mode="L"),
    "cmyk": dict(mode="CMYK"),
}
for w, h in ((61, 47), (32, 32), (3, 2)):
    for kind, options in JPEGS.items():
        options = dict(options)
        im = Image.fromarray(picture(w, h)).convert(options.pop("mode", "RGB"))
        buf = io.BytesIO()
        im.save(buf, "jpeg", quality=92, **options)
        name = f"{kind}_{w}x{h}.jpg"
        (OUT / name).write_bytes(buf.getvalue())
        back = Image.open(io.BytesIO(buf.getvalue()))
        back = back if back.mode == "L" else back.convert("RGB")
        want = save(f"{kind}_{w}x{h}_want.png", np.asarray(back))
        cases["decode"].append(dict(source=name, want=want))

(OUT / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
