# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Guests without a hypervisor: cgroups with weights, and loads inside.

A guest is a group with a weight that holds one group for each vCPU, as
libvirt makes them; all guests are in one slice. A vCPU is a process that does
nothing but use CPU time::

    cputier-check-4711            the slice
    ├── gold                      cpu.shares (v1), cpu.weight (v2): 512
    │   ├── vcpu0                 a process
    │   └── vcpu1
    └── silver

Both versions of the cpu controller are known. A process ends with the one
that started it, at the latest at the end of the life that it was given; groups
that a killed run left behind are removed by the next one.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from types import FrameType

_PREFIX = "cputier-check-"
# Far above what else runs on the machine, whose processes weigh 1024 each (or
# 100), so that it disturbs little; what it takes all the same is measured.
_SLICE_WEIGHT = {1: 16_384, 2: 1_600}
_HEAVIEST = {1: 262_144, 2: 10_000}
_CPUACCT = "cpuacct"
_GONE_SECONDS = 5.0

# Work comes in bursts: at its own times or, for a closed load, some time
# after the last one was done. None of it waits for longer than a second.
_LOAD = """
import ctypes, signal, sys, time
demand, period, life = map(float, sys.argv[1:4])
closed = sys.argv[4] == "closed"
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if not sys.stdin.readline():
    sys.exit()
now = time.monotonic()
end, due, wanted = now + life, now, time.thread_time()
while now < end:
    if demand >= 1:
        for _ in range(50000):
            pass
    else:
        if not closed:
            while due <= now:
                due += period
                wanted += demand * period
        done = time.thread_time()
        wanted = min(wanted, done + 1)
        if demand <= 0:
            time.sleep(end - now)
        elif done < wanted:
            for _ in range(1000):
                pass
        elif closed:
            time.sleep((1 - demand) * period)
            wanted = done + demand * period
        else:
            time.sleep(max(0.0, due - now))
    now = time.monotonic()
"""


class UnavailableError(Exception):
    """Why no groups can be made here."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Guest:
    """A domain to be: a weight, and a load for each of its vCPUs.

    :ivar demands: 0 to 1 for each vCPU; 1 is always runnable
    :ivar closed: its clients wait for an answer, and think
    """

    name: str
    weight: int
    demands: tuple[float, ...] = (1.0,)
    closed: bool = False

    @property
    def vcpus(self) -> int:
        """How many there are."""
        return len(self.demands)


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """What one guest got in a window, in CPUs.

    :ivar usage_cpus: as its group was charged, all vCPUs together
    :ivar steal_cpus: run-queue delay of its processes
    """

    usage_cpus: float
    steal_cpus: float


@dataclasses.dataclass(frozen=True, slots=True)
class _Count:
    run_ns: int
    delay_ns: int


class Controller:
    """The cpu controller of this machine: where groups are made.

    :ivar version: of the cgroups, 1 or 2
    :raises UnavailableError: if there is none, or it may not be used
    """

    def __init__(self) -> None:
        mounts = _mounts()
        if "cpu" in mounts:
            self.version = 1
            roots = [mounts["cpu"], mounts.get(_CPUACCT, mounts["cpu"])]
        elif "" in mounts and "cpu" in _words(
            mounts[""] / "cgroup.controllers"
        ):
            self.version = 2
            roots = [mounts[""]]
        else:
            raise UnavailableError("there is no cpu cgroup controller")
        if not pathlib.Path("/proc/self/schedstat").exists():
            raise UnavailableError("the kernel does not count run-queue delay")
        # Several names may lead to one hierarchy.
        self.roots = sorted({root.resolve() for root in roots})
        self._charged = roots[-1].resolve()
        self.slice = f"{_PREFIX}{os.getpid()}"
        self._enabled = False

    @property
    def heaviest(self) -> int:
        """The highest weight that a group can have."""
        return _HEAVIEST[self.version]

    def open(self) -> None:
        """Make the slice.

        :raises UnavailableError: if that is not allowed
        """
        self._sweep()
        try:
            self.add("", _SLICE_WEIGHT[self.version])
        except OSError as error:
            self.close()
            raise UnavailableError(
                "groups of the cpu controller cannot be made "
                f"(are you root?): {error}"
            ) from error

    def close(self) -> None:
        """Remove the slice and all in it; its processes must be gone."""
        for root in self.roots:
            _remove(root / self.slice)
        if self._enabled:
            _write(self.roots[0] / "cgroup.subtree_control", "-cpu")
            self._enabled = False

    def add(self, group: str, weight: int | None = None) -> None:
        """Make a group of the slice, with groups inside on cgroup v2."""
        for root in self.roots:
            (root / self.slice / group).mkdir()
        if self.version == 2 and weight is not None:
            self._delegate(group)
        if weight is not None:
            self._set_weight(group, weight)

    def enter(self, group: str, pid: int) -> None:
        """Put a process into a group."""
        for root in self.roots:
            _write(root / self.slice / group / "cgroup.procs", str(pid))

    def charged_ns(self, group: str) -> int:
        """CPU time of all that ran in a group."""
        path = self._charged / self.slice / group
        if (path / "cpuacct.usage").exists():
            return int((path / "cpuacct.usage").read_text())
        found = re.search(r"usage_usec (\d+)", (path / "cpu.stat").read_text())
        if found is None:
            raise UnavailableError("the controller does not count CPU time")
        return int(found[1]) * 1000

    def _set_weight(self, group: str, weight: int) -> None:
        name = {1: "cpu.shares", 2: "cpu.weight"}[self.version]
        for root in self.roots:
            path = root / self.slice / group / name
            if path.exists():
                _write(path, str(weight))

    def _delegate(self, group: str) -> None:
        root = self.roots[0]
        top = root / "cgroup.subtree_control"
        if "cpu" not in _words(top):
            _write(top, "+cpu")
            self._enabled = True
        _write(root / self.slice / group / "cgroup.subtree_control", "+cpu")

    def _sweep(self) -> None:
        """Remove what a run left behind that nothing could stop."""
        for root in self.roots:
            for path in root.glob(f"{_PREFIX}*"):
                pid = path.name.removeprefix(_PREFIX)
                if not pathlib.Path("/proc", pid).exists():
                    with contextlib.suppress(OSError):
                        _remove(path)


class Machine:
    """Guests that run side by side on some CPUs, until the block ends.

    :param cpus: numbers of the CPUs that they share
    :param life_seconds: after which they end in any case
    """

    def __init__(
        self,
        controller: Controller,
        guests: Sequence[Guest],
        cpus: Sequence[int],
        life_seconds: float,
    ) -> None:
        self._controller = controller
        self._guests = guests
        self._cpus = cpus
        self._life_seconds = life_seconds
        self._processes: dict[str, list[subprocess.Popen[bytes]]] = {}

    def __enter__(self) -> "Machine":
        with contextlib.ExitStack() as stack:
            stack.callback(self._stop)
            self._controller.open()
            for guest in self._guests:
                self._build(guest)
            for process in self._all():
                assert process.stdin is not None
                process.stdin.write(b"go\n")
                process.stdin.flush()
            stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop()

    def window(self, seconds: float) -> dict[str, Sample]:
        """Let them run, and tell what each one got.

        :raises RuntimeError: if a load ended
        """
        before, began = self._read(), time.monotonic()
        time.sleep(seconds)
        after, ended = self._read(), time.monotonic()
        if ended_early := [p.pid for p in self._all() if p.poll() is not None]:
            raise RuntimeError(f"loads ended: {ended_early}")
        lasted_ns = (ended - began) * 1e9
        return {
            name: Sample(
                (count.run_ns - before[name].run_ns) / lasted_ns,
                (count.delay_ns - before[name].delay_ns) / lasted_ns,
            )
            for name, count in after.items()
        }

    def _build(self, guest: Guest) -> None:
        controller = self._controller
        controller.add(guest.name, guest.weight)
        processes = self._processes.setdefault(guest.name, [])
        for number, demand in enumerate(guest.demands):
            group = f"{guest.name}/vcpu{number}"
            controller.add(group)
            # Loads of one period would always meet in the same order.
            period = 0.1 * (1 + 0.07 * (len(list(self._all())) % 5))
            process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-c", _LOAD),
                    *(str(demand), str(period), str(self._life_seconds)),
                    "closed" if guest.closed else "open",
                ],
                stdin=subprocess.PIPE,
            )
            processes.append(process)
            os.sched_setaffinity(process.pid, self._cpus)
            controller.enter(group, process.pid)

    def _read(self) -> dict[str, _Count]:
        return {
            name: _Count(
                self._controller.charged_ns(name),
                sum(_delay_ns(process.pid) for process in processes),
            )
            for name, processes in self._processes.items()
        }

    def _all(self) -> Iterator[subprocess.Popen[bytes]]:
        for processes in self._processes.values():
            yield from processes

    def _stop(self) -> None:
        for process in self._all():
            process.kill()
        for process in self._all():
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        self._controller.close()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does: things are undone."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    former = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def quietest_cpus(count: int, watched_seconds: float = 0.3) -> list[int]:
    """The CPUs of this process that were idle for the longest.

    :raises UnavailableError: if there are fewer
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < count:
        raise UnavailableError(
            f"{count} CPUs are needed, {len(allowed)} are here"
        )
    before = _idle_ticks()
    time.sleep(watched_seconds)
    after = _idle_ticks()
    allowed.sort(key=lambda cpu: (before[cpu] - after[cpu], cpu))
    return sorted(allowed[:count])


def _idle_ticks() -> dict[int, int]:
    text = pathlib.Path("/proc/stat").read_text("utf-8")
    return {
        int(number): int(idle)
        for number, idle in re.findall(
            r"^cpu(\d+) \d+ \d+ \d+ (\d+)", text, re.MULTILINE
        )
    }


def _delay_ns(pid: int) -> int:
    text = pathlib.Path(f"/proc/{pid}/schedstat").read_text("utf-8")
    return int(text.split()[1])


def _mounts() -> dict[str, pathlib.Path]:
    """{controller: its hierarchy}; cgroup v2 is under the empty name."""
    found: dict[str, pathlib.Path] = {}
    for line in pathlib.Path("/proc/mounts").read_text("utf-8").splitlines():
        _device, place, kind, options = line.split()[:4]
        if kind == "cgroup2":
            found.setdefault("", pathlib.Path(place))
        elif kind == "cgroup":
            for name in {"cpu", _CPUACCT} & set(options.split(",")):
                found.setdefault(name, pathlib.Path(place))
    return found


def _words(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text("utf-8").split()
    except OSError:
        return []


def _write(path: pathlib.Path, text: str) -> None:
    path.write_text(text, "utf-8")


def _remove(path: pathlib.Path) -> None:
    """Remove a group and those in it, once the kernel has let go of them."""
    if not path.exists():
        return
    for inner in sorted(path.iterdir()):
        if inner.is_dir():
            _remove(inner)
    ends = time.monotonic() + _GONE_SECONDS
    while True:
        try:
            path.rmdir()
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)
        else:
            return
