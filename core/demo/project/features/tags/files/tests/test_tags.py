from tests.support import ApiCase


class TagsTest(ApiCase):
    def test_tags_are_clean_and_unique(self):
        self.assertEqual(
            ["home", "garden"], self.add("Weed", tags=["Home", "garden ", "home"])["tags"]
        )

    def test_a_todo_has_no_tags_unless_it_is_given_some(self):
        self.assertEqual([], self.add("Weed")["tags"])

    def test_tags_are_counted(self):
        self.add("Weed", tags=["garden"])
        self.add("Mow", tags=["garden", "home"])
        self.assertEqual((200, {"garden": 2, "home": 1}), self.call("GET", "/api/tags"))

    def test_a_tag_of_two_words_is_refused(self):
        status, _ = self.call("POST", "/api/todos", {"title": "Weed", "tags": ["two words"]})
        self.assertEqual(400, status)
