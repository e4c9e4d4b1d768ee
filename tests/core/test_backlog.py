"""Backlog files, as people and other programs write them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from autocoder.core.backlog import ImportReport, import_backlog
from autocoder.core.errors import UsageError
from autocoder.core.store import FeatureDraft, ProjectStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ProjectStore]:
    store = ProjectStore(tmp_path / "agent_system.db")
    yield store
    store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def imported(store: ProjectStore, folder: Path, name: str, content: object) -> ImportReport:
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return import_backlog(store, file)


JSON_OBJECT = """{
  "app": {"features": ["not these"]},
  "features": [
    {"name": "Tags", "description": "Many.", "category": "functional",
     "steps": ["add", "see"], "priority": 5},
    {"name": "Search", "depends_on": ["Tags"], "enabled": false}
  ]
}"""
YAML = """
# what is to be done
features:
  - name: Tags
    description: Many.
    category: functional
    steps: [add, see]
    priority: 5
  - name: Search
    depends_on: Tags
    enabled: false
"""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("backlog.json", JSON_OBJECT),
        ("backlog.json", json.dumps(json.loads(JSON_OBJECT)["features"])),
        ("backlog.json", "\ufeff" + JSON_OBJECT.replace("\n", "\r\n\t")),
        ("backlog.yaml", YAML),
        ("backlog.YML", YAML.replace("features:\n", "---\n")),
    ],
    ids=["object", "array", "tabs and a byte order mark", "yaml", "yaml array"],
)
def test_every_form_of_a_backlog_gives_the_same_features(
    store: ProjectStore, folder: Path, name: str, content: str
) -> None:
    report = imported(store, folder, name, content)

    tags, search = report.added
    assert (tags.name, tags.description, tags.category) == ("Tags", "Many.", "functional")
    assert (tags.steps, tags.priority, tags.enabled) == (("add", "see"), 5, True)
    assert (search.name, search.depends_on, search.enabled) == ("Search", (tags.id,), False)
    assert report.ignored_keys == ()


def test_a_list_of_another_program_has_descriptions_for_names(
    store: ProjectStore, folder: Path
) -> None:
    report = imported(
        store,
        folder,
        "feature_list.json",
        [
            {"category": "style", "description": "Buttons are round\nall of them", "passes": True},
            {
                "category": "style",
                "description": "Links are blue",
                "steps": ["look"],
                "passes": False,
            },
        ],
    )

    assert [feature.name for feature in report.added] == ["Links are blue"]
    assert report.passing == ("Buttons are round",)


def test_what_is_done_already_holds_nobody_up(store: ProjectStore, folder: Path) -> None:
    entries = [{"name": "old", "passes": True}, {"name": "new", "depends_on": ["old"]}]

    (new,) = imported(store, folder, "b.json", entries).added

    assert new.depends_on == ()


def test_importing_again_adds_only_what_is_new(store: ProjectStore, folder: Path) -> None:
    first = imported(store, folder, "b.json", [{"name": "one"}, {"name": "two"}])
    entries = [
        {"name": " ONE "},
        {"name": "three", "depends_on": ["one", "Two"]},
        {"name": "Three"},
    ]

    second = imported(store, folder, "b.json", entries)

    assert second.duplicates == ("ONE", "Three")
    assert [feature.name for feature in second.added] == ["three"]
    assert second.added[0].depends_on == tuple(feature.id for feature in first.added)
    assert len(store.features()) == 3


def test_a_number_is_a_place_in_the_file(store: ProjectStore, folder: Path) -> None:
    imported(store, folder, "a.json", [{"name": "there before"}])
    entries = [{"name": "first"}, {"name": "second"}, {"name": "third", "depends_on": [2]}]

    _, second, third = imported(store, folder, "b.json", entries).added

    assert third.depends_on == (second.id,)


def test_a_number_is_an_id_where_the_file_has_ids(store: ProjectStore, folder: Path) -> None:
    entries = [{"id": 20, "name": "a", "depends_on": 10}, {"id": 10, "name": "b"}]

    a, b = imported(store, folder, "b.json", entries).added

    assert a.depends_on == (b.id,)


def test_a_dry_run_says_what_would_be_added_and_adds_nothing(
    store: ProjectStore, folder: Path
) -> None:
    file = folder / "b.json"
    file.write_text(JSON_OBJECT)

    report = import_backlog(store, file, dry_run=True)

    assert [draft.name for draft in report.drafts] == ["Tags", "Search"]
    assert report.added == store.features() == ()


def test_what_an_entry_is_to_run_is_asked_once_and_refused_with_its_line(
    store: ProjectStore, folder: Path
) -> None:
    file = folder / "b.yaml"
    file.write_text(
        "- {name: a, backend: codex, model: large, base: release}\n"
        "- {name: b, backend: codex, model: large, base: release}\n"
        "- {name: c, backend: nonsense}\n"
    )
    asked = []

    def check(draft: FeatureDraft) -> None:
        asked.append((draft.backend, draft.model, draft.base))
        if draft.backend == "nonsense":
            raise UsageError("no such backend", "Name another.")

    with pytest.raises(UsageError, match=r"b\.yaml:3: no such backend") as refused:
        import_backlog(store, file, check=check)

    assert refused.value.hint == "Name another."
    assert asked == [("codex", "large", "release"), ("nonsense", "", "")]
    assert store.features() == ()


def test_keys_that_mean_nothing_are_named(store: ProjectStore, folder: Path) -> None:
    report = imported(store, folder, "b.json", [{"name": "a", "dependson": ["b"], "prio": 1}])

    assert report.ignored_keys == ("dependson", "prio")


def test_words_stay_words_in_yaml(store: ProjectStore, folder: Path) -> None:
    content = "- name: no\n  steps: [yes, on, '1', 1.5, null-ish]\n- name: '7'\n"

    report = imported(store, folder, "b.yaml", content)

    assert [feature.name for feature in report.added] == ["no", "7"]
    assert report.added[0].steps == ("yes", "on", "1", "1.5", "null-ish")


def test_emoji_escaped_as_json_does_arrive_whole(store: ProjectStore, folder: Path) -> None:
    report = imported(store, folder, "b.json", [{"name": "party 🎉"}])

    assert report.added[0].name == "party 🎉"


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("b.json", '[\n{"name": "a"}\n{"name": "b"}]', r"b.json:3: Expecting ','"),
        ("b.json", "", "b.json:1: Expecting value"),
        ("b.json", '{"a": 1}', "b.json:1: expected a list of features"),
        ("b.json", '{"features": {}}', "b.json:1: expected a list of features"),
        ("b.json", "3", "b.json:1: expected a list of features"),
        ("b.json", '[\n\n{"name": 5}]', "b.json:3: name must be a text, not 5"),
        ("b.json", '[\n{"category": "x"}]', "b.json:2: a feature needs a name"),
        ("b.json", '[{"name": " \\n "}]', "b.json:1: a feature needs a name"),
        ("b.json", '["a"]', "b.json:1: expected a feature"),
        ("b.json", '[{"name": "a", "steps": [1]}]', "b.json:1: steps must be a list of texts"),
        ("b.json", '[{"name": "a", "priority": 1.5}]', "priority must be a whole number"),
        ("b.json", '[{"name": "a", "priority": true}]', "priority must be a whole number"),
        ("b.json", '[{"name": "a", "priority": 1e999}]', "priority must be a whole number"),
        ("b.json", '[{"name": "a", "priority": NaN}]', "NaN is no JSON"),
        ("b.json", '[{"name": "a", "priority": ' + "9" * 5000 + "}]", "5000 digits"),
        ("b.json", '[{"name": "a", "enabled": "no"}]', "enabled must be true or false"),
        ("b.json", '[{"name": "\\ud800"}]', "b.json:1: name holds half a character"),
        ("b.json", '[{"name": "' + "x" * 201 + '"}]', "name is longer than 200"),
        ("b.json", '[{"name":"a"},\n{"name":"b","depends_on":["c"]}]', "b.json:2: depends on 'c'"),
        ("b.json", '[{"name":"a","depends_on":[9]}]', "b.json:1: depends on 9, which is no"),
        ("b.json", '[{"name":"a","depends_on":[{}]}]', "depends_on must be a list of names"),
        ("b.json", '[{"name":"a","depends_on":["a"]}]', "'a' depends on itself"),
        (
            "b.json",
            '[{"name":"a","depends_on":["b"]},{"name":"b","depends_on":["a"]}]',
            "b.json: .* in a circle",
        ),
        ("b.json", '[{"id":1,"name":"a"},\n{"id":1,"name":"b"}]', "b.json:2: the id 1"),
        ("b.json", "[" * 100_000, "b.json: nested too deeply"),
        ("b.yaml", "", "b.yaml:1: expected a list of features"),
        ("b.yaml", "a: [1\n", "b.yaml:2: did not find expected"),
        ("b.yaml", "- name: a\n- {name: 5}\n", "b.yaml:2: name must be a text, not 5"),
        ("b.yaml", "- name: a\n  name: b\n", "b.yaml:2: 'name' stands there twice"),
        ("b.yaml", "- name: a\n--- \n- name: b\n", "b.yaml:2: more than one document"),
        ("b.yaml", "- name: !!python/name:os.system x\n", "b.yaml:1: the tag .* is not read"),
        ("b.yaml", "a: &a [x, x]\nb: [*a, *a]\n", "b.yaml:1: anchors and aliases are not read"),
        ("b.yaml", "- *a\n", "b.yaml:1: anchors and aliases"),
        ("b.yaml", "- {[a]: b}\n", "b.yaml:1: a key must be a text"),
        ("b.yaml", "[" * 100_000, "b.yaml:1: nested too deeply"),
        ("b.yaml", "- name: \x01\n", "b.yaml: .*control characters"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line_and_nothing_is_added(
    store: ProjectStore, folder: Path, name: str, content: str, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        imported(store, folder, name, content)

    assert store.features() == ()


def test_one_wrong_entry_keeps_the_good_ones_out_too(store: ProjectStore, folder: Path) -> None:
    with pytest.raises(UsageError):
        imported(store, folder, "b.json", [{"name": "good"}, {"name": 1}])

    assert store.features() == ()


def test_a_file_that_is_no_text_is_refused(store: ProjectStore, folder: Path) -> None:
    file = folder / "b.json"
    file.write_bytes(b'[\n{"name": "\xff"}]')

    with pytest.raises(UsageError, match=r"b.json:2: not UTF-8"):
        import_backlog(store, file)


def test_what_is_no_file_is_refused_and_not_waited_for(store: ProjectStore, folder: Path) -> None:
    os.mkfifo(folder / "pipe.json")
    for name, complaint in {
        "pipe.json": "is not a file",
        "nothing.json": "is not there",
        "": "is not a file",
    }.items():
        with pytest.raises(UsageError, match=complaint):
            import_backlog(store, folder / name)


def test_a_file_of_absurd_size_is_not_read(store: ProjectStore, folder: Path) -> None:
    file = folder / "b.json"
    with file.open("wb") as huge:
        huge.truncate(50 * 1024**3)

    with pytest.raises(UsageError, match="larger than 8 MiB"):
        import_backlog(store, file)


def test_too_many_features_are_refused(store: ProjectStore, folder: Path) -> None:
    with pytest.raises(UsageError, match="has 10001 features"):
        imported(store, folder, "b.json", [{"name": str(number)} for number in range(10_001)])
