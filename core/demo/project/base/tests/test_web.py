import json
import unittest

from tests.support import exchange, serve
from web.server import HERE, make_server

API = "http://localhost:1"


class PageTest(unittest.TestCase):
    def setUp(self):
        self.server = serve(self, make_server(0, API))

    def get(self, path):
        status, _, content = exchange(self.server, "GET", path)
        return status, content.decode()

    def test_the_page_is_served_with_its_script(self):
        status, page = self.get("/")
        self.assertEqual(200, status)
        self.assertIn('src="app.js"', page)
        self.assertEqual(200, self.get("/app.js")[0])

    def test_the_page_is_told_where_its_api_is(self):
        self.assertEqual(API, json.loads(self.get("/config.json")[1])["api"])

    def test_every_feature_of_the_page_can_be_loaded(self):
        for path in json.loads(self.get("/config.json")[1])["modules"]:
            status, module = self.get(path)
            self.assertEqual(200, status)
            self.assertIn("export function register(ui)", module, path)

    def test_nothing_else_can_be_read(self):
        for path in ("/../server.py", "/features/../server.py", "/server.py", "//etc/passwd"):
            self.assertEqual(404, self.get(path)[0], path)
        self.assertTrue((HERE / "server.py").exists())
