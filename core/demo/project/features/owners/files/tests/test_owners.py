from tests.support import ApiCase


class OwnersTest(ApiCase):
    def test_the_owners_are_listed_once_each(self):
        for owner in ("Grace", "Ada", "Ada", ""):
            self.add("x", owner=owner)
        self.assertEqual((200, ["Ada", "Grace"]), self.call("GET", "/api/owners"))

    def test_a_todo_can_change_hands(self):
        number = self.add("x", owner="Ada")["id"]
        self.call("PATCH", f"/api/todos/{number}", {"owner": " Grace "})
        self.assertEqual((200, ["Grace"]), self.call("GET", "/api/owners"))

    def test_an_owner_is_a_name(self):
        self.assertEqual(400, self.call("POST", "/api/todos", {"title": "x", "owner": 7})[0])
