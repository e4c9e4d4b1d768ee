"""Every port comes from the environment; a number in a source would serve the wrong app."""

import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAMED = re.compile(
    r"""(localhost|127\.0\.0\.1|0\.0\.0\.0)["']?\s*[:,]\s*\d{2,5}   # an address with its port
      | \bport["']?\s*[:=]\s*["']?\d{3,5}\b                        # port = 1234, "port": 1234
    """,
    re.IGNORECASE | re.VERBOSE,
)


class PortsTest(unittest.TestCase):
    def test_no_source_names_a_port(self):
        named = [
            f"{path.relative_to(ROOT)}:{number} names a port; take it from the environment"
            for folder in ("api", "web")
            for path in sorted((ROOT / folder).rglob("*"))
            if path.suffix in {".py", ".js", ".html", ".css"}
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
            if NAMED.search(line)
        ]
        self.assertFalse(named, named[:1])

    def test_a_server_without_its_port_says_which_variable_it_wants(self):
        environment = {k: v for k, v in os.environ.items() if not k.endswith("_PORT")}
        for server, variable in (("api", "$AUTOCODER_API_PORT"), ("web", "$AUTOCODER_WEB_PORT")):
            done = subprocess.run(
                [sys.executable, "-m", server],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=20,
            )
            self.assertEqual(1, done.returncode)
            self.assertIn(variable, done.stderr)
