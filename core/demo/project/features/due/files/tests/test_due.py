from tests.support import ApiCase


class DueTest(ApiCase):
    def test_a_todo_keeps_its_day(self):
        self.assertEqual("2031-02-28", self.add("Report", due="2031-02-28")["due"])

    def test_a_day_that_does_not_exist_is_refused(self):
        for due in ("2031-02-30", "tomorrow", 7):
            status, _ = self.call("POST", "/api/todos", {"title": "Report", "due": due})
            self.assertEqual(400, status, due)

    def test_what_is_due_comes_by_day(self):
        for due in ("2031-03-02", "2031-03-01", "2031-04-01", None):
            self.add(f"due {due}", due=due)
        found = self.call("GET", "/api/due?until=2031-03-31")[1]
        self.assertEqual(["2031-03-01", "2031-03-02"], [todo["due"] for todo in found])
