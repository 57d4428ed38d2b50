"""From files to exam results, all of a folder in a step; settings: data, model (a folder, or none), engine."""

from __future__ import annotations

from pathlib import Path

import torch
import worker

from mammodensity.data.find import find_images
from mammodensity.models.scoring import predict
from mammodensity.models.trained import load_model
from mammodensity.outputs import receipt
from mammodensity.results.result import exam_result


def main() -> None:
    """A step is what `predict --json` does once the model is loaded, but for the writing."""
    torch.set_num_threads(worker.cores)
    model = load_model(worker.given["model"] or None, "cpu", worker.given["engine"])
    folder = Path(worker.given["data"])
    worker.ready(versions={"torch": torch.__version__})

    def step() -> None:
        data = find_images(folder)
        results = [exam_result(scored, provenance=receipt("predict")) for scored in predict(model, data)]
        views = sum(len(result.projections) for result in results)
        if not results or views != 4 * len(results):
            raise SystemExit(f"{folder}: {views} views of {len(results)} exams were read, not all four of each")

    worker.serve(step)


if __name__ == "__main__":
    main()
