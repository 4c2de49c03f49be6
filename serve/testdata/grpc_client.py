"""Talks to a server with the official client over gRPC: grpc_client.py HOST:PORT PICTURE.

The server has the models addsub and picture. Exit status 77 says that a
package is missing.
"""

import asyncio
import queue
import sys

try:
    import numpy as np
    import tritonclient.grpc as triton
    import tritonclient.grpc.aio as aio
    from tritonclient.utils import InferenceServerException
except ImportError as e:
    print(e)
    sys.exit(77)

address, picture = sys.argv[1:3]
a = np.arange(32, dtype=np.int32).reshape(2, 16)
b = np.full((2, 16), 3, np.int32)


def inputs():
    ins = [triton.InferInput("INPUT0", a.shape, "INT32"), triton.InferInput("INPUT1", b.shape, "INT32")]
    ins[0].set_data_from_numpy(a)
    ins[1].set_data_from_numpy(b)
    return ins


def check(r, id=""):
    assert (r.as_numpy("OUTPUT0") == a + b).all() and (r.as_numpy("OUTPUT1") == a - b).all()
    assert r.get_response().id == id, r.get_response()


c = triton.InferenceServerClient(address)
assert c.is_server_live() and c.is_server_ready() and c.is_model_ready("addsub") and c.is_model_ready("addsub", "1")
assert c.get_server_metadata().name == "spos"
meta = c.get_model_metadata("addsub")
assert meta.inputs[0].name == "INPUT0" and list(meta.inputs[0].shape) == [-1, 16], meta
assert c.get_model_config("addsub", as_json=True)["config"]["name"] == "addsub"
assert {m.name for m in c.get_model_repository_index().models} == {"addsub", "picture"}

check(c.infer("addsub", inputs()))
wanted = [triton.InferRequestedOutput("OUTPUT1"), triton.InferRequestedOutput("OUTPUT0")]
check(c.infer("addsub", inputs(), outputs=wanted, request_id="7", model_version="1", timeout=10_000_000), "7")
check(c.infer("addsub", inputs(), compression_algorithm="gzip"))

answers = queue.Queue()
for i in range(4):
    c.async_infer("addsub", inputs(), lambda result, error: answers.put((result, error)))
c.start_stream(lambda result, error: answers.put((result, error)))
for i in range(4):
    c.async_stream_infer("addsub", inputs(), enable_empty_final_response=i % 2 == 0)
c.stop_stream()
for i in range(8):
    result, error = answers.get(timeout=60)
    assert error is None, error
    check(result)

for bad in (lambda: c.infer("nope", inputs()), lambda: c.infer("addsub", inputs()[:1])):
    try:
        bad()
        raise SystemExit("an error was not reported")
    except InferenceServerException as e:
        assert e.message() and e.status(), e

stats = c.get_inference_statistics("addsub").model_stats[0]
assert stats.inference_stats.success.count == 11 and stats.inference_count == 22, stats

jpeg = triton.InferInput("input", [1], "BYTES")
with open(picture, "rb") as f:
    jpeg.set_data_from_numpy(np.array([f.read()], object))
top = c.infer("picture", [jpeg], outputs=[triton.InferRequestedOutput("logits", class_count=2)]).as_numpy("logits")
assert top.shape == (1, 2) and top[0, 0].decode().count(":") == 2, top


async def later():
    async with aio.InferenceServerClient(address) as c:
        for r in await asyncio.gather(*(c.infer("addsub", inputs()) for _ in range(4))):
            check(r)


asyncio.run(later())
print("ok")
