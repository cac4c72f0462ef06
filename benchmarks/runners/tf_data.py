"""tf.data with its own JPEG crop-while-decoding, its autotuner, and as many threads as the others have workers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from common import BIAS, SCALE, Job, run

# Read when TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable


def reader(job: Job) -> Callable:
    size = [job.size, job.size]

    def read(path: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        data = tf.io.read_file(path)
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(data),
            bounding_boxes=tf.zeros([1, 0, 4]),
            use_image_if_no_bounding_boxes=True,
            aspect_ratio_range=[3 / 4, 4 / 3],
            area_range=[0.08, 1.0],
            max_attempts=10,
            min_object_covered=0.0,
        )
        window = tf.stack([begin[0], begin[1], extent[0], extent[1]])
        # TensorFlow's default is the fast, inexact inverse DCT; every other runner uses the accurate one.
        image = tf.io.decode_and_crop_jpeg(data, window, channels=3, dct_method="INTEGER_ACCURATE")
        image = tf.image.resize(image, size, antialias=job.antialias)
        image = tf.image.random_flip_left_right(image)
        return tf.transpose(image * SCALE + BIAS, [2, 0, 1]), label

    return read


def make(job: Job) -> tf.data.Dataset:
    if job.images is None:
        dataset = tf.data.Dataset.from_tensor_slices((job.paths, job.labels))
        dataset = dataset.shuffle(len(job.paths))
        dataset = dataset.map(reader(job), num_parallel_calls=tf.data.AUTOTUNE)
        dataset = dataset.batch(job.batch, num_parallel_calls=tf.data.AUTOTUNE)
    else:
        images, labels = tf.constant(job.images), tf.constant(job.labels)

        def gather(keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            batch = tf.cast(tf.gather(images, keys), tf.float32) * SCALE + BIAS
            return tf.transpose(batch, [0, 3, 1, 2]), tf.gather(labels, keys)

        # Shuffling numbers and gathering whole batches is far cheaper than shuffling images.
        dataset = tf.data.Dataset.range(len(job.labels)).shuffle(len(job.labels))
        dataset = dataset.batch(job.batch).map(gather, num_parallel_calls=tf.data.AUTOTUNE)
    options = tf.data.Options()
    options.threading.private_threadpool_size = job.workers
    options.deterministic = True
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


if __name__ == "__main__":
    run(make, packages=("tensorflow-cpu",))
