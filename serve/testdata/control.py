"""Loads, unloads and reads models with the official client: control.py HOST:PORT.

The server has the model picture and lets clients load. Exit status 77 says
that a package is missing.
"""

import sys

try:
    import numpy as np
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException
except ImportError as e:
    print(e)
    sys.exit(77)

c = triton.InferenceServerClient(sys.argv[1])


def states():
    return {(m["name"], m.get("version")): m.get("state") for m in c.get_model_repository_index()}


def refused(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except InferenceServerException as e:
        return e.message()
    raise SystemExit(f"{call} was not refused")


extensions = c.get_server_metadata()["extensions"]
for e in ("model_configuration", "model_repository", "model_repository(unload_dependents)", "statistics"):
    assert e in extensions, extensions

assert states() == {("picture", "1"): "READY"}, states()
c.unload_model("picture")
assert states() == {("picture", "1"): "UNAVAILABLE"} and not c.is_model_ready("picture"), states()
c.load_model("picture")
assert states() == {("picture", "1"): "READY"} and c.is_model_ready("picture"), states()
c.unload_model("picture", unload_dependents=True)
c.load_model("picture")
refused(c.load_model, "nope")
refused(c.load_model, "..")
refused(c.unload_model, "nope")
assert "config.yaml" in refused(c.load_model, "picture", config="{}")
assert "requests" in refused(c.load_model, "picture", config="{}", files={"file:1/model.onnx": b"x"})

config = c.get_model_config("picture")
assert config["max_batch_size"] > 1 and config["input"][0]["format"] == "FORMAT_NCHW", config
assert config["input"][0]["dims"] == [3, 224, 224] and config["output"][0]["data_type"] == "TYPE_FP32", config

x = triton.InferInput("input", [2, 3, 224, 224], "FP32")
x.set_data_from_numpy(np.zeros((2, 3, 224, 224), np.float32))
for _ in range(3):
    c.infer("picture", [x])
for stats in (c.get_inference_statistics(), c.get_inference_statistics("picture"), c.get_inference_statistics("picture", "1")):
    (s,) = stats["model_stats"]
    assert s["inference_count"] == 6 and s["execution_count"] == 3, s
    assert s["inference_stats"]["success"]["count"] == 3 and s["batch_stats"][0]["batch_size"] == 2, s
print("ok")
