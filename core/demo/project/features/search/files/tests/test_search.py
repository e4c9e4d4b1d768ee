from tests.support import ApiCase


class SearchTest(ApiCase):
    def found(self, tag):
        return [todo["title"] for todo in self.call("GET", f"/api/search?tag={tag}")[1]]

    def test_the_beginning_of_a_tag_is_enough(self):
        self.add("Weed", tags=["garden"])
        self.add("Sweep", tags=["garage", "home"])
        self.add("Call")
        self.assertEqual(["Weed", "Sweep"], self.found("gar"))
        self.assertEqual(["Sweep"], self.found("HOME"))
        self.assertEqual([], self.found("ard"))

    def test_a_search_for_nothing_is_refused(self):
        self.assertEqual(400, self.call("GET", "/api/search")[0])
