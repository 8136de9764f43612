"""dense_100 as a plain Keras script, without tracking: what benchmarks/whole_run.py compares with.

python benchmarks/plain_dense_100.py mnist.npz
"""

import sys

import keras
import numpy as np

with np.load(sys.argv[1]) as data:
    x_train, y_train = data["x_train"] / 255.0, data["y_train"]
    x_test, y_test = data["x_test"] / 255.0, data["y_test"]

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((28, 28)),
        keras.layers.Flatten(),
        keras.layers.Dense(100, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, epochs=25, batch_size=32, validation_split=0.2, verbose=2)
loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"test accuracy {accuracy:.4f}")
