"""What a person sees while something runs: bars with the time left on a terminal, plain lines where there is none.

Training runs in Ray workers, so rank 0 sends what happens through a Ray queue and a thread here shows it. Nothing that
a user wrote is read as markup, colour is never the only sign, and no line needs more than 40 columns to be read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from queue import Empty
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from blip3o_grpo.run.hacking import HackingWarning, HackingWatch
from blip3o_grpo.terminal import is_live, plain, show

if TYPE_CHECKING:
    from blip3o_grpo.configs import RewardSection
    from blip3o_grpo.evaluation.heldout import Evaluation

STAGES = ("sample", "decode", "score", "train")
LINES = 10
"""Lines about a count, such as prompts, where there is no terminal."""
SIGNS = {1: ("up", "green"), -1: ("down", "red"), 0: ("no change shown", "dim")}
"""Word and colour of a change, by `Estimate.direction`."""


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{round(whole / 60)} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Pace:
    """How long the rest takes, from what this process has done: what was done before a resume took another time.

    Args:
        total: of everything.
        done: before this process.
        clock: seconds.
    """

    def __init__(self, total: int, done: int, clock: Callable[[], float] = time.monotonic):
        self.total, self.first, self.done, self.clock = total, done, done, clock
        self.started = clock()

    def see(self, done: int, seconds: float | None = None) -> None:
        """So many are done now. `seconds`: how long the first one took, where what came before it does not count."""
        if self.done == self.first and seconds is not None:
            self.started = self.clock() - seconds
        self.done = done

    def left(self) -> float | None:
        """Seconds; None: nothing is known yet."""
        made = self.done - self.first
        return (self.clock() - self.started) / made * (self.total - self.done) if made > 0 else None

    def words(self) -> str:
        """`12 min left`, or nothing."""
        left = self.left()
        return "" if left is None or self.done >= self.total else f"{duration(left)} left"


def describe(metrics: Mapping[str, Any], rewards: Sequence[RewardSection] = ()) -> str:
    """A step's numbers: `ocr 0.412 (0.350 to 0.474)  n=8 prompts  kl 0.0031  sample 1.2s  decode 3.0s  ...`.

    The weighted sum comes first where it is not simply the only reward. A further step on the same images has no
    rewards of its own: `same images  kl 0.0031  train 2.0s`.
    """
    from blip3o_grpo.evaluation.statistics import from_metrics  # imports scipy

    names = [reward.name for reward in rewards if f"reward/{reward.name}" in metrics]
    if [reward.weight for reward in rewards if reward.weight] != [1.0] or not names:
        names = ["mean", *names]
    again = "reward/mean" not in metrics
    parts, counts = ["same images"] if again else [], []
    for name in [] if again else names:
        title = "reward" if name == "mean" else name
        found = from_metrics(metrics, f"reward/{name}")
        value = _number(metrics.get(f"reward/{name}"), ".3f")
        if found is None:
            parts.append(f"{title} {value}")
        else:
            parts.append(f"{title} {value} ({found.interval() if found.low is not None else 'no interval'})")
            counts.append(found.n)
    if counts:
        parts.append("n=" + "/".join(map(str, dict.fromkeys(counts))) + " prompts")
    if "kl/reference" in metrics:
        parts.append(f"kl {_number(metrics['kl/reference'], '.4f')}")
    stages = ["train"] if again else STAGES
    parts += [f"{stage} {_number(metrics.get(f'time/{stage}'), '.1f')}s" for stage in stages]
    return "  ".join(parts)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def print_warning(console: Console, warning: HackingWarning) -> None:
    """One line in the terminal."""
    print_notice(console, f"step {warning.step}: {warning.text}")


def print_notice(console: Console, text: str) -> None:
    """One line in the terminal about something that went wrong and was dealt with."""
    show(console, ("warning:", "bold yellow"), f" {text}")


def announce(console: Console, evaluation: Evaluation, before: Evaluation | None = None) -> None:
    """One line per held-out reward: mean, interval and n, and the change to the start, prompt by prompt."""
    from blip3o_grpo.evaluation.changes import paired_changes

    estimates = evaluation.estimates()
    changes = paired_changes(before, evaluation) if before else {}
    for name in evaluation.means:
        found = estimates[name]
        parts: list[str | tuple[str, str]] = [f"held-out after step {evaluation.step}: {name} "]
        parts += [(f"{found.mean:.3f}", "bold"), f" ({found.interval_and_n()})"]
        if name in changes:
            change = changes[name]
            word, colour = SIGNS[change.direction]
            parts += [", change ", (f"{change.mean:+.3f} {word}", colour), f" ({change.interval_and_n('+.3f')})"]
        show(console, *parts)


class _Status(Progress):
    """A bar with lines of text below it, as wide as the terminal."""

    status: Text = Text()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.status:
            yield self.status


class _Left(ProgressColumn):
    """Time left by the task's own pace."""

    def render(self, task: Task) -> Text:
        pace: Pace | None = task.fields.get("pace")
        return Text(pace.words() if pace else "", style="cyan")


class Bar:
    """Context manager: a bar with the time left on a terminal, one line every so often where there is none.

    Args:
        title: what runs.
        total: how much of it there is.
        done: before this process.
        lines: without a terminal, about so many lines in all.
        unit: of what, in these lines.
    """

    def __init__(
        self, console: Console, title: str, total: int, done: int = 0, *, lines: int = LINES, unit: str = "step"
    ):
        self.console, self.title, self.total, self.unit = console, title, total, unit
        self.every = max(1, total // lines)
        self.pace, self.live = Pace(total, done), is_live(console)
        narrow = console.width < 60
        columns = [
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=8 if narrow else 24),
            MofNCompleteColumn(),
            *([] if narrow else [TimeElapsedColumn()]),
            _Left(),
        ]
        self._bar = _Status(*columns, console=console, disable=not self.live)
        self._task = self._bar.add_task(title, total=total, completed=done, pace=self.pace)

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def see(self, done: int, text: str = "", seconds: float | None = None) -> None:
        """So many are done; `text` says more about the last of them."""
        crossed = done // self.every != self.pace.done // self.every  # also after a step back: a rank was restarted
        self.pace.see(done, seconds)
        self._bar.status = plain(text)
        self._bar.update(self._task, completed=done, description=self.title)
        if not self.live and (crossed or done == self.total):
            show(self.console, "  ".join(filter(None, (f"{self.unit} {done}/{self.total}", self.pace.words(), text))))

    def say(self, text: str) -> None:
        """What it is busy with, between two counts; on a terminal only."""
        self._bar.update(self._task, description=text)


@contextmanager
def activity(console: Console, text: str) -> Iterator[None]:
    """Say what is going on and, on a terminal, show that it goes on and for how long."""
    if not is_live(console):
        show(console, text)
        yield
        return
    words = TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold"))
    columns = (SpinnerColumn(finished_text="✓"), words, TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(text, total=1)
        yield
        progress.update(task, completed=1)


class ProgressDisplay:
    """Context manager: shows what rank 0 sends while a run trains.

    Args:
        queue: Ray queue of messages: a step's metrics; `{"evaluating": step, "done": n, "of": n}`;
            `{"evaluation": Evaluation}`; `{"notice": text}`, which is printed as a warning.
        total: steps of the whole run.
        done: steps done before (resume).
        rewards: of the run; their means are shown.
        before: held-out result of the starting policy.
        watch: says which steps look like reward hacking; its warnings are printed as they come.
    """

    def __init__(
        self,
        queue: Any,
        total: int,
        done: int,
        console: Console,
        *,
        rewards: Sequence[RewardSection] = (),
        before: Evaluation | None = None,
        watch: HackingWatch | None = None,
    ):
        self.queue, self.total, self.done, self.console = queue, total, done, console
        self.rewards, self.before, self.watch = rewards, before, watch
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> ProgressDisplay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _draw(self) -> None:
        with Bar(self.console, "training", self.total, self.done, lines=self.total) as bar:
            bar.say("starting the trainer")
            while (message := self._next()) is not None:
                self._show(bar, message)

    def _show(self, bar: Bar, message: Mapping[str, Any]) -> None:
        if "notice" in message:
            print_notice(self.console, message["notice"])
        elif "evaluating" in message:
            bar.say(f"evaluating {message['done']}/{message['of']}")
        elif "evaluation" in message:
            announce(self.console, message["evaluation"], self.before)
        else:
            bar.see(message["step"], describe(message, self.rewards), message.get("time/step"))
            for warning in self.watch.see(message) if self.watch else ():
                print_warning(self.console, warning)

    def _next(self) -> Mapping[str, Any] | None:
        from ray.exceptions import RayError  # whoever has a queue has imported Ray; others need not

        while True:
            try:
                return self.queue.get(timeout=0.5)
            except Empty:
                if self._stop.is_set():
                    return None
            except RayError:  # the queue is gone, and with it most often the run: whoever waits for that says so
                return None
