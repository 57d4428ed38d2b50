"""The origin's network in Keras, trained a few steps: what the joint step's memory and time are measured against.

Runs in an environment of its own that has tensorflow and not this package: see joint_memory.py, which starts it.
The layers follow the table in docs/origin.md.
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf
from keras import layers


def _normalised(tensor):
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3)(tensor)


def _active(tensor):
    return layers.LeakyReLU(negative_slope=0.3)(tensor)


def _block(tensor, width, outputs, stride, project):
    inner = _active(_normalised(layers.Conv2D(width, 1)(tensor)))
    inner = _active(_normalised(layers.Conv2D(width, 3, strides=stride, padding="same")(inner)))
    inner = _normalised(layers.Conv2D(outputs, 1)(inner))
    shortcut = _normalised(layers.Conv2D(outputs, 1, strides=stride)(tensor)) if project else tensor
    return _active(layers.add([inner, shortcut]))


def origin_network(size: int) -> keras.Model:
    """The network for one projection, at its size of 650 or another."""
    images = keras.Input((size, size, 3))
    features = _active(_normalised(layers.Conv2D(64, 3, strides=2, padding="same")(images)))
    features = layers.MaxPooling2D(3, 2, padding="same")(features)
    for stage, (width, outputs) in enumerate(((64, 128), (128, 256), (128, 256), (128, 256))):
        for block in range(3):
            features = _block(features, width, outputs, 2 if stage and not block else 1, block == 0)
    features = layers.GlobalAveragePooling2D()(layers.Dropout(0.2)(features))
    return keras.Model(images, layers.Dense(4, activation="softmax")(features))


def main() -> None:
    """Arguments: size, batch, steps, threads, compile (auto or plain); prints seconds of each step as JSON."""
    size, batch, steps, threads = (int(value) for value in sys.argv[1:5])
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    keras.utils.set_random_seed(1)
    model = origin_network(size)
    model.compile(
        keras.optimizers.SGD(0.01), "categorical_crossentropy", jit_compile="auto" if sys.argv[5] == "auto" else False
    )
    rng = np.random.default_rng(1)
    images = rng.random((batch, size, size, 3), np.float32)
    labels = np.eye(4, dtype=np.float32)[np.arange(batch) % 4]
    found = []
    for _ in range(steps):
        wall, processor = time.perf_counter(), time.process_time()
        model.train_on_batch(images, labels)
        found.append((time.perf_counter() - wall, time.process_time() - processor))
    print(json.dumps({"steps": found, "versions": {"tensorflow": tf.__version__, "keras": keras.__version__}}))


if __name__ == "__main__":
    main()
