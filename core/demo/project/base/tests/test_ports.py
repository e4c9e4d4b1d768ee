"""Every port comes from the environment; a number in a source would serve the wrong app."""

import os
import re
import unittest
from pathlib import Path
from unittest.mock import patch

from ports import API_PORT, port_from

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

    def test_a_missing_or_wrong_port_ends_the_server_and_names_the_variable(self):
        for value in ("", "web", "0", "70000"):
            with patch.dict(os.environ, {API_PORT: value}), self.assertRaises(SystemExit) as ended:
                port_from(API_PORT)
            self.assertIn("$AUTOCODER_API_PORT is", str(ended.exception))
