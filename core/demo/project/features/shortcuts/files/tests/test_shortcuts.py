import re

from tests.support import ApiCase
from web.server import HERE


class ShortcutsTest(ApiCase):
    def test_every_named_key_is_one_the_page_knows(self):
        status, keys = self.call("GET", "/api/shortcuts")
        module = (HERE / "features" / "shortcuts.js").read_text("utf-8")
        acts = module.split("const acts = {")[1].split("};")[0]
        known = re.findall(r'^    "?(.)"?:', acts, re.MULTILINE)
        self.assertEqual((200, sorted(known)), (status, sorted(keys)))
