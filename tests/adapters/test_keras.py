"""A loader for Keras, on whichever back end is there (``KERAS_BACKEND`` chooses)."""

from __future__ import annotations

import gc
import importlib.util
import multiprocessing
import os
import random
import threading
from multiprocessing import forkserver
from typing import Any

import numpy as np
import pytest
from tests.adapters.data import HALVES, Broken, Counted, Endless, Named, Paired, Rows, Stream, Weighted, halves

import headrace
from headrace.errors import ArgumentError

BACKENDS = [name for name in ("jax", "torch", "tensorflow") if importlib.util.find_spec(name)]
if not BACKENDS:
    pytest.skip("Keras needs jax, torch or tensorflow", allow_module_level=True)
os.environ.setdefault("KERAS_BACKEND", BACKENDS[0])
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras = pytest.importorskip("keras")
DataLoader = pytest.importorskip("headrace.keras").DataLoader

TENSORFLOW = keras.backend.backend() == "tensorflow"
# What Keras and its back ends say among themselves; a stream without a length makes Keras warn, and is tested below.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
WORKERS: list[dict[str, Any]] = [
    {},
    {"num_workers": 2, "backend": "threads"},
    {"num_workers": 2, "backend": "processes"},
]
NAMES = ["inline", "threads", "processes"]


class Recorded(DataLoader):
    """A loader that notes the epochs that its loops read, and what was taken of each."""

    def __init__(self, *args: Any, **arguments: Any) -> None:
        super().__init__(*args, **arguments)
        self.passes: list[tuple[int, list[Any]]] = []

    def __iter__(self) -> Any:
        taken: list[Any] = []
        self.passes.append((self._session.progress.epoch, taken))
        for batch in super().__iter__():
            taken.append(np.array(batch[0]))
            yield batch

    def read(self) -> list[tuple[int, list[int]]]:
        """Tell what whole passes, and those left early after more than a look, delivered."""
        return [(epoch, np.concatenate(taken)[:, 0].astype(int).tolist()) for epoch, taken in self.passes if taken]


def linear(**compiled: Any) -> Any:
    model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile(**{"loss": "mse", "optimizer": keras.optimizers.SGD(1e-4), **compiled})
    return model


def left() -> tuple[list[str], int]:
    """Tell which threads and processes of ours are there."""
    gc.collect()
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("headrace")]
    return threads, len(multiprocessing.active_children())


@pytest.fixture(scope="module", autouse=True)
def helpers() -> None:
    """Start what Keras, its back end and multiprocessing start once and leave running, before leaks are counted."""
    linear().fit(np.zeros((4, 2)), np.zeros((4, 1)), verbose=0)
    linear().fit(DataLoader(Rows(), 4), verbose=0)
    forkserver.ensure_running()


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
@pytest.mark.parametrize("dtype", HALVES)
def test_a_model_takes_halves(dtype: str, how: dict[str, Any]) -> None:
    """Hand Keras float16 and bfloat16 as they are: fit and predict with a model of that policy."""
    loader = DataLoader(halves(dtype), 8, **how)
    assert next(loader.get_numpy_iterator())[0].dtype.name == dtype
    layers = [keras.layers.Flatten(dtype=f"mixed_{dtype}"), keras.layers.Dense(1, dtype=f"mixed_{dtype}")]
    model = keras.Sequential([keras.Input((3, 70, 70), dtype=dtype), *layers])
    model.compile(loss="mse")
    history = model.fit(loader, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert str(np.asarray(model.predict(loader, verbose=0)).dtype) == dtype


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
def test_a_model_learns_photographs(how: dict[str, Any], patches: Any) -> None:
    """Fit a small network to patches of photographs: the loss falls, on patches that it has not seen too."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Rescaling(1 / 128, -1),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, optimizer=keras.optimizers.SGD(0.03), metrics=["accuracy"])
    training, rest = headrace.random_split(patches, [500, 100], generator=0)
    loader = DataLoader(training, 50, shuffle=True, seed=0, **how)
    history = model.fit(loader, epochs=12, validation_data=DataLoader(rest, 32, **how), verbose=0).history
    assert history["loss"][-1] < history["loss"][0] / 2
    assert history["val_loss"][-1] < history["val_loss"][0]
    assert history["val_accuracy"][-1] > 0.7
    assert left() == ([], 0)


def test_each_epoch_of_keras_is_the_next_epoch_of_the_loader() -> None:
    """Read epochs 0, 1, 2, each a shuffle of its own, whether Keras must build the model first or not."""
    model = linear()
    for start in (0, 3):
        loader = Recorded(Rows(), 4, shuffle=True, seed=7)
        loader.set_epoch(start)
        model.fit(loader, epochs=3, verbose=0)  # the first time, Keras looks at a batch to build the model
        read = [(epoch, rows) for epoch, rows in loader.read() if len(rows) == 20]
        assert [epoch for epoch, _ in read] == [start, start + 1, start + 2]
        assert all(sorted(rows) == list(range(20)) for _, rows in read)
        assert len({tuple(rows) for _, rows in read}) == 3
        for epoch, rows in read:
            plain = headrace.DataLoader(Rows(), 4, shuffle=True, seed=7)
            plain.set_epoch(epoch)
            assert rows == [int(row) for batch in plain for row in batch[0][:, 0]]


def test_keras_does_not_shuffle() -> None:
    """Deliver in the loader's order, though ``fit`` shuffles by default, and leave ``random`` as it was."""
    loader = Recorded(Rows(), 4)
    model = linear()
    model.build((None, 2))
    random.seed(3)
    state = random.getstate()
    model.fit(loader, verbose=0, shuffle=True)
    assert loader.read()[-1][1] == list(range(20))
    assert random.getstate() == state


@pytest.mark.parametrize("how", WORKERS[:2], ids=NAMES[:2])
def test_evaluate_and_predict_see_every_sample_once(how: dict[str, Any]) -> None:
    """Predict in order, with the short last batch, again and again; evaluate to the exact mean."""
    model = linear()
    model.build((None, 2))
    model.set_weights([np.array([[1.0], [0.0]]), np.zeros(1)])
    loader = DataLoader(Rows(18), 4, **how)
    for _ in range(2):
        np.testing.assert_allclose(model.predict(loader, verbose=0)[:, 0], np.arange(18), rtol=1e-6)
        expected = np.mean((np.arange(18) - np.arange(18) / 18) ** 2)
        assert model.evaluate(loader, verbose=0) == pytest.approx(expected, rel=1e-5)
    assert left() == ([], 0)


def test_predict_builds_a_model_that_is_not_built() -> None:
    """Predict every sample once though Keras had to look at the first batch."""
    assert linear().predict(DataLoader(Rows(18), 4, num_workers=2, backend="threads"), verbose=0).shape == (18, 1)
    assert left() == ([], 0)


def test_fewer_steps_an_epoch_continue_where_the_last_one_stopped() -> None:
    """Read on through the data from one of Keras's epochs to the next; end the workers with ``fit``."""
    loader = Recorded(Rows(), 4, num_workers=2, backend="threads")
    model = linear()
    model.build((None, 2))
    model.fit(loader, steps_per_epoch=2, epochs=2, verbose=0)
    assert loader.read()[-1][1][:16] == list(range(16))
    assert left() == ([], 0)


def test_one_step_at_a_time_reads_a_new_epoch_each_time() -> None:
    """Take one step in a ``fit`` for the pass that it is, and not for a look at the data."""
    loader = Recorded(Rows(), 4, shuffle=True, seed=0)
    model = linear()
    model.fit(loader, steps_per_epoch=1, verbose=0)
    loader.passes.clear()
    for _ in range(3):
        model.fit(loader, steps_per_epoch=1, verbose=0)
    assert len({epoch for epoch, taken in loader.passes if taken}) == 3


@pytest.mark.skipif(TENSORFLOW, reason="TensorFlow reads ahead of the steps")
@pytest.mark.parametrize("built", [True, False])
def test_a_run_continues_where_its_state_was_saved(built: bool) -> None:
    """Resume in the middle of an epoch with the batches that were to come, though Keras looks at one; then continue."""
    whole = headrace.DataLoader(Rows(), 4, shuffle=True, seed=5)
    epochs = [[int(row) for batch in whole for row in batch[0][:, 0]] for _ in range(3)]
    first = DataLoader(Rows(), 4, shuffle=True, seed=5)
    linear().fit(first, epochs=2, callbacks=[Stop(epoch=1)], verbose=0)
    state = first.state_dict()
    assert (state["epoch"], state["step"]) == (1, 3)
    second = Recorded(Rows(), 4, shuffle=True, seed=5)
    second.load_state_dict(state)
    model = linear()
    if built:
        model.fit(np.zeros((4, 2)), np.zeros(4), verbose=0)
    with pytest.warns(UserWarning, match="ran out of data"):  # Keras counts on a whole epoch
        model.fit(second, epochs=2, verbose=0)
    read = [rows for _, rows in second.read()][0 if built else 1 :]
    assert read == [epochs[1][12:], epochs[2]]


def test_a_state_saved_between_two_epochs_is_the_beginning_of_the_next() -> None:
    """Save the state in a callback at the end of an epoch; resume with the whole next one."""
    saved: list[Any] = []
    loader = DataLoader(Rows(), 4, shuffle=True, seed=5, num_workers=2, backend="threads")
    save = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: saved.append(loader.state_dict()))
    linear().fit(loader, epochs=2, callbacks=[save], verbose=0)
    assert [(state["epoch"], state["step"]) for state in saved] == [(1, 0), (2, 0)]
    assert left() == ([], 0)


def test_a_state_of_the_end_of_an_epoch_continues_with_the_next() -> None:
    """Read a whole epoch where the state stands behind the last batch of the one before."""
    plain = headrace.DataLoader(Rows(), 4, shuffle=True, seed=5)
    batches = iter(plain)
    for _ in range(5):
        next(batches)
    loader = Recorded(Rows(), 4, shuffle=True, seed=5)
    loader.load_state_dict(plain.state_dict())
    model = linear()
    model.fit(np.zeros((4, 2)), np.zeros(4), verbose=0)
    model.fit(loader, verbose=0)
    assert [sorted(rows) for _, rows in loader.read()][-1] == list(range(20))


class Stop(keras.callbacks.Callback):
    def __init__(self, error: BaseException | None = None, epoch: int = 0) -> None:
        super().__init__()
        self.error, self.epoch = error, epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.now = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 2 and self.now == self.epoch:
            if self.error is not None:
                raise self.error
            self.model.stop_training = True


@pytest.mark.parametrize("how", WORKERS[1:], ids=NAMES[1:])
def test_an_epoch_that_is_stopped_leaves_no_workers(how: dict[str, Any]) -> None:
    """End the workers with ``fit``, where a callback stops in the middle of an epoch, or raises."""
    loader = DataLoader(Rows(200), 4, **how)
    model = linear()
    model.fit(loader, epochs=5, callbacks=[Stop()], verbose=0)
    assert left() == ([], 0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(loader, epochs=5, callbacks=[Stop(KeyboardInterrupt())], verbose=0)
    assert left() == ([], 0)


def test_the_same_loader_trains_and_validates() -> None:
    """Read whole epochs for both, one after the other."""
    loader = Recorded(Rows(), 4, shuffle=True, seed=0)
    linear().fit(loader, validation_data=loader, epochs=2, verbose=0)
    whole = [rows for _, rows in loader.read() if len(rows) == 20]
    assert len(whole) == 4
    assert all(sorted(rows) == list(range(20)) for rows in whole)


def test_sample_weights_come_with_the_batches() -> None:
    """Weigh the samples by the third part of a batch."""
    model = linear(weighted_metrics=["mse"])
    model.build((None, 2))
    model.set_weights([np.array([[1.0], [0.0]]), np.zeros(1)])
    result = model.evaluate(DataLoader(Weighted(), 6), verbose=0, return_dict=True)
    assert result["mse"] == pytest.approx(np.mean((np.arange(10) - np.arange(10) / 20) ** 2), rel=1e-5)


@pytest.mark.parametrize("name", ["y", "sample_weight"])
def test_what_keras_would_drop_is_refused(name: str) -> None:
    """Say where targets and weights belong, rather than train without them."""
    with pytest.raises(ArgumentError, match=f"{name} cannot be given together with a loader"):
        linear().fit(DataLoader(Rows(), 4), verbose=0, **{name: np.zeros(20)})


@pytest.mark.parametrize("how", WORKERS[:2], ids=NAMES[:2])
def test_class_weights_are_those_of_arrays(how: dict[str, Any]) -> None:
    """Train as Keras does from the arrays, and otherwise than without weights."""
    numbers, classes = np.linspace(-1, 1, 20, dtype="float32")[:, None], np.arange(20) % 2
    data = headrace.ArrayDataset(numbers, classes)
    weights = {0: 0.25, 1: 4.0}

    def trained(*given: Any, **arguments: Any) -> Any:
        model = linear()
        model.build((None, 1))
        model.fit(*given, epochs=2, verbose=0, **arguments)
        return np.concatenate([np.asarray(value).ravel() for value in model.get_weights()])

    expected = trained(numbers, classes, batch_size=5, shuffle=False, class_weight=weights)
    np.testing.assert_allclose(trained(DataLoader(data, 5, **how), class_weight=weights), expected, rtol=1e-5)
    assert not np.allclose(trained(DataLoader(data, 5, **how)), expected)
    with pytest.raises(Exception if TENSORFLOW else ArgumentError, match="class_weight needs batches"):
        linear().fit(DataLoader(Weighted(), 4, **how), verbose=0, class_weight=weights)


@pytest.mark.filterwarnings("error:.*ran out of data")
@pytest.mark.parametrize("how", WORKERS[:2], ids=NAMES[:2])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 12])
def test_steps_continue_in_the_next_epoch(steps: int, how: dict[str, Any]) -> None:
    """Take as many steps in each of Keras's epochs, whatever the loader's length of five batches."""
    loader = Recorded(Rows(), 4, shuffle=True, seed=3, **how)
    counts: list[int] = []
    count = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: counts.append(0),
        on_train_batch_end=lambda batch, logs: counts.append(counts.pop() + 1),
    )
    model = linear()
    model.build((None, 2))
    held_out = DataLoader(Rows(), 4)
    model.fit(loader, steps_per_epoch=steps, epochs=4, verbose=0, callbacks=[count], validation_data=held_out)
    assert counts == [steps] * 4
    read = [rows for _, rows in loader.read()]
    whole = DataLoader(Rows(), 4, shuffle=True, seed=3)
    expected = [np.concatenate([np.asarray(x)[:, 0] for x, _ in whole]).astype(int).tolist() for _ in range(11)]
    assert [rows for rows in read if len(rows) == 20][: steps * 4 // 5] == expected[: steps * 4 // 5]
    assert left() == ([], 0)


def test_predicting_by_steps_ends_with_the_data() -> None:
    """Predict no sample twice where more steps are asked for than there are."""
    with pytest.warns(UserWarning, match="ran out of data"):
        found = linear().predict(DataLoader(Rows(18), 4), steps=9, verbose=0)
    assert len(found) == 18


@pytest.mark.parametrize("dataset", [Named(), Paired()], ids=["named", "paired"])
def test_several_inputs_reach_the_model(dataset: Any) -> None:
    """Feed a model of two inputs by name, and by place."""
    one, two = keras.Input((2,), name="left"), keras.Input((2,), name="right")
    model = keras.Model([one, two], keras.layers.Dense(1)(keras.layers.Concatenate()([one, two])))
    model.compile(loss="mse", optimizer=keras.optimizers.SGD(1e-4))
    losses = model.fit(DataLoader(dataset, 4, num_workers=2, backend="threads"), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_a_batch_that_keras_cannot_take_is_an_error() -> None:
    """Say which forms there are, and what was found."""
    loader = DataLoader(range(8), 2, collate_fn=lambda samples: (1, 2, 3, 4))
    with pytest.raises(ValueError, match=r"\(x, y, sample_weight\) or a dictionary; got a tuple of 4"):
        linear().fit(loader, verbose=0)


@pytest.mark.parametrize("how", WORKERS[:2], ids=NAMES[:2])
def test_an_error_in_the_dataset_ends_fit(how: dict[str, Any]) -> None:
    """Raise what the dataset raises; TensorFlow wraps it in an error of its own, with the text."""
    kind: type[Exception] = Exception if TENSORFLOW else LookupError
    with pytest.raises(kind, match="row nine"):
        linear().fit(DataLoader(Broken(), 4, **how), verbose=0)
    assert left() == ([], 0)


def test_a_stream_with_a_length_needs_nothing_more() -> None:
    """Read a stream to its end, epoch by epoch."""
    loader = Recorded(Counted(), 4, num_workers=1, backend="threads")
    model = linear()
    model.build((None, 2))
    assert len(model.fit(loader, epochs=2, verbose=0).history["loss"]) == 2
    assert [rows for _, rows in loader.read()][-2:] == [list(range(20))] * 2
    assert left() == ([], 0)


def test_a_stream_without_a_length_is_read_to_its_end() -> None:
    """Read all of it, with Keras's own warning that it ran out of data."""
    loader = Recorded(Stream(), 4, num_workers=1, backend="threads")
    model = linear()
    model.build((None, 2))
    assert loader.num_batches is None
    with pytest.warns(UserWarning, match="ran out of data"):
        model.fit(loader, verbose=0)
    assert loader.read()[-1][1] == list(range(20))
    assert left() == ([], 0)


def test_an_endless_stream_is_read_by_steps() -> None:
    """Read ``steps_per_epoch`` batches in each of Keras's epochs, one after the other, without a warning."""
    loader = Recorded(Endless(), 4, num_workers=1, backend="threads")
    model = linear()
    model.build((None, 2))
    model.fit(loader, steps_per_epoch=3, epochs=3, verbose=0)
    assert loader.read()[-1][1][:36] == [index % 20 for index in range(36)]
    assert left() == ([], 0)


def test_an_epoch_without_a_batch_is_an_error() -> None:
    """Say so, where Keras would go through an epoch of nothing."""
    with pytest.raises(ValueError, match="gave Keras no batch"):
        linear().fit(DataLoader(Rows(0), 4), verbose=0)


GIVEN = {
    "fit": lambda model, data: model.fit(data, verbose=0),
    "evaluate": lambda model, data: model.evaluate(data, verbose=0),
    "predict": lambda model, data: model.predict(data, verbose=0),
    "validation": lambda model, data: model.fit(np.zeros((4, 2)), np.zeros((4, 1)), validation_data=data, verbose=0),
}


@pytest.mark.parametrize("give", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize("kind", ["a loader", "its subclass", "its iterator"])
def test_a_loader_that_is_not_for_keras_says_which_one_is(kind: str, give: Any) -> None:
    """Name the module to import from in Keras's own error, for what iterates over a loader too."""

    class Own(headrace.DataLoader[Any]):
        pass

    with (Own if kind == "its subclass" else headrace.DataLoader)(Rows(), 4) as loader:
        data = loader if kind in ("a loader", "its subclass") else iter(loader)
        with pytest.raises(ValueError, match=r"from headrace\.keras import DataLoader"):
            give(linear(), data)
        assert "keras" not in f"{loader} {loader!r} {loader:>9}"


def test_it_is_a_pydataset_and_a_loader() -> None:
    """Index batches in any order, as long as they are; keep the attributes of a loader."""
    loader = DataLoader(Rows(18), 4, shuffle=True, seed=2, num_workers=2, backend="threads")
    assert isinstance(loader, keras.utils.PyDataset)
    assert isinstance(loader, headrace.DataLoader)
    assert len(loader) == loader.num_batches == 5
    whole = list(loader)
    loader.set_epoch(0)
    for step in (3, 0, 4, -1, 2):
        np.testing.assert_array_equal(loader[step][0], whole[step][0])
    for step in (5, -6):
        with pytest.raises(IndexError):
            loader[step]
    assert (loader.batch_size, loader.backend, loader.num_workers) == (4, "threads", 2)
    assert left() == ([], 0)


@pytest.mark.skipif(not importlib.util.find_spec("tensorflow"), reason="adapt of Keras 3.15 imports TensorFlow")
def test_a_layer_adapts_to_it() -> None:
    """Let a layer that takes a ``PyDataset`` read the whole data."""
    layer = keras.layers.Normalization()
    layer.adapt(DataLoader(Rows(), 5, collate_fn=lambda samples: np.stack([x for x, _ in samples])))
    np.testing.assert_allclose(np.asarray(layer.mean).ravel(), [9.5, 1.0], rtol=1e-6)


def test_keras_trains_on_its_generator() -> None:
    """Fit from a plain generator over all epochs, which Keras reads by steps, also across their ends."""
    batches = DataLoader(Rows(), 4, shuffle=True, num_workers=2, backend="threads").batches(endless=True)
    losses = linear().fit(batches, steps_per_epoch=7, epochs=3, shuffle=False, verbose=0).history["loss"]
    assert len(losses) == 3
    batches.close()
    assert left() == ([], 0)
