"""Writes what the Go code is compared with: golden/*.png and golden/*.json.

    git clone https://github.com/megvii-model/SinglePathOneShot
    git clone https://github.com/megvii-model/AngleNAS
    pip install pillow numpy opencv-python-headless torch torchvision mmcv-lite==2.0.1 mmcls==1.0.0rc6
    python internal/imaging/testdata/golden.py SinglePathOneShot AngleNAS [imagenet-sample-50.tar]

The published pipelines run here as they are: the classes of the two
repositories, torchvision's functions and mmcls's transforms, with what they
draw at random put into their hands. Without the photographs, what was made of
them stays as it is.

Pillow 13.0.0, OpenCV 5.0.0, NumPy 2.4.6, torchvision 0.29.2, mmcv-lite 2.0.1
and mmcls 1.0.0rc6 wrote the committed files, on x86.
"""

import ast
import io
import json
import math
import pathlib
import random
import sys
import tarfile
from unittest import mock

import cv2
import mmcv
import numpy as np
import PIL
import torch
import torchvision.transforms as transforms
import torchvision.transforms.functional as F
from mmcls.datasets.transforms import processing as mmcls
from mmcls.models.utils.data_preprocessor import ClsDataPreprocessor
from mmcv.transforms import CenterCrop
from PIL import Image, ImageEnhance
from torchvision.transforms import InterpolationMode

OUT = pathlib.Path(__file__).parent / "golden"
OUT.mkdir(exist_ok=True)
SPOS, ANGLENAS = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])


# --- helpers

def save(name, array):
    Image.fromarray(array).save(OUT / name, optimize=True)
    return name


def write(name, value):
    """JSON with a case a line."""
    if isinstance(value, dict):
        parts = [json.dumps(k) + ": [\n" + ",\n".join(map(json.dumps, v)) + "\n]" for k, v in value.items()]
        text = "{\n" + ",\n".join(parts) + "\n}\n"
    else:
        text = "[\n" + ",\n".join(map(json.dumps, value)) + "\n]\n"
    (OUT / name).write_text(text)


class Strip:
    """One PNG of many results, below one another."""

    def __init__(self, name):
        self.name, self.rows, self.height = name, [], 0

    def add(self, array):
        array = array if array.ndim == 3 else np.repeat(array[..., None], 3, 2)
        self.rows.append(array)
        self.height += len(array)
        return self.height - len(array)

    def save(self):
        save(self.name, np.concatenate(self.rows))


def classes(path, **names):
    """The classes of a file, without what the file does beside them."""
    tree = ast.parse(path.read_text())
    tree.body = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name != "DataIterator"]
    space = dict(PIL=PIL, Image=Image, np=np, torch=torch, math=math, cv2=cv2, random=random, Sampler=object, **names)
    exec(compile(tree, str(path), "exec"), space)
    return space


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


# --- the libraries: resize, jitter, decode

cases = {"resize": [], "jitter": [], "decode": []}
rgb = picture(61, 47)
gray = np.asarray(Image.fromarray(rgb).convert("L"))
save("rgb.png", rgb)
save("gray.png", gray)

SIZES = (24, 24), (31, 47), (61, 20), (90, 70), (30, 23), (122, 94), (7, 3)
for source, array in (("rgb", rgb), ("gray", gray)):
    for w, h in SIZES:
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

strip = Strip("opencv_jitter.png")
mmcv_ops = {"brightness": mmcv.adjust_brightness, "contrast": mmcv.adjust_contrast, "saturation": mmcv.adjust_color}
for source, array in (("rgb_small", small), ("gray_small", np.asarray(Image.open(OUT / "gray_small.png").convert("RGB")))):
    for op, adjust in mmcv_ops.items():
        for f in (0.0, 0.6, 0.83, 1.0, 1.17, 1.4):
            out = adjust(np.ascontiguousarray(array[..., ::-1]), f)[..., ::-1]
            cases["jitter"].append(dict(source=f"{source}.png", op=op, factor=f, arithmetic="opencv",
                                        want=strip.name, row=strip.add(out)))
strip.save()

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

write("cases.json", cases)


# --- the published pipelines

class Official:
    """SinglePathOneShot: src/Supernet/train.py."""

    def __init__(self):
        self.code = classes(SPOS / "src/Supernet/train.py")

    def train(self, im, size, part, jitter, flip, light):
        x, y, w, h = part
        im = F.resized_crop(im, y, x, h, w, [size, size], InterpolationMode.BILINEAR)
        for op, factor in jitter:
            im = getattr(F, "adjust_" + op)(im, factor)
        return self.tensor(F.hflip(im) if flip else im)

    def eval(self, im, short, size):
        return self.tensor(transforms.CenterCrop(size)(self.code["OpencvResize"](short)(im)))

    def tensor(self, im):
        return self.code["ToBGRTensor"]()(im).numpy()

    def image(self, tensor):
        """The tensor as an RGB picture: nothing is lost."""
        assert tensor.dtype == np.float32 and (tensor == np.rint(tensor)).all()
        return tensor.astype(np.uint8).transpose(1, 2, 0)[..., ::-1]


class AngleNAS(Official):
    """AngleNAS: utils/imagenet.py."""

    def __init__(self):
        self.random = mock.Mock()
        self.code = classes(ANGLENAS / "utils/imagenet.py")
        self.code["random"] = self.random

    def train(self, im, size, part, jitter, flip, light):
        x, y, w, h = part
        assert w == h and not jitter
        # The side follows from the share, so the share is sought that gives it.
        W, H = im.size
        self.random.uniform = lambda lo, hi: w * w / (W * H)
        self.random.randint = mock.Mock(side_effect=[x, y] * 10)
        im = self.code["RandomResizedCrop"]((0.08, 1), size)(im)
        lighting = self.code["LighteningJitter"](VECTORS[::-1, :], np.array([0.2175, 0.0188, 0.0045]), 0.1)
        with mock.patch("numpy.random.normal", lambda scale, size: np.array(light)):
            im = lighting(im)
        return self.tensor(F.hflip(im) if flip else im)


# As get_train_dataloader has them.
VECTORS = np.array([[-0.5836, -0.6948, 0.4203], [-0.5808, -0.0045, -0.8140], [-0.5675, 0.7192, 0.4009]])


class MMRazor:
    """configs/_base_/settings/imagenet_bs1024_spos.py: transforms of mmcls."""

    def train(self, im, size, part, jitter, flip, light):
        x, y, w, h = part
        crop = mmcls.RandomResizedCrop(scale=size)
        color = mmcls.ColorJitter(0.4, 0.4, 0.4)
        index = {"brightness": 0, "contrast": 1, "saturation": 2}
        factor = dict(jitter)
        drawn = ([index[op] for op, _ in jitter] + [3], *(factor.get(op) for op in index), None)
        crop.rand_crop_params = lambda img: (y, x, h, w)
        color._rand_params = lambda: drawn
        result = color(crop(self.load(im)))["img"]
        return self.tensor(mmcv.imflip(result) if flip else result)

    def eval(self, im, short, size):
        return self.tensor(CenterCrop(size)(mmcls.ResizeEdge(short)(self.load(im)))["img"])

    def load(self, im):
        return dict(img=np.ascontiguousarray(np.asarray(im)[..., ::-1]))

    def tensor(self, bgr):
        self.bytes = np.ascontiguousarray(bgr[..., ::-1])
        return normalise(bgr)

    def image(self, tensor):
        return self.bytes


MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def normalise(bgr):
    """mmcls 1.x's; 0.x's Normalize, which is mmcv's, agrees but for rounding."""
    bgr = np.ascontiguousarray(bgr)
    inputs = torch.from_numpy(bgr.transpose(2, 0, 1).copy())
    out = ClsDataPreprocessor(MEAN, STD, to_rgb=True)(dict(inputs=[inputs]))["inputs"][0].numpy()
    old = mmcv.imnormalize(bgr, np.array(MEAN, np.float32), np.array(STD, np.float32), True).transpose(2, 0, 1)
    assert np.abs(out - old).max() < 1e-6
    return out


PRESETS = dict(official=Official(), mmrazor=MMRazor(), anglenas=AngleNAS())
JITTERS = [
    [("brightness", 1.31), ("contrast", 0.64), ("saturation", 1.38)],
    [("saturation", 0.61), ("brightness", 0.72), ("contrast", 1.4)],
    [("contrast", 1.17), ("saturation", 1.08), ("brightness", 0.97)],
    [("contrast", 0.93), ("brightness", 1.4), ("saturation", 0.6)],
]
LIGHTS = [(0.11, -0.07, 0.02), (-0.23, 0.14, 0.09), (0.02, 0.31, -0.12), (0.28, -0.02, 0.19)]
PARTS = [(0, 0, 61, 47), (13, 5, 40, 40), (3, 20, 29, 27), (20, 1, 25, 33), (0, 40, 9, 7)]
SQUARES = [(0, 0, 47, 47), (13, 5, 40, 40), (7, 19, 28, 28), (20, 1, 33, 33), (50, 8, 11, 11)]
BEYOND = [(-3, 7, 45, 45), (-21, 50, 41, 41)]  # of a picture 20 wide

save("tall.png", picture(20, 120))


def variants(name):
    """Source, part, jitter, flip, light."""
    square = name == "anglenas"
    for i, part in enumerate(SQUARES if square else PARTS):
        yield "rgb.png", part, [] if square else JITTERS[i % 4], i % 2 == 1, LIGHTS[i % 4] if square else None
    yield "gray.png", (5, 6, 37, 37), [] if square else JITTERS[1], False, LIGHTS[1] if square else None
    for i, part in enumerate(BEYOND if square else [(0, 31, 20, 27)]):
        yield "tall.png", part, [] if square else JITTERS[3], i == 1, LIGHTS[i] if square else None


pipelines = {"train": [], "eval": [], "sizes": [], "normalise": []}
for name, preset in PRESETS.items():
    strip = Strip(f"{name}.png")
    for source, part, jitter, flip, light in variants(name):
        im = Image.open(OUT / source).convert("RGB")
        tensor = preset.train(im, 40, part, jitter, flip, light)
        pipelines["train"].append(dict(preset=name, source=source, part=part, jitter=jitter, flip=flip, light=light,
                                       row=strip.add(preset.image(tensor))))
    for source in "rgb.png", "gray.png", "tall.png":
        im = Image.open(OUT / source).convert("RGB")
        tensor = preset.eval(im, 46, 40)
        pipelines["eval"].append(dict(preset=name, source=source, row=strip.add(preset.image(tensor))))
    strip.save()

# The sizes of real images, and some that round.
for w, h in ((500, 375), (375, 500), (500, 333), (333, 500), (256, 256), (300, 256), (255, 257), (640, 427), (1024, 768),
             (4288, 2848), (10, 11), (75, 1000), (509, 334), (500, 334), (299, 501), (1, 40), (2, 3)):
    with mock.patch("cv2.resize", side_effect=lambda a, size, **_: np.zeros((size[1], size[0], 3), np.uint8)):
        official = PRESETS["official"].code["OpencvResize"](256)(Image.new("RGB", (w, h))).size
        assert official == PRESETS["anglenas"].code["OpencvResize"](256)(Image.new("RGB", (w, h))).size
    with mock.patch("mmcv.imresize", side_effect=lambda a, size, **_: (np.zeros((size[1], size[0], 3), np.uint8), 1, 1)):
        razor = mmcls.ResizeEdge(256)(dict(img=np.zeros((h, w, 3), np.uint8)))["img"].shape[1::-1]
    pipelines["sizes"].append(dict(w=w, h=h, official=official, mmrazor=razor))

ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 256, 1), 3, 2)
pipelines["normalise"] = [[float(f"{v:.9g}") for v in row] for row in normalise(ramp)[:, 0].tolist()]
write("presets.json", pipelines)


# --- which part is cut: the original rules, and what they drew

class Dice:
    """Plays every generator of the originals, and notes what it said."""

    def __init__(self, seed):
        self.rng, self.log = np.random.default_rng(seed), []

    def uniform(self, lo, hi):
        u = float(self.rng.random())
        self.log.append(u)
        return lo + (hi - lo) * u

    def below(self, n):
        k = int(self.rng.integers(n))
        self.log.append([k, n])
        return k


def torchvision_part(w, h, dice):
    class Tensor:
        def uniform_(self, lo, hi):
            # torchvision draws in single precision: the note is of what it got.
            lo, hi = float(lo), float(hi)
            value = torch.tensor(dice.uniform(lo, hi))
            dice.log[-1] = (value.item() - lo) / (hi - lo)
            return value

    fake = mock.Mock(wraps=torch)
    fake.empty = lambda n: Tensor()
    fake.randint = lambda lo, hi, size: torch.tensor([lo + dice.below(hi - lo)])
    with mock.patch("torchvision.transforms.transforms.torch", fake):
        y, x, ph, pw = transforms.RandomResizedCrop.get_params(Image.new("L", (w, h)), (0.08, 1), (3 / 4, 4 / 3))
    return x, y, pw, ph


def mmcls_part(w, h, dice):
    crop = mmcls.RandomResizedCrop(scale=8)
    with mock.patch("numpy.random.uniform", dice.uniform), \
            mock.patch("numpy.random.randint", lambda lo, hi: lo + dice.below(hi - lo)):
        y, x, ph, pw = crop.rand_crop_params(np.zeros((h, w, 3), np.uint8))
    return x, y, pw, ph


def anglenas_part(w, h, dice):
    preset, drawn, sides = AngleNAS(), [], []

    def randint(lo, hi):
        drawn.append(lo + dice.below(hi - lo + 1))
        if len(drawn) % 2 == 0:  # left, then top; ours are drawn top first, after an aspect
            dice.log[-2:] = [0.5, dice.log[-1], dice.log[-2]]
        return drawn[-1]

    def resize(img, size, **_):
        sides.append(img.shape[:2])
        return np.zeros((*size, 3), np.uint8)

    preset.random.uniform, preset.random.randint = dice.uniform, randint
    with mock.patch("cv2.resize", resize):
        preset.code["RandomResizedCrop"]((0.08, 1), 8)(Image.new("RGB", (w, h)))
    (ph, pw), = sides
    return drawn[-2], drawn[-1], pw, ph


crops = []
for name, rule in dict(official=torchvision_part, mmrazor=mmcls_part, anglenas=anglenas_part).items():
    for seed, (w, h) in enumerate([(500, 375), (375, 500), (61, 47), (640, 200), (100, 260), (30, 400), (20, 5), (3, 3)] * 6):
        dice = Dice(seed)
        part = rule(w, h, dice)
        crops.append(dict(preset=name, w=w, h=h, draws=dice.log, part=part))
write("crops.json", crops)


# --- real photographs, a few rows of each result

if len(sys.argv) > 3:
    ROWS = [0, 44, 89, 134, 179, 223]
    strip, photos = Strip("photographs.png"), []
    with tarfile.open(sys.argv[3]) as tar:
        members = [m for m in tar.getmembers() if m.isfile()]
        for i, index in enumerate((2, 17, 34)):
            im = Image.open(tar.extractfile(members[index])).convert("RGB")
            W, H = im.size
            part = [W // 7, H // 9, W * 2 // 3 - 5 * i, H * 3 // 4 - 11 * i]
            side = min(W, H) * 4 // 5
            for name, preset in PRESETS.items():
                square = name == "anglenas"
                decisions = dict(part=[W - side, 0, side, side] if square else part, jitter=[] if square else JITTERS[i],
                                 flip=i == 1, light=LIGHTS[i] if square else None)
                out = preset.image(preset.train(im, 224, **decisions))
                photos.append(dict(index=index, preset=name, train=True, row=strip.add(out[ROWS]), **decisions))
                out = preset.image(preset.eval(im, 256, 224))
                photos.append(dict(index=index, preset=name, train=False, row=strip.add(out[ROWS])))
    strip.save()
    write("photographs.json", photos)
