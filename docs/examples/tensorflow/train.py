"""Trains a small network with TensorFlow; what it leaves answers without TensorFlow.

Own parameters: width (128), epochs (20), rate (0.001).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

arguments = argparse.ArgumentParser()
for name in ("--data", "--parameters", "--output"):
    arguments.add_argument(name, type=Path, required=True)
given = arguments.parse_args()
about = json.loads((given.data / "data.json").read_text())
parameters = {"width": 128, "epochs": 20, "rate": 0.001} | json.loads(given.parameters.read_text())
tf.keras.utils.set_random_seed(about["seed"])


def part(name):
    """Inputs with 0 in place of what is missing, and labels."""
    return np.nan_to_num(np.load(given.data / f"{name}_inputs.npy")), np.load(given.data / f"{name}_labels.npy")


inputs, labels = part("train")
mean, scale = inputs.mean(axis=0), np.maximum(inputs.std(axis=0), 1e-6)
network = tf.keras.Sequential(
    [
        tf.keras.layers.Input((about["features"],)),
        tf.keras.layers.Dense(parameters["width"], activation="relu"),
        tf.keras.layers.Dense(about["classes"]),
    ]
)
network.compile(
    optimizer=tf.keras.optimizers.Adam(parameters["rate"]),
    loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)


def tell(epoch, logs):
    """One line of JSON is one piece of news."""
    news = {"step": epoch + 1, "of": parameters["epochs"], "quality": float(logs["val_accuracy"])}
    print(json.dumps(news), flush=True)


held_out, answers = part("validation")
network.fit(
    (inputs - mean) / scale,
    labels,
    epochs=parameters["epochs"],
    validation_data=((held_out - mean) / scale, answers),
    callbacks=[tf.keras.callbacks.LambdaCallback(on_epoch_end=tell)],
    verbose=0,
)
first, first_bias, second, second_bias = network.get_weights()
np.savez(
    given.output / "weights.npz",
    mean=mean, scale=scale, first=first, first_bias=first_bias, second=second, second_bias=second_bias,
)  # fmt: skip
