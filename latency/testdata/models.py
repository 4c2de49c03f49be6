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
