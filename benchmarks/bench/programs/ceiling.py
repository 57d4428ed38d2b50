"""Products of large matrices, which is the most a processor reaches; settings: precision (fp32 or bf16)."""

from __future__ import annotations

import torch
import worker

_ROWS = 2048


def main() -> None:
    """A step is one product."""
    torch.set_num_threads(worker.cores)
    kind = torch.float32 if worker.given["precision"] == "fp32" else torch.bfloat16
    left, right = (torch.rand(_ROWS, _ROWS).to(kind) for _ in range(2))
    out = torch.empty_like(left)
    worker.ready(versions={"torch": torch.__version__}, gflop=2 * _ROWS**3 / 1e9)

    def step() -> None:
        torch.mm(left, right, out=out)

    worker.serve(step)


if __name__ == "__main__":
    main()
