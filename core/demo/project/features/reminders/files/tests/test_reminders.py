from tests.support import ApiCase


class RemindersTest(ApiCase):
    def titles(self, kind):
        reminders = self.call("GET", "/api/reminders?today=2031-03-10")[1]
        return [todo["title"] for todo in reminders[kind]]

    def test_late_and_soon_are_told_apart(self):
        for day in ("2031-03-09", "2031-03-10", "2031-03-12", "2031-03-13"):
            self.add(day, due=day)
        self.assertEqual(["2031-03-09"], self.titles("late"))
        self.assertEqual(["2031-03-10", "2031-03-12"], self.titles("soon"))

    def test_a_finished_todo_needs_no_reminder(self):
        self.add("paid", due="2031-03-01", done=True)
        self.assertEqual([], self.titles("late"))

    def test_the_day_must_be_given(self):
        self.assertEqual(400, self.call("GET", "/api/reminders")[0])
