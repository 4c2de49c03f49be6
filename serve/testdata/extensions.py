"""Uses the protocol's extensions with the official client: extensions.py HOST:PORT PICTURE.

The server has the models addsub, picture and text. Exit status 77 says that
a package is missing.
"""

import asyncio
import base64
import json
import sys
import urllib.request

try:
    import numpy as np
    import tritonclient.http as triton
    import tritonclient.http.aio as aio
except ImportError as e:
    print(e)
    sys.exit(77)

address, picture = sys.argv[1:3]
c = triton.InferenceServerClient(address)
assert "classification" in c.get_server_metadata()["extensions"]
with open(picture, "rb") as f:
    jpeg = f.read()


def tensor(name, x, datatype, binary=True):
    i = triton.InferInput(name, x.shape, datatype)
    i.set_data_from_numpy(x, binary_data=binary)
    return i


# Classes: of numbers that order is known of, and of a model with labels.
a = np.array([[3, 1, 9, 9] + 12 * [0], [-1, -2, -3, 5] + 12 * [-9]], np.int32)
zero = np.zeros_like(a)
for binary in (True, False):
    r = c.infer(
        "addsub",
        [tensor("INPUT0", a, "INT32"), tensor("INPUT1", zero, "INT32")],
        outputs=[triton.InferRequestedOutput("OUTPUT0", binary_data=binary, class_count=3)],
    )
    got = r.as_numpy("OUTPUT0")
    want = np.array([["9:2", "9:3", "3:0"], ["5:3", "-1:0", "-2:1"]])
    assert r.get_output("OUTPUT0")["datatype"] == "BYTES" and got.shape == (2, 3), r.get_response()
    assert (got.astype(str) == want).all(), got

# Pictures: as BYTES in binary and in JSON, they are classified as by the endpoint for pictures.
answer = json.load(urllib.request.urlopen(urllib.request.Request(f"http://{address}/v2/models/picture/classify?k=4", jpeg)))
order = [p["label"] for p in answer["predictions"]]
raw = np.array([jpeg, jpeg], np.object_)
text = np.array([base64.b64encode(jpeg)] * 2, np.object_)
for x, binary in ((raw, True), (text, False), (raw.reshape(2, 1), True)):
    for binary_out in (True, False):
        r = c.infer(
            "picture", [tensor("input", x, "BYTES", binary)],
            outputs=[triton.InferRequestedOutput("logits", binary_data=binary_out, class_count=4)],
        )
        got = r.as_numpy("logits").astype(str)
        assert got.shape == (2, 4) and [s.split(":")[2] for s in got[1]] == order, (got, order)

# Strings come back as they went, in any mix of forms.
words = np.array([["", "ü\"\\\n"], ["a" * 5000, "日本"]], np.object_)
encoded = np.array([[w.encode() for w in row] for row in words], np.object_)
for binary in (True, False):
    for binary_out in (True, False):
        for how in (None, "gzip", "deflate"):
            r = c.infer(
                "text", [tensor("IN", words, "BYTES", binary)], outputs=[triton.InferRequestedOutput("OUT", binary_data=binary_out)],
                request_compression_algorithm=how, response_compression_algorithm=how,
            )
            assert (np.array(r.as_numpy("OUT").tolist(), np.object_) == (encoded if binary_out else words)).all(), (binary, binary_out, how)

# A long answer is compressed when that is asked for, and is the same.
long = np.arange(16 * 4000, dtype=np.int32).reshape(4000, 16)
for how in (None, "gzip", "deflate"):
    for binary_out in (True, False):
        r = c.infer(
            "addsub", [tensor("INPUT0", long, "INT32"), tensor("INPUT1", long, "INT32")],
            outputs=[triton.InferRequestedOutput("OUTPUT0", binary_data=binary_out)], response_compression_algorithm=how,
        )
        assert (r.as_numpy("OUTPUT0") == 2 * long).all(), how
q = urllib.request.Request(f"http://{address}/v2/openapi.json", headers={"Accept-Encoding": "gzip"})
assert urllib.request.urlopen(q).headers["Content-Encoding"] == "gzip"


# The client for coroutines, many requests at once.
async def coroutines():
    async with aio.InferenceServerClient(address) as c:
        assert await c.is_server_live() and await c.is_server_ready() and await c.is_model_ready("addsub", "1")
        ins = [tensor("INPUT0", a, "INT32"), tensor("INPUT1", zero, "INT32")]
        hows = [None, "gzip", "deflate"]
        rs = await asyncio.gather(*(
            c.infer("addsub", ins, request_compression_algorithm=hows[i % 3], response_compression_algorithm=hows[i // 3 % 3], priority=1, timeout=5_000_000)
            for i in range(30)
        ))
        assert all((r.as_numpy("OUTPUT1") == a).all() for r in rs)
        r = await c.infer("text", [tensor("IN", words, "BYTES")])
        assert (r.as_numpy("OUT") == encoded).all()


asyncio.run(coroutines())
waiting = [c.async_infer("addsub", [tensor("INPUT0", a, "INT32"), tensor("INPUT1", zero, "INT32")]) for _ in range(10)]
assert all((w.get_result().as_numpy("OUTPUT0") == a).all() for w in waiting)
print("ok")
