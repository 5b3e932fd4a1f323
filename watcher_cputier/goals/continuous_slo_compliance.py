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

"""The goal: every tier gets the CPU share that it was sold, all the time."""

from typing import Any

from oslo_config import cfg
from oslo_log import log
from watcher.decision_engine.goal import base
from watcher.decision_engine.goal.efficacy import base as efficacy_base
from watcher.decision_engine.goal.efficacy import indicators as watcher_spec
from watcher.decision_engine.solution import efficacy

from watcher_cputier import errors
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.goals import indicators

LOG = log.getLogger(__name__)


class TierIndicator(watcher_spec.IndicatorSpecification):
    """One of our indicators, as Watcher specifies them.

    None is required: what a part of the audit did not look at is left out.
    """

    def __init__(self, indicator: indicators.Indicator) -> None:
        super().__init__(
            name=indicator.name,
            description=indicator.description,
            unit=indicator.unit,
            required=False,
        )

    @property
    def schema(self) -> dict[str, Any]:
        """Any number that is not negative."""
        return {"type": "number", "minimum": 0}


class TierCompliance(efficacy_base.EfficacySpecification):
    """What a solution of the goal reports, per configured tier too."""

    def get_indicators_specifications(self) -> list[TierIndicator]:
        """All indicators, of quotas and of starvation.

        Watcher asks for them when it starts. A wrong tier section must not
        keep it from serving other goals: it is logged here, and fails each
        audit of ours.
        """
        try:
            tiers = tiers_conf.read(cfg.CONF)
        except errors.ConfigurationError as exc:
            LOG.error("The tiers cannot be used: %s", exc)
            tiers = ()
        return [
            TierIndicator(indicator)
            for indicator in (
                *indicators.QUOTA,
                *indicators.STARVATION,
                *(i for tier in tiers for i in indicators.of_tier(tier.name)),
            )
        ]

    def get_global_efficacy_indicator(
        self, indicators_map: Any
    ) -> list[efficacy.Indicator]:
        """``excess_removed``, in percent; none where quotas are off."""
        if not indicators_map or "excess_units_before" not in indicators_map:
            return []
        return [
            efficacy.Indicator(
                name="excess_removed",
                description="Share of the units over quota that the plan "
                "removes; 100 where there are none.",
                unit="%",
                value=indicators.excess_removed_percent(
                    indicators_map["excess_units_before"],
                    indicators_map["excess_units_after"],
                ),
            )
        ]


class ContinuousSLOCompliance(base.Goal):
    """Deterministic CPU SLO

    Every CPU service tier gets the share of its hosts that it was sold: no
    host holds more units of a tier than its quota, and no instance is starved
    of what its tier promises.
    """

    @classmethod
    def get_name(cls) -> str:
        """Its name in audit templates."""
        return "continuous_slo_compliance"

    @classmethod
    def get_display_name(cls) -> str:
        """Its name for people."""
        return "Deterministic CPU SLO (continuous compliance)"

    @classmethod
    def get_translatable_display_name(cls) -> str:
        """Its name, as a translation key."""
        return "Deterministic CPU SLO (continuous compliance)"

    @classmethod
    def get_efficacy_specification(cls) -> TierCompliance:
        """What its solutions report."""
        return TierCompliance()
