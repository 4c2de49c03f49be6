"""Talks to a server with KServe's clients: kserve_client.py HTTP GRPC.

Both are HOST:PORT of a server that has the model addsub. Exit status 77 says
that a package is missing.
"""

import asyncio
import sys

try:
    import numpy as np
    from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
    from kserve.inference_client import RESTConfig
    from kserve.protocol.infer_type import RequestedOutput
except ImportError as e:
    print(e)
    sys.exit(77)

http, grpc = sys.argv[1:3]
a = np.arange(32, dtype=np.int32).reshape(2, 16)
b = np.full((2, 16), 3, np.int32)


def request(binary, outputs=None):
    inputs = [InferInput(name, [2, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    for i, x in zip(inputs, (a, b)):
        i.set_data_from_numpy(x, binary_data=binary)
    return InferRequest(
        "addsub", inputs, request_id="7", request_outputs=outputs,
        parameters={"binary_data_output": binary} if outputs is None else None,
    )


def check(r):
    got = {o.name: o.as_numpy() for o in r.outputs}
    assert (got["OUTPUT0"] == a + b).all() and (got["OUTPUT1"] == a - b).all(), got
    assert r.model_name == "addsub" and r.id == "7", r


async def rest():
    base = f"http://{http}"
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(base) and await client.is_server_ready(base)
    assert await client.is_model_ready(base, "addsub")
    for binary in (False, True):
        check(await client.infer(base, request(binary), model_name="addsub"))
    mixed = [RequestedOutput("OUTPUT1", {"binary_data": True}), RequestedOutput("OUTPUT0", {"binary_data": False})]
    check(await client.infer(base, request(True, mixed), model_name="addsub"))
    try:
        await client.infer(base, request(False), model_name="nope")
    except Exception as e:
        assert "404" in str(e), e
    else:
        raise SystemExit("an unknown model was answered")
    await client.close()


async def rpc():
    client = InferenceGRPCClient(grpc)
    assert await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready("addsub")
    for binary in (False, True):
        check(await client.infer(request(binary)))
    await client.close()


asyncio.run(rest())
asyncio.run(rpc())
print("ok")
