"""The plan of what is compared: programs, and the pairs (or larger groups) in which they are measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

PARTS = ("training", "inference", "memory", "exam", "scaling")


@dataclass(frozen=True)
class Program:
    """One program to measure."""

    label: str
    """In the table; within a pair no two are alike."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """For this package, with the name of a ``step`` in ``programs/steps.py``."""
    script: str = "steps.py"
    """In ``programs``."""
    environment: str = "own"
    """``own``, or that of a peer, by its name in ``bench.machine``."""
    cores: int = 2
    images: int = 1
    """Images (or exams) a step, by which its time is divided."""
    place: float | None = None
    """On the horizontal axis of a curve."""
    curve: str | None = None


@dataclass(frozen=True)
class Pair:
    """Programs measured in turns, A B A B."""

    name: str
    part: str
    columns: tuple[str, ...]
    """Names in ``bench.report`` of the columns of its table; none: no table on the page, only in the results."""
    programs: tuple[Program, ...]
    rounds: int
    """Processes of each program, one after the other."""
    steps: int
    """Timed steps of each process."""
    warmup: int = 1
    """Steps before those, which are not counted."""
    together: bool = False
    """All processes at once, taking turns by steps; otherwise each ends before the next begins."""
    baseline: str | None = None
    """The label that times and memory are compared with."""
    time_baseline: str | None = None
    """Where times are compared with another than memory."""

    def settings(self) -> dict[str, Any]:
        """Everything that decides the figures; JSON values only."""
        return {
            "rounds": self.rounds,
            "steps": self.steps,
            "warmup": self.warmup,
            "together": self.together,
            "programs": [asdict(program) for program in self.programs],
        }


@dataclass(frozen=True)
class Scale:
    """How much is measured: all of it, or a little to try the command."""

    quick: bool
    cores: int
    inputs: str
    """Folder of the made images and models."""

    @property
    def size(self) -> int:
        """Rows and columns of network inputs."""
        return 96 if self.quick else 650

    def times(self, full: int) -> int:
        """Rounds or steps."""
        return min(full, 2) if self.quick else full


def pairs(scale: Scale) -> list[Pair]:
    """Everything that is measured."""
    return [_ceiling(scale), _training(scale), _inference(scale), _memory(scale), _exam(scale), *_scaling(scale)]


def _program(label: str, step: str, scale: Scale, per_step: int = 1, **settings: Any) -> Program:
    return Program(label, {"step": step, **settings}, cores=scale.cores, images=per_step)


def _keras(label: str, scale: Scale, batch: int, **settings: Any) -> Program:
    sizes = {"size": scale.size, "batch": batch}
    return Program(label, {**sizes, **settings}, "keras_origin.py", "keras", scale.cores, batch)


def _ceiling(scale: Scale) -> Pair:
    """The most that the processor reaches, in products of large matrices."""
    programs = tuple(_program(name, "ceiling", scale, precision=name) for name in ("fp32", "bf16"))
    return Pair("ceiling", "training", (), programs, rounds=1, steps=scale.times(10), together=True)


def _training(scale: Scale) -> Pair:
    batch = 4
    sizes = {"size": scale.size, "batch": batch}

    def train(what: str, **settings: Any) -> Program:
        return _program(f"`train`, {what}", "train", scale, batch, **sizes, **settings)

    read_anew = {"source": "files", "files": f"{scale.inputs}/pictures"}
    programs = (
        _keras("Keras, `train_on_batch`", scale, batch, mode="train"),
        _keras("Keras, compiled by XLA", scale, batch, mode="train", xla=True),
        _keras("Keras, `mixed_bfloat16`", scale, batch, mode="train", policy="mixed_bfloat16"),
        train("step alone", source="memory"),
        train("step alone, `--precision bf16`", source="memory", precision="bf16"),
        train("with augmentation", source="changed"),
        train("with augmentation, `--precision bf16`", source="changed", precision="bf16"),
        train("each image also decoded", **read_anew),
        train("each image also decoded, `--precision bf16`", **read_anew, precision="bf16"),
    )
    return Pair(
        name="training",
        part="training",
        columns=("step_s", "times_as_fast", "peak_mb"),
        programs=programs,
        rounds=scale.times(3),
        steps=scale.times(3),
        warmup=2,
        baseline=programs[0].label,
    )


def _inference(scale: Scale) -> Pair:
    engines = ("torch", "onnx", "openvino", "openvino-int8")
    programs = (
        _keras("Keras, `predict_on_batch`", scale, 1, mode="predict"),
        *(_program(f"`{name}`", "infer", scale, engine=name, size=scale.size, batch=1) for name in engines),
    )
    return Pair(
        name="inference",
        part="inference",
        columns=("image_ms", "times_as_fast", "difference", "peak_mb"),
        programs=programs,
        rounds=2,
        steps=scale.times(20),
        warmup=2,
        together=True,
        baseline=programs[0].label,
    )


def _memory(scale: Scale) -> Pair:
    batch = 4
    sizes = {"size": scale.size, "batch": batch, "fusion": "mean", "precision": "bf16"}

    def joint(label: str, checkpointing: str) -> Program:
        return _program(f"joint, {label}", "joint", scale, 4 * batch, **sizes, checkpointing=checkpointing)

    plain = joint("plain", "none")
    programs = (
        _keras("Keras, one view", scale, batch, mode="train"),
        _program("one view", "joint", scale, batch, **sizes, checkpointing="single"),
        plain,
        joint("`--checkpointing views`", "views"),
        joint("`--checkpointing layers`", "layers"),
    )
    return Pair(
        name="memory",
        part="memory",
        columns=("peak_mb", "memory_ratio", "step_s", "time_ratio"),
        programs=programs,
        rounds=2,
        steps=2,
        baseline=programs[0].label,
        time_baseline=plain.label,
    )


def _exam(scale: Scale) -> Pair:
    kinds = {
        "jpeg": "JPEG Lossless",
        "j2k": "JPEG 2000",
        "jpeg-cut": "JPEG Lossless, uniform background",
        "j2k-cut": "JPEG 2000, uniform background",
        "plain": "uncompressed",
    }
    models = {
        "default model": ("", "torch"),
        "recipe `small`": ("small", "torch"),
        "recipe `origin`": ("origin", "torch"),
        "recipe `origin` in OpenVINO": ("origin", "openvino"),
    }
    programs = []
    for title, (model, engine) in models.items():
        for folder, kind in kinds.items():
            if model and folder not in ("jpeg", "j2k"):
                continue  # what decoding takes is seen from one model
            path = f"{scale.inputs}/models/{model}" if model else ""
            settings = {"data": f"{scale.inputs}/exams/{folder}", "model": path, "engine": engine}
            programs.append(_program(f"{title}, {kind}", "read exams", scale, **settings))
    return Pair(
        name="exam",
        part="exam",
        columns=("exam_s", "peak_mb"),
        programs=tuple(programs),
        rounds=2,
        steps=scale.times(4),
    )


def _scaling(scale: Scale) -> list[Pair]:
    sizes = (64, 96) if scale.quick else (256, 384, 512, 650, 800, 1024)
    batches = (1, 2) if scale.quick else (1, 2, 4, 8)
    exams = (1, 2) if scale.quick else (1, 4, 16, 32)
    size = scale.size

    def step(place: float, cores: int = scale.cores, size: int = size, batch: int = 4) -> Program:
        settings = {"step": "train", "size": size, "batch": batch, "source": "memory"}
        return Program(f"training, {place}", settings, cores=cores, images=batch, place=place, curve="training")

    def image(place: float, cores: int = scale.cores, size: int = size, batch: int = 1) -> Program:
        settings = {"step": "infer", "engine": "torch", "size": size, "batch": batch}
        return Program(f"inference, {place}", settings, cores=cores, images=batch, place=place, curve="inference")

    def folder(place: float, cores: int, count: int) -> Program:
        settings = {"step": "read exams", "data": f"{scale.inputs}/folders/{count}", "engine": "torch", "model": ""}
        return Program(f"`predict`, {place}", settings, cores=cores, images=count, place=place, curve="`predict`")

    def curve(name: str, programs: list[Program], warmup: int = 1) -> Pair:
        return Pair(f"scaling-{name}", "scaling", (), tuple(programs), rounds=2, steps=1, warmup=warmup)

    every_core = range(1, scale.cores + 1)
    return [
        curve("size", [make(x, size=x) for make in (step, image) for x in sizes]),
        curve("batch", [make(x, batch=x) for make in (step, image) for x in batches]),
        curve("exams", [folder(x, scale.cores, x) for x in exams], warmup=0),
        curve(
            "cores",
            [
                *(make(x, cores=x) for make in (step, image) for x in every_core),
                *(folder(x, x, exams[1]) for x in every_core),
            ],
        ),
    ]
