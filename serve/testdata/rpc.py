"""Uses gRPC with the official client: rpc.py HOST:PORT PICTURE.

The server has the models addsub, picture, string and fp16, and lets clients
load. Exit status 77 says that a package is missing.
"""

import asyncio
import queue
import sys

try:
    import grpc
    import numpy as np
    import tritonclient.grpc as triton
    import tritonclient.grpc.aio as aio
    from tritonclient.grpc import service_pb2, service_pb2_grpc
    from tritonclient.utils import InferenceServerException
except ImportError as e:
    print(e)
    sys.exit(77)

address, picture = sys.argv[1:3]
c = triton.InferenceServerClient(address)


def refused(code, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except InferenceServerException as e:
        assert e.status() == f"StatusCode.{code}", e
        return e.message()
    raise SystemExit(f"{call} was not refused")


# What there is.
assert c.is_server_live() and c.is_server_ready() and c.is_model_ready("addsub") and c.is_model_ready("addsub", "1")
server = c.get_server_metadata()
assert server.name == "spos" and "statistics" in server.extensions, server
meta = c.get_model_metadata("addsub", as_json=True)
assert meta["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": ["-1", "16"]} and meta["versions"] == ["1"], meta
config = c.get_model_config("picture").config
assert config.max_batch_size > 1 and list(config.input[0].dims) == [3, 224, 224], config
assert config.input[0].data_type == 11 and config.input[0].format == 2 and config.output[0].label_filename, config
index = {m.name: m.state for m in c.get_model_repository_index().models}
assert index == {"addsub": "READY", "picture": "READY", "string": "READY", "fp16": "READY"}, index

# Loading.
c.unload_model("addsub")
assert not c.is_model_ready("addsub")
c.load_model("addsub")
assert c.is_model_ready("addsub")
refused("NOT_FOUND", c.load_model, "nope")
refused("UNIMPLEMENTED", c.load_model, "addsub", config="{}")

# Tensors.
a = np.arange(32, dtype=np.int32).reshape(2, 16)
b = np.full((2, 16), 3, np.int32)


def tensor(name, x, datatype, module=triton):
    i = module.InferInput(name, x.shape, datatype)
    i.set_data_from_numpy(x)
    return i


def inputs(x=a):
    return [tensor("INPUT0", x, "INT32"), tensor("INPUT1", b, "INT32")]


def check(r, x=a):
    assert (r.as_numpy("OUTPUT0") == x + b).all() and (r.as_numpy("OUTPUT1") == x - b).all()


check(c.infer("addsub", inputs()))
r = c.infer(
    "addsub", inputs(), model_version="1", request_id="7", timeout=10_000_000, priority=1, client_timeout=60,
    outputs=[triton.InferRequestedOutput("OUTPUT1"), triton.InferRequestedOutput("OUTPUT0")],
    headers={"x-request-id": "from-python"}, parameters={"mine": "a"},
)
check(r)
assert r.get_response().id == "7" and [o.name for o in r.get_response().outputs] == ["OUTPUT1", "OUTPUT0"]
for how in ("gzip", "deflate"):
    check(c.infer("addsub", inputs(), compression_algorithm=how))
classes = c.infer("addsub", inputs(), outputs=[triton.InferRequestedOutput("OUTPUT0", class_count=2)]).as_numpy("OUTPUT0")
assert classes.shape == (2, 2) and classes[0][0] == b"18:15", classes
texts = np.array([b"a", b"", "\u00e4".encode(), b"x" * 1000], np.object_)
assert (c.infer("string", [tensor("x", texts, "BYTES")]).as_numpy("y") == texts).all()
half = np.array([1.5, -2, np.inf], np.float16)
assert (c.infer("fp16", [tensor("x", half, "FP16")]).as_numpy("y") == half).all()

stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(address))
request = service_pb2.ModelInferRequest(model_name="addsub", id="explicit")
for name, x in (("INPUT0", a), ("INPUT1", b)):
    i = request.inputs.add(name=name, datatype="INT32", shape=x.shape)
    i.contents.int_contents[:] = x.reshape(-1).tolist()
answer = stub.ModelInfer(request)
assert answer.id == "explicit" and (np.frombuffer(answer.raw_output_contents[0], np.int32) == (a + b).reshape(-1)).all()

with open(picture, "rb") as f:
    jpeg = np.array([f.read()] * 2, np.object_)
labels = c.infer("picture", [tensor("input", jpeg, "BYTES")], outputs=[triton.InferRequestedOutput("logits", class_count=4)])
assert labels.as_numpy("logits").shape == (2, 4)

# At once, and in streams.
answers = queue.Queue()
for _ in range(20):
    c.async_infer("addsub", inputs(), lambda result, error: answers.put((result, error)))
for _ in range(20):
    result, error = answers.get(timeout=60)
    assert error is None, error
    check(result)
c.start_stream(lambda result, error: answers.put((result, error)))
for i in range(20):
    name = "nope" if i == 10 else "addsub"
    c.async_stream_infer(name, inputs(a + i), request_id=str(i))
for i in range(20):
    result, error = answers.get(timeout=60)
    if i == 10:
        assert "nope" in str(error), error
        continue
    assert error is None and result.get_response().id == str(i), (i, error)
    check(result, a + i)
c.stop_stream()


async def asynchronous():
    async with aio.InferenceServerClient(address) as c:
        assert await c.is_server_ready()
        ins = [tensor("INPUT0", a, "INT32", aio), tensor("INPUT1", b, "INT32", aio)]
        check(await c.infer("addsub", ins))

        async def requests():
            for _ in range(5):
                yield {"model_name": "addsub", "inputs": ins}

        n = 0
        async for result, error in c.stream_infer(requests()):
            assert error is None, error
            check(result)
            n += 1
        assert n == 5


asyncio.run(asynchronous())

# What is wrong.
assert "nope" in refused("NOT_FOUND", c.infer, "nope", inputs())
assert "missing inputs: INPUT1" in refused("INVALID_ARGUMENT", c.infer, "addsub", inputs()[:1])
assert "model takes" in refused("INVALID_ARGUMENT", c.infer, "addsub", inputs()[:1] + [tensor("INPUT1", b.reshape(-1), "INT32")])
big = np.zeros((64, 3, 224, 224), np.float32)  # refused before it has been sent
for _ in range(5):
    assert "nope" in refused("NOT_FOUND", c.infer, "nope", [tensor("input", big, "FP32")])
refused("UNIMPLEMENTED", c.infer, "addsub", inputs(), sequence_id=5, sequence_start=True)
refused("UNIMPLEMENTED", c.get_system_shared_memory_status)
refused("UNIMPLEMENTED", c.get_trace_settings)
refused("UNIMPLEMENTED", c.get_log_settings)
check(c.infer("addsub", inputs()))

s = c.get_inference_statistics("addsub").model_stats[0]
assert s.inference_stats.success.count == 52 and s.inference_count == 104 and s.inference_stats.compute_infer.ns > 0, s
assert len(c.get_inference_statistics().model_stats) == 4

# Health and reflection, byte by byte.
channel = grpc.insecure_channel(address)
health = channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
assert health == b"\x08\x01", health
services = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
listing = next(services(iter([b"\x3a\x00"])))
assert b"inference.GRPCInferenceService" in listing, listing
print("ok")
