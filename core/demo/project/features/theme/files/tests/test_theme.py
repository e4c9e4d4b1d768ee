from tests.support import ApiCase


class ThemeTest(ApiCase):
    def test_the_page_is_light_until_it_is_made_dark(self):
        self.assertEqual((200, {"theme": "light"}), self.call("GET", "/api/theme"))
        self.call("PUT", "/api/theme", {"theme": "dark"})
        self.assertEqual((200, {"theme": "dark"}), self.call("GET", "/api/theme"))

    def test_other_colours_are_refused(self):
        for body in ({"theme": "pink"}, {}, None):
            self.assertEqual(400, self.call("PUT", "/api/theme", body)[0], body)
