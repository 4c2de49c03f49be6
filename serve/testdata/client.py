"""Talks to a server with the official client: client.py HOST:PORT PICTURE.

The server has the models addsub and picture. Exit status 77 says that a
package is missing.
"""

import json
import sys
import urllib.request

try:
    import numpy as np
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException
except ImportError as e:
    print(e)
    sys.exit(77)

address, picture = sys.argv[1:3]
c = triton.InferenceServerClient(address)
assert c.is_server_live() and c.is_server_ready() and c.is_model_ready("addsub") and c.is_model_ready("addsub", "1")
assert c.get_server_metadata()["name"] == "spos"
meta = c.get_model_metadata("addsub")
assert meta["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": [-1, 16]}, meta

a = np.arange(32, dtype=np.int32).reshape(2, 16)
b = np.full((2, 16), 3, np.int32)


def inputs(binary_a, binary_b):
    ins = [triton.InferInput("INPUT0", a.shape, "INT32"), triton.InferInput("INPUT1", b.shape, "INT32")]
    ins[0].set_data_from_numpy(a, binary_data=binary_a)
    ins[1].set_data_from_numpy(b, binary_data=binary_b)
    return ins


def check(r):
    assert (r.as_numpy("OUTPUT0") == a + b).all() and (r.as_numpy("OUTPUT1") == a - b).all()


for binary_a in (True, False):
    for binary_b in (True, False):
        check(c.infer("addsub", inputs(binary_a, binary_b)))
        for out in (True, False):
            wanted = [triton.InferRequestedOutput("OUTPUT1", binary_data=out), triton.InferRequestedOutput("OUTPUT0", binary_data=not out)]
            r = c.infer("addsub", inputs(binary_a, binary_b), outputs=wanted, request_id="7", model_version="1", timeout=10_000_000)
            check(r)
            assert r.get_response()["id"] == "7", r.get_response()
for how in ("gzip", "deflate"):
    check(c.infer("addsub", inputs(True, False), request_compression_algorithm=how, response_compression_algorithm=how))
check(c.async_infer("addsub", inputs(True, True)).get_result())

for bad in (lambda: c.infer("nope", inputs(True, True)), lambda: c.infer("addsub", inputs(True, True)[:1])):
    try:
        bad()
        raise SystemExit("an error was not reported")
    except InferenceServerException as e:
        assert e.message(), e

x = np.linspace(-2, 2, 3 * 224 * 224, dtype=np.float32).reshape(1, 3, 224, 224)
got = []
for binary in (True, False):
    i = triton.InferInput("input", x.shape, "FP32")
    i.set_data_from_numpy(x, binary_data=binary)
    for out in (True, False):
        r = c.infer("picture", [i], outputs=[triton.InferRequestedOutput("logits", binary_data=out)])
        got.append(r.as_numpy("logits"))
assert all((g == got[0]).all() and g.shape == (1, 4) for g in got), got

with open(picture, "rb") as f:
    q = urllib.request.Request(f"http://{address}/v2/models/picture/classify?k=2", f.read())
answer = json.load(urllib.request.urlopen(q))
assert len(answer["predictions"]) == 2 and answer["predictions"][0]["label"], answer
print("ok")
