"""What a run costs: days, the site's billing units, energy and carbon, training compute, storage.

All of it follows from one predicted number, the seconds that a step takes; call it with the low and the high end
of a prediction to get the range of the rest.
"""

from __future__ import annotations

from aiftrain.plan.act import TrainingCompute, training_compute
from aiftrain.plan.bill import Bill, bill, shipped_modes
from aiftrain.plan.calendar import Calendar, calendar
from aiftrain.plan.energy import Energy, energy
from aiftrain.plan.storage import StorageUse, storage, write_rate
from aiftrain.run.base import Strict
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec


class Cost(Strict):
    """All that a run takes. A figure that rests on something unknown is None, and `unknowns` names what is missing."""

    calendar: Calendar
    bill: Bill
    energy: Energy
    compute: TrainingCompute
    storage: StorageUse

    @property
    def assumptions(self) -> tuple[str, ...]:
        parts = (*self.calendar.assumptions, *self.bill.assumptions, *self.compute.assumptions)
        carbon = ("carbon: the yearly mean of the country's own generation, whatever the site buys by contract",)
        return (*parts, f"energy: {self.energy.method}", *(carbon if self.energy.carbon else ()))

    @property
    def unknowns(self) -> tuple[str, ...]:
        parts = (self.calendar, self.bill, self.energy, self.compute)
        return tuple(dict.fromkeys(key for part in parts for key in part.unknowns))

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self.bill.warnings, *self.compute.warnings, *self.storage.warnings)


def cost(
    spec: RunSpec,
    layout: ParallelLayout,
    *,
    seconds_per_step: float,
    checkpoint_bytes: int,
    startup_seconds: float,
) -> Cost:
    """The cost of a run whose steps take `seconds_per_step` and whose jobs take `startup_seconds` to begin.

    Raises ConfigError where the calendar does: no step fits into a job, or failures outrun the checkpoints.
    """
    days = calendar(
        spec,
        layout,
        seconds_per_step=seconds_per_step,
        checkpoint_bytes=checkpoint_bytes,
        write_gb_per_s=write_rate(spec),
        startup_seconds=startup_seconds,
        failures_per_node_day=spec.plan.failures_per_node_day,
    )
    return Cost(
        calendar=days,
        bill=bill(spec, days, shipped_modes()),
        energy=energy(spec, days),
        compute=training_compute(spec, layout, days),
        storage=storage(spec, layout, days, checkpoint_bytes),
    )
