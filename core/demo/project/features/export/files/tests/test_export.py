import csv
import io

from tests.support import ApiCase, exchange


class ExportTest(ApiCase):
    def rows(self):
        status, headers, content = exchange(self.server, "GET", "/api/export.csv")
        self.assertEqual((200, "text/csv; charset=utf-8"), (status, headers["Content-Type"]))
        return list(csv.DictReader(io.StringIO(content.decode(), newline="")))

    def test_every_todo_is_a_row_whatever_its_title(self):
        titles = ['comma, quote "', "two\nlines", "Grüße"]
        for title in titles:
            self.add(title)
        self.assertEqual(titles, [row["title"] for row in self.rows()])

    def test_a_title_never_becomes_a_formula(self):
        self.add("=1+1")
        self.assertEqual("'=1+1", self.rows()[0]["title"])

    def test_an_empty_list_is_an_empty_table(self):
        self.assertEqual([], self.rows())
