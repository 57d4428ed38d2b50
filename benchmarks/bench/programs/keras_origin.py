"""The origin's network in Keras, trained or used: what ours is compared with.

Runs in an environment of its own that has tensorflow and not this package. The layers follow the table in
docs/infn.md.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
import worker
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
    return keras.Model(images, layers.Dense(4, activation="softmax", dtype="float32")(features))


def main() -> None:
    """Settings: size, batch, mode (train or predict), and for training policy and xla."""
    settings = worker.settings
    tf.config.threading.set_intra_op_parallelism_threads(worker.cores)
    tf.config.threading.set_inter_op_parallelism_threads(worker.cores)
    keras.utils.set_random_seed(1)
    keras.mixed_precision.set_global_policy(settings.get("policy", "float32"))
    model = origin_network(settings["size"])
    rng = np.random.default_rng(1)
    images = rng.random((settings["batch"], settings["size"], settings["size"], 3), np.float32)
    labels = np.eye(4, dtype=np.float32)[np.arange(settings["batch"]) % 4]
    if settings["mode"] == "train":
        compiled = "auto" if settings.get("xla") else False
        model.compile(keras.optimizers.SGD(0.01), "categorical_crossentropy", jit_compile=compiled)
    worker.ready(versions={"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__})

    def step() -> None:
        if settings["mode"] == "train":
            model.train_on_batch(images, labels)
        else:
            model.predict_on_batch(images)

    worker.serve(step)


if __name__ == "__main__":
    main()
