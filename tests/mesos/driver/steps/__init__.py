"""The steps of the scenario, in their order. Each brings the apps that it needs; `gone` ends the first Mesos."""

from .agents import lost_agent
from .apps_of_all_kinds import bad_labels, kinds
from .failover import failover, relapse
from .life import health, kill, names
from .marathon import marathon
from .masters import gone, masters, standby
from .secured import secured

STEPS = {
    "names": names,
    "health": health,
    "kill": kill,
    "kinds": kinds,
    "labels": bad_labels,
    "agent": lost_agent,
    "failover": failover,
    "relapse": relapse,
    "standby": standby,
    "masters": masters,
    "marathon": marathon,
    "gone": gone,
    "secured": secured,
}
