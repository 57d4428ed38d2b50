"""Train the segmenter of ``mammodensity.preprocess`` on phantoms alone, and write its weights.

python benchmarks/train_segmenter.py --phantoms phantoms.npz --output src/mammodensity/preprocess/segmenter.safetensors

The phantoms are made once and kept in the file named; every training image is one of them, disturbed anew. Seeded:
the same machine and versions give the same weights.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from mammodensity.phantom import PhantomSpec, make_exam
from mammodensity.phantom.disturbance import disturb
from mammodensity.preprocess.segmenter import SIZE, Segmenter, segmenter_input

SPEC = PhantomSpec(rows=192, seed=78)
MLO_SHARE = 0.78  # muscles are the harder part
BATCH = 8


def views(spec: PhantomSpec, index: int) -> list[tuple[str, NDArray[Any], NDArray[np.uint8]]]:
    """Position, image and labels of the four views of an exam, chest wall on the left."""
    found = []
    for projection, view in make_exam(spec, index).views.items():
        flip = slice(None, None, -1 if projection.laterality == "R" else 1)
        found.append((projection.view_position, view.image[:, flip], view.labels[:, flip]))
    return found


def phantoms(path: Path, exams: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Images, labels and view positions, from ``path`` or made and written there."""
    if not path.is_file():
        with ProcessPoolExecutor(2) as pool:
            made = [view for exam in pool.map(partial(views, SPEC), range(exams)) for view in exam]
        position, images, labels = (np.array(part) for part in zip(*made, strict=True))
        np.savez_compressed(path, images=images, labels=labels, view=position)
    stored = np.load(path)
    return stored["images"], stored["labels"], stored["view"]


class TrainingImages(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Disturbed phantoms; image ``index`` depends on the seed and on ``index`` alone."""

    def __init__(self, path: Path, exams: int, count: int, seed: int) -> None:
        self.images, self.labels, view = phantoms(path, exams)
        self.groups = [np.flatnonzero(view == name) for name in ("CC", "MLO")]
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        which = int(rng.choice(self.groups[int(rng.random() < MLO_SHARE)]))
        grey, labels = disturb(self.images[which] / 255.0, self.labels[which], SIZE, rng)
        classes = np.where(labels == 3, 2, labels).astype(np.int64)
        return torch.from_numpy(segmenter_input(grey)), torch.from_numpy(classes)


def loss_of(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy plus one minus the soft Dice of breast (muscle included) and of muscle."""
    scores = torch.softmax(logits, dim=1)
    loss = nn.functional.cross_entropy(logits, classes)
    for found, true in ((1 - scores[:, 0], classes > 0), (scores[:, 2], classes == 2)):
        both = (found * true).sum((1, 2))
        loss = loss + (1 - (2 * both + 50) / (found.sum((1, 2)) + true.sum((1, 2)) + 50)).mean()
    return loss


def train(options: argparse.Namespace) -> Segmenter:
    """Train with AdamW and one cycle of the learning rate; the weights kept are a running mean."""
    torch.manual_seed(options.seed)
    data = TrainingImages(options.phantoms, options.exams, options.steps * BATCH, options.seed)
    loader = torch.utils.data.DataLoader(data, BATCH, num_workers=options.workers)
    network = Segmenter().to(memory_format=torch.channels_last)
    averaged = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99), use_buffers=True
    )
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=options.steps, pct_start=0.15)
    start, shown = time.perf_counter(), 0.0
    for step, (images, classes) in enumerate(loader, start=1):
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            logits = network(images.contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits.float(), classes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        averaged.update_parameters(network)
        shown += loss.item()
        if step % 50 == 0:
            print(
                f"step {step}/{options.steps}: loss {shown / 50:.4f}, {time.perf_counter() - start:.0f} s", flush=True
            )
            shown = 0.0
        if step % 200 == 0:
            write(averaged.module, options.output)
    return averaged.module.eval()


def write(network: Segmenter, path: Path) -> None:
    """Half the bytes: weights are kept in 16 bits."""
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file({name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}, path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phantoms", type=Path, required=True, help="file of phantoms, made if absent")
    parser.add_argument("--output", type=Path, required=True, help="weights to write")
    parser.add_argument("--exams", type=int, default=240)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that make images")
    parser.add_argument("--bf16", action="store_true", help="faster on processors with AMX or AVX512-BF16")
    options = parser.parse_args()
    network = train(options)
    write(network, options.output)
    weights = sum(parameter.numel() for parameter in network.parameters())
    print(f"{options.output}: {options.output.stat().st_size / 1024:.0f} KiB, {weights} weights")


if __name__ == "__main__":
    main()
