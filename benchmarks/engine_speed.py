"""Time per image of each engine, side by side in one run: the origin's network at its size.

python benchmarks/engine_speed.py [--size 650] [--rounds 15]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from mammodensity.networks import Checkpoint, NetworkSpec, OriginNetwork
from mammodensity.networks.onnx_export import to_onnx
from mammodensity.prediction.engines import ENGINES, make_engine, openvino_session
from mammodensity.prediction.int8 import quantised
from mammodensity.preprocess import PreprocessSpec
from mammodensity.terms import Projection


def main() -> None:
    """Print a row an engine: median, spread, ratio to torch, largest difference of a logit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=650)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    spec = PreprocessSpec(rows=arguments.size, columns=arguments.size)
    checkpoint = Checkpoint(OriginNetwork(NetworkSpec()).eval(), Projection.CC_L, spec)
    image = np.random.default_rng(0).normal(0, 0.3, (1, 1, arguments.size, arguments.size)).astype(np.float32)
    engines = {name: make_engine(name, checkpoint, torch.device("cpu")) for name in ENGINES if name != "openvino-int8"}
    with TemporaryDirectory() as folder:  # of random weights nothing is asked but speed
        exact, eight = Path(folder) / "exact.onnx", Path(folder) / "eight.onnx"
        exact.write_bytes(to_onnx(checkpoint))
        eight.write_bytes(quantised(exact, image))
        engines["openvino-int8"] = openvino_session(eight)
    logits = {name: run(image) for name, run in engines.items()}  # the first run also warms up
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(arguments.rounds):
        for name, run in engines.items():
            start = time.perf_counter()
            run(image)
            times[name].append(1000 * (time.perf_counter() - start))
    slow = statistics.median(times["torch"])
    print(f"{arguments.size} x {arguments.size}, batch 1, {torch.get_num_threads()} threads")
    print("| engine | ms an image, median | quartiles | times as fast as torch | largest difference of a logit |")
    print("|---|---|---|---|---|")
    for name, found in times.items():
        low, middle, high = statistics.quantiles(found, n=4)
        difference = float(np.abs(logits[name] - logits["torch"]).max())
        print(f"| {name} | {middle:.0f} | {low:.0f}-{high:.0f} | {slow / middle:.2f} | {difference:.1e} |")


if __name__ == "__main__":
    main()
