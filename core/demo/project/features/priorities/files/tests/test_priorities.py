from tests.support import ApiCase


class PrioritiesTest(ApiCase):
    def test_urgent_todos_come_first_and_equal_ones_stay_in_order(self):
        for title, priority in (("a", "low"), ("b", "normal"), ("c", "high"), ("d", "normal")):
            self.add(title, priority=priority)
        urgent = self.call("GET", "/api/urgent")[1]
        self.assertEqual(["c", "b", "d", "a"], [todo["title"] for todo in urgent])

    def test_a_todo_is_of_normal_priority_unless_told_otherwise(self):
        self.assertEqual("normal", self.add("x")["priority"])

    def test_there_are_only_three_priorities(self):
        for priority in ("huge", None, []):
            body = {"title": "x", "priority": priority}
            self.assertEqual(400, self.call("POST", "/api/todos", body)[0], priority)
