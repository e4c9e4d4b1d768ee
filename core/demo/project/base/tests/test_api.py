from tests.support import ApiCase, exchange


class TodosTest(ApiCase):
    def test_an_added_todo_is_listed(self):
        todo = self.add("Buy milk")
        self.assertEqual((200, [todo]), self.call("GET", "/api/todos"))
        self.assertEqual("Buy milk", todo["title"])
        self.assertFalse(todo["done"])

    def test_a_todo_can_be_finished(self):
        number = self.add("Buy milk")["id"]
        status, todo = self.call("PATCH", f"/api/todos/{number}", {"done": True})
        self.assertEqual((200, True), (status, todo["done"]))

    def test_a_deleted_todo_is_gone(self):
        number = self.add("Buy milk")["id"]
        self.assertEqual(200, self.call("DELETE", f"/api/todos/{number}")[0])
        self.assertEqual(404, self.call("DELETE", f"/api/todos/{number}")[0])

    def test_nonsense_is_refused_with_a_reason(self):
        for body in ({"title": " "}, {"titel": "x"}, [], {"title": "x", "done": 1}, None):
            status, answer = self.call("POST", "/api/todos", body)
            self.assertEqual(400, status, body)
            self.assertIn("error", answer)

    def test_an_unknown_path_is_404_and_a_wrong_method_405(self):
        self.assertEqual(404, self.call("GET", "/api/nothing")[0])
        self.assertEqual(405, self.call("PUT", "/api/todos")[0])

    def test_only_the_own_page_may_call_from_a_browser(self):
        for origin, allowed in (("http://localhost:1", True), ("http://localhost:2", False)):
            headers = exchange(self.server, "GET", "/api/todos", headers={"Origin": origin})[1]
            self.assertEqual(origin if allowed else None, headers["Access-Control-Allow-Origin"])
