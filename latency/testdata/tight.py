"""Times a model through ONNX Runtime's Python API in a tight loop: the yardstick for our own loop's overhead.

    tight.py MODEL CPU RUNS BLOCKS

Prints, for each block of RUNS runs in a session of its own, the median and
the least time in nanoseconds, both of `run` and of `run_with_iobinding`.
"""

import gc
import os
import statistics
import sys
import time

import numpy as np
import onnxruntime as ort

model, cpu, runs, blocks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
os.sched_setaffinity(0, {cpu})
try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
except OSError:
    pass
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
for _ in range(blocks):
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    i = session.get_inputs()[0]
    shape = [d if isinstance(d, int) else 1 for d in i.shape]
    x = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    names = [o.name for o in session.get_outputs()]
    feed = {i.name: x}
    binding = session.io_binding()
    binding.bind_cpu_input(i.name, x)
    for name, y in zip(names, session.run(names, feed)):
        binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(y))
    row = []
    for call in (lambda: session.run(names, feed), lambda: session.run_with_iobinding(binding)):
        for _ in range(20):
            call()
        gc.collect()
        gc.disable()
        times = []
        for _ in range(runs):
            start = time.perf_counter_ns()
            call()
            times.append(time.perf_counter_ns() - start)
        gc.enable()
        row += [int(statistics.median(times)), min(times)]
    print(*row, flush=True)
