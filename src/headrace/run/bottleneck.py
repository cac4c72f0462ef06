"""What limits a loop, with the evidence, and what would help by how much.

The times are those of the loop's own batches (`lives`); what would help is predicted by a model of the pipeline
(`queueing`), whose result for the loop as it is must be the period that was measured: only its ratios are used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import TYPE_CHECKING

from headrace.executors.worker_options import groups
from headrace.formatting import duration, percent
from headrace.run.queueing import Pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.plan.work import Making
    from headrace.run.life import Life

LEAST = 8
"""Batches that must have been noted before anything is said."""
FREE = 0.05
"""A loop that waits a smaller part of its time is its own limit."""
FULL = 0.85
"""The part of a resource's time from which on it counts as busy all the time."""
CONTENDED = 0.0005
"""Seconds; a thread that gave up the GIL and gets it back later than this has to queue for it."""
SHORT = 0.005
"""Seconds; trials do not show whether the threads of shorter batches wait for the GIL."""
LATE = 0.3
"""The part of the trials from which on threads queue for the GIL; a single late one had its holder wait for a CPU."""
PRESSED = 0.1
"""The least part of the time that processes stood still because memory is short, where that is the limit."""
SPARE = 0.1
"""The part of the CPUs that must have been idle, to say how many others' programs leave."""
CUT = 0.2
"""The part by which a stage is made shorter in a prediction."""
MORE = 2
"""Workers that are added in a prediction."""
NOTABLE = 0.02
"""A gain that is not worth a word."""
_PYTHON = ("other", "collate")
"""Stages whose time on a CPU counts as time with the GIL: a user's code, where nothing says otherwise."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What a change would bring."""

    change: str
    gain: float
    """By which part more batches a second would come: 0.14 is 14 % more."""

    def __str__(self) -> str:
        brought = percent(abs(self.gain))
        return f"{self.change}: {'-' if self.gain < 0 and brought != percent(0.0) else '+'}{brought}"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What limits a loop.

    >>> str(Diagnosis("decode", ("decode takes 71 % of the workers' time",), (Gain("decode -20 %", 0.14),), 0.4))
    "decode is the limit: decode takes 71 % of the workers' time; decode -20 %: +14 %; 40 % below a free loader"
    """

    bound: str
    """"consumer", "decode", "transform", "collate", "dataset", "storage", "GIL", "transport" or "memory"."""
    evidence: tuple[str, ...]
    gains: tuple[Gain, ...]
    below_free: float
    """The part of the rate that is lost to the loader: 0.03 is 3 % below the rate with a loader that costs nothing."""

    def __str__(self) -> str:
        parts = [", ".join(self.evidence), *map(str, self.gains), f"{percent(self.below_free)} below a free loader"]
        return f"{self.bound} is the limit: " + "; ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a loop; times are seconds a batch, on average."""

    kind: str
    """The kind of executor."""
    workers: int
    ahead: int
    """Batches that may be under way at once."""
    cpus: int
    period: float
    waiting: float
    """Of the period, how long the loop waited."""
    service: tuple[float, ...]
    """How long workers took, batch by batch."""
    training: tuple[float, ...]
    """How long the loop took between batches, batch by batch."""
    stages: Mapping[str, float]
    """The parts of the service, from 0 to 1."""
    cpu: float
    """How long a worker ran on a CPU, of a mean service."""
    loop_cpu: float = 0.0
    """How long the loop's thread did."""
    queued: float = 0.0
    """The part of the service that workers waited for a CPU, others' programs included."""
    gil_wait: float = 0.0
    """How long a worker waits to get the GIL back, once it has given it up."""
    packing: float = 0.0
    opening: float = 0.0
    pressure: float = 0.0
    """The part of the time that processes stood still because memory is short."""
    spare: float | None = None
    """CPUs of the machine that were idle, on average; None where that is not known."""
    in_turns: bool = False
    whole: bool = False
    """Whether all workers make each batch together: the native extension's threads."""
    together: int = 1
    """How many workers make each batch together; ``service`` is what they take of their time in all."""

    def diagnosis(self) -> Diagnosis:
        """Say what limits the loop."""
        bound, evidence = self._bound()
        below = max(0.0, 1.0 - fmean(self.training) / self.period)
        return Diagnosis(bound, evidence, self._gains(bound), below)

    @property
    def bound(self) -> str:
        """What limits the loop, as `Diagnosis` names it."""
        return self._bound()[0]

    @property
    def needs_gil(self) -> bool:
        """Whether threads of this process spend much of their time with the GIL, and others wait for it."""
        contended = self.gil_wait >= CONTENDED or self._mean < SHORT
        return self._takes_gil or (self.kind == "threads" and contended and self._python > 0.5)

    def period_with(self, kind: str, workers: int, ahead: int, together: int = 1) -> float:
        """Return the period that the model predicts for other workers; what handing over costs there is not known."""
        now = self._pipeline()
        alone, carries = self._alone, kind == "processes" == self.kind
        if kind == "inline" and self._mean < SHORT and self._python > 0.5:  # what blocks short batches is the GIL
            alone = self.cpu / self._mean
        count, shared = _grouped(workers, workers if self.whole and kind == "threads" else together)
        floor = self._floor(self.cpu, gil=False)
        if kind == "threads" and not self.whole:
            floor = max(floor, self.cpu * self._python)
        other = Pipeline(
            service=[max(1e-9, each * alone * shared) + (self.packing if carries else 0.0) for each in self.service],
            training=now.training,
            workers=0 if kind == "inline" else count,
            ahead=max(1, ahead),
            in_turns=kind == "processes",
            handing=self.opening if carries else 0.0,
            floor=0.0 if kind == "inline" else floor,
        )
        return self.period * other.period() / max(now.period(), 1e-12)

    @property
    def _alone(self) -> float:
        """The part of a service that is left where the workers do not slow each other down.

        Others' programs slow a worker down however many there are; its own kind, and the GIL, are the floor.
        """
        if self._takes_gil:
            return self.cpu / self._mean
        return (self.cpu + self._blocked) / self._mean if self._crowded else 1.0

    @property
    def _python(self) -> float:
        """The part of a worker's CPU time in which it holds the GIL."""
        return 1.0 if self._takes_gil else sum(self.stages.get(stage, 0.0) for stage in _PYTHON)

    @property
    def _together(self) -> int:
        """How many workers make each batch together."""
        return self.workers if self.whole else self.together

    @property
    def _mean(self) -> float:
        return max(fmean(self.service), 1e-12)

    @property
    def _blocked(self) -> float:
        """Seconds of a service in which the worker neither ran nor waited for a CPU: storage, or the GIL."""
        return max(0.0, self._mean * (1.0 - self.queued) - self.cpu)

    @property
    def _busy(self) -> float:
        """CPUs that workers and loop keep busy, on average."""
        return (self.cpu + self.packing + self.loop_cpu) / self.period

    @property
    def _available(self) -> float:
        """CPUs that the loop and its workers can keep busy: others' programs have the rest.

        Where no CPU is idle, nobody knows how much of their share others would give up.
        """
        if self.spare is None or self.spare < SPARE * self.cpus:
            return self.cpus
        return min(self.cpus, self._busy + self.spare)

    @property
    def _takes_gil(self) -> bool:
        """Whether threads of this process queue for the GIL."""
        if self.kind != "threads" or self.whole or self.workers < 2 or self.gil_wait < CONTENDED:
            return False
        # Whoever holds the GIL runs, or waits for a CPU: one of them at any time.
        held = (self.cpu + self.loop_cpu + self.queued * self._mean) / self.period
        computes = self.loop_cpu >= FULL * self.period  # the loop itself holds it, and is the limit
        return held >= FULL and self._busy < FULL * self.cpus and not computes

    @property
    def _crowded(self) -> bool:
        """Whether the loop and its workers wait for CPUs that they themselves keep busy."""
        return self._busy >= FULL * self.cpus

    def _bound(self) -> tuple[str, tuple[str, ...]]:
        mean = self._mean
        share = self.waiting / self.period
        waits = f"the loop waits {percent(share)} of its time"
        if self.pressure > PRESSED:
            return "memory", (
                waits,
                f"processes stood still because memory is short {percent(self.pressure)} of the time",
            )
        training = fmean(self.training)
        sent = (self.opening > 0.5 * self.waiting and self.opening > training) or self.packing > mean
        if not self._takes_gil and (share < FREE or (self._follows_training() and not sent)):
            return "consumer", (waits, f"it takes {duration(training)} between two batches")
        if sent:
            said = f"a batch takes {duration(mean)} to make, {duration(self.packing)} to pack"
            return "transport", (waits, f"{said} and {duration(self.opening)} to open")
        if self._takes_gil:
            late = f"a thread that gave up the GIL gets it back after {duration(self.gil_wait)}"
            return "GIL", (waits, late, f"{self.workers} threads keep {self._busy:.1f} of {self.cpus} CPUs busy")
        blocked = self._blocked / mean
        stage = max(self.stages, key=lambda name: self.stages[name], default="other")
        if blocked > 0.5 or (stage == "read" and blocked > 0.25):
            said = f"workers neither run nor wait for a CPU {percent(blocked)} of their time"
            return "storage", (waits, said)
        name = {"other": "dataset", "read": "dataset"}.get(stage, stage)
        takes = f"{'the dataset' if name == 'dataset' else name} takes {percent(self.stages.get(stage, 1.0))}"
        busy = f"{self._busy:.1f} of {self.cpus} CPUs are busy with it and the loop"
        return name, (waits, f"{takes} of the workers' time", busy)

    def _follows_training(self) -> bool:
        """Say whether a shorter training step would bring more than faster workers."""
        now = self._pipeline()
        faster = replace(now, service=[each * (1.0 - CUT) for each in now.service], floor=now.floor * (1.0 - CUT))
        trained = replace(now, training=[each * (1.0 - CUT) for each in now.training])
        return trained.period() < faster.period()

    def _pipeline(self) -> Pipeline:
        """Return the model of the loop as it is."""
        alone, training = self._alone, self.training
        if self._takes_gil:
            training = tuple(max(0.0, each - self.gil_wait) for each in training)
        count, shared = _grouped(self.workers, self._together)
        return Pipeline(
            service=[max(1e-9, each * alone * shared) + self.packing for each in self.service],
            training=training,
            workers=count,
            ahead=max(1, self.ahead),
            in_turns=self.in_turns,
            handing=self.opening,
            floor=self._floor(self.cpu),
        )

    def _floor(self, cpu: float, *, gil: bool = True) -> float:
        """Return the least period for so much CPU time a batch: of the CPUs, and of the GIL."""
        least = (cpu + self.packing + self.loop_cpu) / self._available
        if gil and self.kind == "threads" and not self.whole:
            least = max(least, cpu * self._python)
        return least

    def _gains(self, bound: str) -> tuple[Gain, ...]:
        now = self._pipeline()
        period = now.period()
        found: list[Gain] = []
        mean = self._mean

        def gain(change: str, other: Pipeline) -> None:
            found.append(Gain(change, period / max(other.period(), 1e-12) - 1.0))

        for stage, part in sorted(self.stages.items(), key=lambda item: -item[1])[:2]:
            if part >= 0.05:
                name = "dataset" if stage == "other" else stage
                waits = stage == "read" and bound in ("storage", "GIL")  # and takes no time of a CPU
                cpu = self.cpu * (1.0 if waits else 1.0 - CUT * part)
                cut = 0.0 if waits and bound == "GIL" else CUT * part
                service = [each - cut * (each - self.packing) for each in now.service]
                other = replace(now, service=service, floor=self._floor(cpu))
                gain(f"{name} -{percent(CUT)}", other)
        if self.kind != "inline" and not self.whole:
            workers = max(1, self.workers)
            count, shared = _grouped(workers + MORE, self.together)
            before = _grouped(workers, self.together)
            service = [(each - self.packing) * shared / before[1] + self.packing for each in now.service]
            ahead = max(1, self.ahead) * count // before[0]
            gain(f"+{MORE} workers", replace(now, service=service, workers=count, ahead=ahead))
        if self.kind == "inline":
            gain("1 worker", replace(now, workers=1, ahead=2))
        if bound == "GIL":
            cpu = self.cpu / mean
            free = replace(now, service=[each * cpu for each in self.service], floor=self._floor(self.cpu, gil=False))
            gain("processes in place of threads", free)
        if bound == "consumer" or now.training:
            shorter = [each * (1.0 - CUT) for each in now.training]
            gain(f"training -{percent(CUT)}", replace(now, training=shorter))
        return tuple(found)


def measured(
    lives: Sequence[Life],
    stages: Mapping[str, float],
    *,
    every: int,
    kind: str,
    workers: int,
    ahead: int,
    cpus: int,
    in_turns: bool,
    pressure: float,
    together: int = 1,
    spare: float | None = None,
) -> Measured | None:
    """Return what the lives of a loop's batches say of it; None if they are too few. One in ``every`` was noted.

    ``stages`` are the seconds of all its batches by stage.
    """
    # The first batches of a loop come from a pipeline that was empty, after workers have started.
    whole = [(life, life.making) for life in lives if life.making is not None]
    known = whole[max(1, min(len(whole) // 4, ahead)) :]
    count = (len(known) - 1) * every
    if len(known) < LEAST or known[-1][0].delivered <= known[0][0].delivered:
        return None
    (first, _), (last, _), later = known[0], known[-1], known[1:]
    period = (last.delivered - first.delivered) / count
    waiting = min(period, fmean(life.delivered - life.asked for life, _ in later))
    training: tuple[float, ...] = (max(0.0, period - waiting),)
    if every == 1:
        pairs = zip(known, later, strict=False)
        training = tuple(max(0.0, life.asked - before.delivered) for (before, _), (life, _) in pairs)
    cpu = fmean(making.cpu for _, making in later)
    loop_cpu = (last.clock - first.clock) / count if first.consumer == last.consumer else 0.0
    spent = sum(stages.values()) or 1.0
    trials = [making.gil_wait for _, making in known if making.gil_wait >= 0.0]
    packing, opening = _carrying(later)
    return Measured(
        kind=kind,
        workers=workers,
        ahead=ahead,
        cpus=cpus,
        period=period,
        waiting=waiting,
        service=tuple(_service(life, making, together) for life, making in later),
        training=training,
        stages={stage: seconds / spent for stage, seconds in stages.items()},
        cpu=cpu,
        loop_cpu=max(0.0, loop_cpu - cpu if kind == "inline" else loop_cpu),
        queued=_queued([making for _, making in later]),
        gil_wait=_gil_wait(trials),
        packing=packing,
        opening=opening,
        pressure=pressure,
        spare=spare,
        in_turns=in_turns,
        whole=any(not making.thread for _, making in later),
        together=together,
    )


def _service(life: Life, making: Making, together: int) -> float:
    """Return how long one worker was busy with a batch; of threads that make it together, all of them in sum."""
    return making.ended - making.began if making.thread and together == 1 else sum(life.seconds.values())


def _grouped(workers: int, together: int) -> tuple[int, float]:
    """Return how many batches so many workers make at once, and which part of a service each of these takes.

    >>> _grouped(4, 1), _grouped(4, 4), _grouped(0, 1)
    ((4, 1.0), (1, 0.25), (0, 1.0))
    """
    if not workers:
        return 0, 1.0
    count = groups(workers, together)
    return count, count / workers


def _queued(makings: Sequence[Making]) -> float:
    """Return the part of their time that workers waited for a CPU."""
    looked = [making for making in makings if making.queued >= 0.0]
    spent = sum(making.ended - making.began for making in looked)
    return sum(making.queued for making in looked) / spent if spent else 0.0


def _gil_wait(trials: Sequence[float]) -> float:
    """Return how long a thread waits for the GIL, on average; the usual time, if trials were seldom late."""
    if not trials:
        return 0.0
    late = sum(waited >= CONTENDED for waited in trials)
    return fmean(trials) if late >= LATE * len(trials) else median(trials)


def _carrying(lives: Sequence[tuple[Life, Making]]) -> tuple[float, float]:
    """Return the seconds to pack and to open a batch from another process."""
    carried = [(making, life.carried) for life, making in lives if life.carried is not None]
    if not carried:
        return 0.0, 0.0
    packing = fmean(max(0.0, one.packed - making.ended) for making, one in carried)
    return packing, fmean(one.opened - one.opening for _, one in carried)
