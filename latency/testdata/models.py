"""Writes the models that the tests of latency time.

Run it with `python3 models.py` where the packages onnx and numpy are
installed; it writes beside itself and always the same bytes.
"""

import pathlib

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

HERE = pathlib.Path(__file__).parent
rng = np.random.default_rng(1)


def save(name, nodes, inputs, outputs, init=()):
    values = [[h.make_tensor_value_info(*v) for v in vs] for vs in (inputs, outputs)]
    graph = h.make_graph(nodes, "g", *values, initializer=list(init))
    m = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8, producer_name="models.py")
    onnx.checker.check_model(m, full_check=True)
    (HERE / name).write_bytes(m.SerializeToString(deterministic=True))


def convs(name, depth):
    """depth 3×3 convolutions of 16 channels at 32×32, all with one weight."""
    w = nh.from_array(rng.normal(0, 0.12, (16, 16, 3, 3)).astype(np.float32), "w")
    nodes = []
    for i in range(depth):
        nodes += [h.make_node("Conv", [f"x{i}", "w"], [f"c{i}"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
                  h.make_node("Relu", [f"c{i}"], [f"x{i + 1}"])]
    save(name, nodes, [("x0", T.FLOAT, ["n", 16, 32, 32])], [(f"x{depth}", T.FLOAT, ["n", 16, 32, 32])], [w])


convs("convs2.onnx", 2)
convs("convs8.onnx", 8)

# Tokens and a length-dependent mask: integers, bools, two free dimensions, a scalar output.
save(
    "tokens.onnx",
    [h.make_node("Gather", ["table", "ids"], ["e"]), h.make_node("Cast", ["mask"], ["m"], to=T.FLOAT16),
     h.make_node("Cast", ["m"], ["mf"], to=T.FLOAT), h.make_node("Unsqueeze", ["mf", "last"], ["mu"]),
     h.make_node("Mul", ["e", "mu"], ["em"]), h.make_node("ReduceSum", ["em"], ["y"], keepdims=0)],
    [("ids", T.INT64, ["n", "length"]), ("mask", T.BOOL, ["n", "length"])],
    [("y", T.FLOAT, [])],
    [nh.from_array(rng.normal(0, 1, (2, 4)).astype(np.float32), "table"), nh.from_array(np.array([2], np.int64), "last")],
)
save("half.onnx", [h.make_node("Abs", ["x"], ["y"])], [("x", T.FLOAT16, [1, 64])], [("y", T.FLOAT16, [1, 64])])
save("strings.onnx", [h.make_node("Identity", ["x"], ["y"])], [("x", T.STRING, [2])], [("y", T.STRING, [2])])

# A pooling by the 2-norm, which some execution providers leave to the processor.
w = nh.from_array(rng.normal(0, 0.12, (16, 16, 3, 3)).astype(np.float32), "w")
save(
    "lppool.onnx",
    [h.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]), h.make_node("Relu", ["c"], ["r"]),
     h.make_node("LpPool", ["r"], ["p"], kernel_shape=[2, 2]), h.make_node("GlobalAveragePool", ["p"], ["g"]),
     h.make_node("Sigmoid", ["g"], ["y"])],
    [("x", T.FLOAT, [1, 16, 32, 32])], [("y", T.FLOAT, [1, 16, 1, 1])], [w],
)

# 100 GB of one number.
save(
    "greedy.onnx",
    [h.make_node("Expand", ["x", "shape"], ["e"]), h.make_node("ReduceSum", ["e"], ["y"], keepdims=0)],
    [("x", T.FLOAT, [1])],
    [("y", T.FLOAT, [])],
    [nh.from_array(np.array([25_000_000_000], np.int64), "shape")],
)


def sentinel():
    """What an agent watches its device with, and embeds: a stem, inverted residuals and a classifier."""
    rng = np.random.default_rng(2)
    nodes, init, last = [], [], ["x"]

    def conv(co, ci, k, stride=1, group=1, relu=True):
        n = len(init)
        init.append(nh.from_array(rng.normal(0, (2 / (ci // group * k * k)) ** 0.5, (co, ci // group, k, k)).astype(np.float32), f"w{n}"))
        nodes.append(h.make_node("Conv", [last[0], f"w{n}"], [f"c{n}"], kernel_shape=[k, k], pads=[k // 2] * 4, strides=[stride] * 2, group=group))
        last[0] = f"c{n}"
        if relu:
            nodes.append(h.make_node("Relu", [last[0]], [f"r{n}"]))
            last[0] = f"r{n}"

    conv(16, 3, 3, stride=2)
    channels = 16
    for out, stride in ((24, 2), (24, 1), (40, 2), (40, 1), (40, 1)):
        before = last[0]
        conv(3 * channels, channels, 1)
        conv(3 * channels, 3 * channels, 3, stride, group=3 * channels)
        conv(out, 3 * channels, 1, relu=False)
        if stride == 1:
            nodes.append(h.make_node("Add", [before, last[0]], [f"a{len(init)}"]))
            last[0] = f"a{len(init)}"
        channels = out
    nodes.append(h.make_node("GlobalAveragePool", [last[0]], ["p"]))
    last[0] = "p"
    conv(10, channels, 1, relu=False)
    nodes.append(h.make_node("Flatten", [last[0]], ["y"]))
    save("../sentinel.onnx", nodes, [("x", T.FLOAT, [1, 3, 112, 112])], [("y", T.FLOAT, [1, 10])], init)


sentinel()


def quantized():
    """convs8 with 8-bit weights and activations, as QuantizeLinear and DequantizeLinear pairs (QDQ) and as integer
    operators (QOperator); needs the package onnxruntime as well."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Noise(CalibrationDataReader):
        def __init__(self):
            self.left = 4

        def get_next(self):
            self.left -= 1
            return {"x0": np.random.default_rng(self.left).normal(0, 1, (1, 16, 32, 32)).astype(np.float32)} if self.left >= 0 else None

    for name, form in (("convs8_qdq.onnx", QuantFormat.QDQ), ("convs8_qop.onnx", QuantFormat.QOperator)):
        quantize_static(HERE / "convs8.onnx", HERE / name, Noise(), quant_format=form, per_channel=False,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)


quantized()
