"""Writes the models that the tests of internal/ort open.

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


def model(nodes, inputs, outputs, init=(), opset=17, ir=8, **meta):
    graph = h.make_graph(nodes, "g", inputs, outputs, initializer=list(init))
    m = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=ir, producer_name="models.py")
    h.set_model_props(m, meta)
    return m


def save(name, m, check=True):
    if check:
        onnx.checker.check_model(m, full_check=True)
    (HERE / name).write_bytes(m.SerializeToString(deterministic=True))


def value(name, typ, shape):
    return h.make_tensor_value_info(name, typ, shape)


def weight(name, *shape):
    return nh.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)


# A convolution, global pooling and a linear head, with a named batch.
save(
    "conv.onnx",
    model(
        [
            h.make_node("Conv", ["x", "w0"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            h.make_node("Relu", ["c"], ["r"]),
            h.make_node("GlobalAveragePool", ["r"], ["p"]),
            h.make_node("Flatten", ["p"], ["f"]),
            h.make_node("Gemm", ["f", "w1"], ["y"], transB=1),
        ],
        [value("x", T.FLOAT, ["batch", 3, 8, 8])],
        [value("y", T.FLOAT, ["batch", 5])],
        [weight("w0", 4, 3, 3, 3), weight("w1", 5, 4)],
        labels="a b c d e",
        arch="0123",
    ),
)

# Every element type, each through Identity; n is free.
TYPES = {
    "bool": T.BOOL, "uint8": T.UINT8, "uint16": T.UINT16, "uint32": T.UINT32, "uint64": T.UINT64, "int8": T.INT8,
    "int16": T.INT16, "int32": T.INT32, "int64": T.INT64, "fp16": T.FLOAT16, "bf16": T.BFLOAT16, "fp32": T.FLOAT,
    "fp64": T.DOUBLE, "string": T.STRING,
}
for name, typ in TYPES.items():
    save(
        f"identity_{name}.onnx",
        model([h.make_node("Identity", ["x"], ["y"])], [value("x", typ, ["n"])], [value("y", typ, ["n"])]),
    )

# Rank zero in and out.
save(
    "scalar.onnx",
    model([h.make_node("Add", ["a", "b"], ["c"])], [value("a", T.FLOAT, []), value("b", T.FLOAT, [])], [value("c", T.FLOAT, [])]),
)

# An output whose extent depends on the data, and one whose shape is not written down.
m = model(
    [h.make_node("NonZero", ["x"], ["at"]), h.make_node("Abs", ["x"], ["abs"])],
    [value("x", T.FLOAT, [4])],
    [value("at", T.INT64, [1, None]), value("abs", T.FLOAT, [4])],
)
m.graph.output[1].type.tensor_type.ClearField("shape")
save("shapeless.onnx", m, check=False)

# Old style: the initializer is listed among the inputs too.
save(
    "listed.onnx",
    model([h.make_node("Add", ["x", "w"], ["y"])], [value("x", T.FLOAT, [2]), value("w", T.FLOAT, [2])],
          [value("y", T.FLOAT, [2])], [nh.from_array(np.array([1, 2], np.float32), "w")]),
)

# Many products, so that a run can be stopped in the middle: about a second.
n = 600
nodes = [h.make_node("Expand", ["one", "shape"], ["w"]), h.make_node("Add", ["x", "w"], ["t0"])]
nodes += [h.make_node("MatMul", [f"t{i}", f"t{i}"], [f"t{i + 1}"]) for i in range(n)]
save(
    "slow.onnx",
    model(nodes, [value("x", T.FLOAT, [384, 384])], [value(f"t{n}", T.FLOAT, [384, 384])],
          [nh.from_array(np.zeros(1, np.float32), "one"), nh.from_array(np.array([384, 384], np.int64), "shape")]),
)

# Broken ones: what a user meets, each for its own reason.
bad = HERE / "bad"
bad.mkdir(exist_ok=True)
whole = (HERE / "conv.onnx").read_bytes()
(bad / "empty.onnx").write_bytes(b"")
(bad / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
(bad / "not_onnx.onnx").write_bytes(b"<!doctype html><title>404</title>\n")
x, y = value("x", T.FLOAT, [2]), value("y", T.FLOAT, [2])
save("bad/unknown_op.onnx", model([h.make_node("NoSuchOp", ["x"], ["y"])], [x], [y]), check=False)
save("bad/missing_weight.onnx", model([h.make_node("Add", ["x", "w"], ["y"])], [x], [y]), check=False)
save("bad/future_opset.onnx", model([h.make_node("Relu", ["x"], ["y"])], [x], [y], opset=900), check=False)
save("bad/wrong_type.onnx", model([h.make_node("Relu", ["x"], ["y"])], [value("x", T.STRING, [2])], [y]), check=False)


def outside(name, *dims):
    """A tensor that says its bytes are in a file outside of the model's directory."""
    t = T(name=name, data_type=T.FLOAT, dims=dims, data_location=T.EXTERNAL)
    t.external_data.add(key="location", value="../../../../../../../../etc/hostname")
    t.external_data.add(key="length", value="8")
    return t


save("bad/external.onnx", model([h.make_node("Add", ["x", "w"], ["y"])], [x], [y], [outside("w", 2)]), check=False)
# The same deep inside: a constant in a branch.
branch = h.make_graph([h.make_node("Constant", [], ["v"], value=outside("v", 2))], "b", [], [value("v", T.FLOAT, [2])])
save(
    "bad/external_inner.onnx",
    model([h.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch), h.make_node("Add", ["x", "w"], ["y"])],
          [value("c", T.BOOL, []), x], [y]),
    check=False,
)
