from tests.support import ApiCase


class ImportTest(ApiCase):
    def imported(self, text):
        status, todos = self.call("POST", "/api/import", {"text": text})
        self.assertEqual(201, status, todos)
        return [(todo["title"], todo["done"]) for todo in todos]

    def test_every_line_is_a_todo(self):
        self.assertEqual([("one", False), ("two", False)], self.imported("one\n\n  two  \n"))

    def test_list_marks_are_understood(self):
        text = "- one\n* [x] two\n[ ] three\n[X] four"
        expected = [("one", False), ("two", True), ("three", False), ("four", True)]
        self.assertEqual(expected, self.imported(text))

    def test_an_empty_text_is_refused(self):
        for body in ({"text": " \n"}, {}, None):
            self.assertEqual(400, self.call("POST", "/api/import", body)[0], body)
