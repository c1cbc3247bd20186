"""The steps of the scenario, in their order. Each brings the apps that it needs; the last one ends Mesos."""

from .agents import lost_agent
from .apps_of_all_kinds import bad_labels, kinds
from .failover import failover, relapse
from .life import health, kill, names
from .masters import gone, masters, standby

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
    "gone": gone,
}
