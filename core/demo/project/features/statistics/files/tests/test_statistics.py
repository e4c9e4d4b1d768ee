from tests.support import ApiCase


class StatisticsTest(ApiCase):
    def test_done_todos_are_counted(self):
        for done in (True, False, False, False):
            self.add("x", done=done)
        expected = {"total": 4, "done": 1, "percent": 25}
        self.assertEqual((200, expected), self.call("GET", "/api/statistics"))

    def test_an_empty_list_is_not_done_at_all(self):
        self.assertEqual(0, self.call("GET", "/api/statistics")[1]["percent"])
