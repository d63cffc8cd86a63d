"""At most so many jobs of a user at a time, over all sweeps and stores, without anybody who watches.

Every job belongs to one of `max_jobs` lanes, which its comment names, and waits (afterany) for the one that was put
into its lane before it. So there is at most one job of a lane at a time, from whatever store it was submitted.
"""

from dataclasses import dataclass, replace

from spp.schedule.queue import commented, number

_PREFIX = "spp-lane-"


@dataclass(frozen=True)
class Lane:
    """One lane: its jobs that wait or run, in the order of their submission."""

    place: int
    jobs: tuple[str, ...] = ()

    @property
    def comment(self) -> str:
        """By what its jobs are found."""
        return f"{_PREFIX}{self.place}"

    def after(self, dependency: str | None) -> str | None:
        """What the next job of the lane waits for, next to its inputs."""
        last = f"afterany:{self.jobs[-1]}" if self.jobs else None
        return ",".join(part for part in (dependency, last) if part) or None


class Lanes:
    """The lanes of the user on a cluster."""

    def __init__(self, lanes: list[Lane]) -> None:
        self._lanes = lanes

    @classmethod
    def read(cls, max_jobs: int, cluster: str) -> "Lanes":
        """The lanes as the queue has them. Raises queue.Unreachable if the controller gives no answer."""
        lanes = [Lane(place) for place in range(max_jobs)]
        for job, comment in sorted(commented(_PREFIX, cluster).items(), key=lambda item: int(number(item[0]))):
            place = comment.removeprefix(_PREFIX)
            if place.isdigit():
                # Where there were more lanes once, the others' jobs count as well.
                lane = lanes[int(place) % max_jobs]
                lanes[lane.place] = replace(lane, jobs=(*lane.jobs, number(job)))
        return cls(lanes)

    def choose(self, dependency: str) -> Lane:
        """The lane of a job: the one whose last job it waits for anyway, else the one with the fewest jobs."""
        waited = set(dependency.replace(",", ":").split(":"))
        behind = [lane for lane in self._lanes if lane.jobs and lane.jobs[-1] in waited]
        return min(behind or self._lanes, key=lambda lane: (len(lane.jobs), lane.place))

    def took(self, lane: Lane, job: str) -> None:
        """A job was put into a lane."""
        self._lanes[lane.place] = replace(lane, jobs=(*lane.jobs, job))
