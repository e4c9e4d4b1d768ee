"""A panel process on a hand-made fleet of any size, for measurements.

Usage: fleet_process.py FOLDER AGENTS CHANGES: the logs are FOLDER/0, FOLDER/1, ...;
CHANGES rows differ every second, told in four snapshots.
"""

import sys
import threading
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

from autocoder.core.models import Agent, Snapshot
from autocoder.tui.__main__ import run_panel
from support.fake_engine import RecordingEngine
from support.snapshots import a_snapshot, an_agent

BEATS = 4
SHOWN = 16


def an_agent_of_many(number: int, folder: Path) -> Agent:
    now = time.time()
    return an_agent(
        number,
        agent_id=f"a-{number:04x}",
        feature=f"A feature with a name that is long, number {number:04} end",
        api_port=20000 + number,
        web_port=30000 + number,
        started_at=now - 7200,
        last_ping=None,
        log_path=str(folder / str(number)),
    )


def change_for_ever(engine: RecordingEngine, snapshot: Snapshot, changes: int) -> None:
    agents = list(snapshot.agents)
    pause = threading.Event()
    for beat in count():
        pause.wait(1 / BEATS)
        for step in range(changes // BEATS):
            # Every second one is of those on the screen.
            among = SHOWN if step % 2 else len(agents)
            at = (beat * changes // BEATS + step) % min(among, len(agents))
            agents[at] = replace(agents[at], cpu_percent=float(beat % 90), last_line=f"beat {beat}")
        engine.publish(replace(snapshot, agents=tuple(agents)))


def main(folder: Path, count_of_agents: int, changes: int) -> int:
    agents = (an_agent_of_many(number, folder) for number in range(count_of_agents))
    snapshot = a_snapshot(*agents)
    engine = RecordingEngine(snapshot)
    if changes:
        arguments = (engine, snapshot, changes)
        threading.Thread(target=change_for_ever, args=arguments, daemon=True).start()
    return run_panel(lambda: engine, Path("/home/dev/todo-app"))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
