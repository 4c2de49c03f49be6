"""Writes the models that the tests of serve put into repositories.

Run it with `python3 models.py` where the packages onnx and numpy are
installed; it writes beside itself and always the same bytes.
"""

import json
import pathlib

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

HERE = pathlib.Path(__file__).parent
rng = np.random.default_rng(1)


def save(name, nodes, inputs, outputs, init=(), meta=None):
    graph = h.make_graph(nodes, "g", inputs, outputs, initializer=list(init))
    m = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8, producer_name="models.py")
    h.set_model_props(m, meta or {})
    onnx.checker.check_model(m, full_check=True)
    (HERE / name).write_bytes(m.SerializeToString(deterministic=True))


def value(name, typ, shape):
    return h.make_tensor_value_info(name, typ, shape)


def weight(name, *shape):
    return nh.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)


# What export writes, in small: a picture of the usual size through one convolution, with preprocessing and labels.
def picture(name, **meta):
    global rng
    rng = np.random.default_rng(1)
    save(
        name,
        [
            h.make_node("Conv", ["input", "w", "b"], ["c"], kernel_shape=[3, 3], strides=[4, 4]),
            h.make_node("Relu", ["c"], ["r"]),
            h.make_node("GlobalAveragePool", ["r"], ["p"]),
            h.make_node("Flatten", ["p"], ["f"]),
            h.make_node("Gemm", ["f", "v", "d"], ["logits"]),
        ],
        [value("input", T.FLOAT, ["N", 3, 224, 224])],
        [value("logits", T.FLOAT, ["N", 4])],
        [weight("w", 8, 3, 3, 3), weight("b", 8), weight("v", 8, 4), weight("d", 4)],
        meta,
    )


recipe = {
    "color": "rgb", "height": 224, "width": 224, "short_side": 256, "interpolation": "bilinear", "range": "0-255",
    "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375],
}
good = {
    "spos.format": "1", "spos.space": "test", "spos.arch": "0123", "spos.preprocess": json.dumps(recipe),
    "spos.labels": json.dumps(["ant", "bee", "cat", "dog"]), "spos.lineage": json.dumps({"run": "r1"}),
}
picture("picture.onnx", **good)
picture("no_metadata.onnx")
picture("newer_format.onnx", **good | {"spos.format": "2"})
picture("bad_recipe.onnx", **good | {"spos.preprocess": '{"heigth": 224}'})
picture("bad_labels.onnx", **good | {"spos.labels": '["ant", 1]'})
picture("few_labels.onnx", **good | {"spos.labels": '["ant"]'})

# The model that the protocol's example clients ask for: two inputs, their sum and their difference.
save(
    "addsub.onnx",
    [h.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]), h.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"])],
    [value("INPUT0", T.INT32, ["N", 16]), value("INPUT1", T.INT32, ["N", 16])],
    [value("OUTPUT0", T.INT32, ["N", 16]), value("OUTPUT1", T.INT32, ["N", 16])],
)

# Strings in, the same strings out.
save(
    "text.onnx",
    [h.make_node("Identity", ["IN"], ["OUT"])],
    [value("IN", T.STRING, ["N", 2])],
    [value("OUT", T.STRING, ["N", 2])],
)
