"""The backend of the tests' own agents: runs what the test wrote for its feature, else commits.

Standard library only; called as `python -I -S agent_program.py FOLDER FEATURE_ID`.
"""

import subprocess
import sys

folder, feature_id = sys.argv[1:]


def commit(name: str = f"feature-{feature_id}.txt", text: str = "done\n") -> None:
    """One more commit on the branch, with this file in it."""
    with open(name, "w") as file:
        file.write(text)
    quiet = ["-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0"]
    subprocess.run(["git", *quiet, "add", name], check=True)
    subprocess.run(["git", *quiet, "commit", "-qm", f"Do feature {feature_id}"], check=True)


try:
    with open(f"{folder}/{feature_id}.py") as program:
        source = program.read()
except FileNotFoundError:
    source = "commit()"
sys.stdout.write(f"working on {feature_id}\n")
sys.stdout.flush()
exec(compile(source, f"{feature_id}.py", "exec"))
