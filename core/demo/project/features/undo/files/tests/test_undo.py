from tests.support import ApiCase


class UndoTest(ApiCase):
    def test_what_was_deleted_comes_back_where_it_was(self):
        before = [self.add(title) for title in ("one", "two", "three")]
        for todo in before[:2]:
            self.call("DELETE", f"/api/todos/{todo['id']}")
        self.assertEqual((200, before[1]), self.call("POST", "/api/undo"))
        self.assertEqual((200, before[0]), self.call("POST", "/api/undo"))
        self.assertEqual((200, before), self.call("GET", "/api/todos"))

    def test_without_a_delete_there_is_nothing_to_undo(self):
        self.assertEqual(409, self.call("POST", "/api/undo")[0])
