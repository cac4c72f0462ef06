"""A loader in a world without clocks: workers, CPUs, the GIL and storage, moved on tick by tick.

It is made from other rules than the model that predicts (`headrace.run.queueing`), so that the one can judge the other.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import fmean

from headrace.run.bottleneck import Measured

TICK = 0.1
"""Milliseconds."""
SWITCH = 5.0
"""Milliseconds until Python takes the GIL away, if another thread wants it."""


@dataclass
class Part:
    """A part of a batch: ``how`` is "cpu", "python" (with the GIL) or "io"; ``length`` in milliseconds."""

    stage: str
    how: str
    length: float


@dataclass
class World:
    """A loop over a loader; times in milliseconds."""

    parts: list[Part]
    workers: int
    kind: str = "threads"
    cpus: int = 4
    train: float = 1.0
    burns: float = 0.0
    """CPU time of the loop between two batches."""
    prefetch: int = 2
    packing: float = 0.0
    opening: float = 0.0
    pressure: float = 0.0
    others: float = 0.0
    """CPUs that other programs keep busy."""
    batches: int = 100

    def run(self) -> Measured:
        """Let the time go by until all batches are delivered."""
        return _Run(self).measured()

    @property
    def period(self) -> float:
        """Seconds from batch to batch."""
        return self.run().period


@dataclass
class _Task:
    """What a worker, or the loop, has still to do."""

    left: deque[Part]
    batch: int = -1
    spent: float = 0.0
    cpu: float = 0.0
    queued: float = 0.0
    gil: float = 0.0


@dataclass
class _Run:
    world: World
    now: float = 0.0
    asked: int = 0
    taken: int = 0
    ready: set[int] = field(default_factory=set)
    services: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    queued: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    trained: list[float] = field(default_factory=list)
    gil_waits: list[float] = field(default_factory=list)
    delivered: list[float] = field(default_factory=list)
    loop_cpu: float = 0.0
    used: float = 0.0
    """CPU time of all together."""
    holder: _Task | None = None
    held: float = 0.0
    loop: _Task = field(default_factory=lambda: _Task(deque()))
    state: str = "asking"
    """What the loop does: "asking", "opening" or "training"."""
    since: float = 0.0

    def measured(self) -> Measured:
        world = self.world
        inline = world.kind == "inline"
        busy: list[_Task | None] = [None] * (0 if inline else world.workers)
        ahead = max(1, world.workers * world.prefetch)
        while self.taken < world.batches:
            for number, task in enumerate(busy):
                turn = world.kind != "processes" or self.asked % world.workers == number
                if task is None and turn and self.asked - self.taken < ahead and self.asked < world.batches:
                    busy[number] = _Task(deque(map(_copy, world.parts)), self.asked)
                    self.asked += 1
            self._move_loop(inline=inline)
            self._tick([task for task in [*busy, self.loop] if task is not None and task.left])
            for number, task in enumerate(busy):
                if task is not None and not task.left:
                    self._made(task)
                    busy[number] = None
        return self._result(ahead)

    def _move_loop(self, *, inline: bool) -> None:
        """Let the loop ask for a batch, make it itself, open it, or train."""
        world, loop = self.world, self.loop
        if loop.left:
            return
        if self.state == "asking":
            if inline and loop.batch != self.taken:
                self.loop = _Task(deque(map(_copy, world.parts)), self.taken)
                return
            if inline:
                self._made(loop)
            if self.taken in self.ready:
                self.ready.discard(self.taken)
                self.state, self.loop = "opening", _Task(deque([Part("", "python", world.opening + TICK / 2)]))
        elif self.state == "opening":
            self.waits.append(self.now - self.since)
            self.delivered.append(self.now)
            self.taken += 1
            between = [Part("", "io", world.train), Part("", "python", world.burns + TICK / 2)]
            self.state, self.since, self.loop = "training", self.now, _Task(deque(between))
        else:
            self.trained.append(self.now - self.since)
            self.gil_waits.append(loop.gil)
            self.state, self.since, self.loop = "asking", self.now, _Task(deque())

    def _made(self, task: _Task) -> None:
        self.services.append(task.spent)
        self.cpu.append(task.cpu)
        self.queued.append(task.queued)
        self.ready.add(task.batch)

    def _tick(self, tasks: list[_Task]) -> None:
        self.now += TICK
        gil = self.world.kind == "threads"
        wants = [task for task in tasks if task.left[0].how == "python"]
        if gil and self.holder not in wants:
            self.holder, self.held = (wants[0] if wants else None), 0.0
        elif gil and self.held >= SWITCH and len(wants) > 1:
            self.holder, self.held = wants[(wants.index(self.holder) + 1) % len(wants)], 0.0  # type: ignore[arg-type]
        self.held += TICK
        running = [t for t in tasks if t.left[0].how == "cpu" or (t in wants and (not gil or t is self.holder))]
        free = self.world.cpus - self.world.others
        share = min(1.0, free / len(running)) if running else 1.0
        self.used += TICK * share * len(running)
        for task in tasks:
            part = task.left[0]
            task.spent += TICK
            if part.how == "io":
                part.length -= TICK
            elif any(task is one for one in running):
                part.length -= TICK * share
                task.cpu += TICK * share
                task.queued += TICK * (1 - share)
                if task is self.loop:
                    self.loop_cpu += TICK * share
            else:
                task.gil += TICK
            if part.length < TICK / 4:
                task.left.popleft()

    def _result(self, ahead: int) -> Measured:
        world, first = self.world, len(self.delivered) // 4
        count = len(self.delivered) - 1 - first
        period = (self.delivered[-1] - self.delivered[first]) / count
        mean = fmean(self.services)
        whole = sum(part.length for part in world.parts) or 1.0
        cpu = fmean(self.cpu)
        loop_cpu = self.loop_cpu / len(self.delivered)
        return Measured(
            kind=world.kind,
            workers=0 if world.kind == "inline" else world.workers,
            ahead=ahead,
            cpus=world.cpus,
            period=period / 1000,
            waiting=fmean(self.waits[first:]) / 1000,
            service=tuple((each - world.packing) / 1000 for each in self.services[first:]),
            training=tuple(each / 1000 for each in self.trained[first:]),
            stages={part.stage: part.length / whole for part in world.parts if part.stage != "pack"},
            cpu=(cpu - world.packing) / 1000,
            loop_cpu=max(0.0, loop_cpu - cpu if world.kind == "inline" else loop_cpu) / 1000,
            queued=sum(self.queued) / (mean * len(self.services)),
            gil_wait=fmean(self.gil_waits) / 1000,
            packing=world.packing / 1000,
            opening=world.opening / 1000,
            pressure=world.pressure,
            spare=world.cpus - world.others - self.used / self.now,
            in_turns=world.kind == "processes",
        )


def _copy(part: Part) -> Part:
    return Part(part.stage, part.how, part.length)
