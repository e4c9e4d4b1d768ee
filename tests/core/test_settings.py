"""Settings come from the strongest source, and a bad one is named, never replaced."""

from pathlib import Path

import pytest

from autocoder.core.errors import UsageError
from autocoder.core.models import PortRange
from autocoder.core.settings import Settings, documented, ledger_path, load_settings


def load(
    folder: Path,
    *,
    environ: dict[str, str] | None = None,
    cli: dict[str, object] | None = None,
    project: str = "",
    user: str = "",
) -> Settings:
    if project:
        (folder / "autocoder.toml").write_text(project)
    (folder / "config.toml").write_text(user)
    return load_settings(folder, environ=environ or {}, cli=cli, user_config=folder / "config.toml")


def test_command_line_beats_environment_beats_project_beats_user(tmp_path: Path) -> None:
    user, project = "parallel = 4", "parallel = 5"
    environ = {"AUTOCODER_PARALLEL": "6"}

    assert load(tmp_path, user=user).parallel == 4
    assert load(tmp_path, user=user, project=project).parallel == 5
    assert load(tmp_path, user=user, environ=environ).parallel == 6
    assert load(tmp_path, environ=environ, cli={"parallel": 7}).parallel == 7


def test_every_value_knows_where_it_came_from(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        environ={"AUTOCODER_API_PORT_RANGE_END": "5050", "AUTOCODER_MERGE": "manual"},
        project="parallel = 5",
        cli={"backend": "scripted", "model": None},
    )

    assert settings.origin("parallel") == str(tmp_path / "autocoder.toml")
    assert settings.origin("merge") == "$AUTOCODER_MERGE"
    assert settings.origin("ports.api") == "$AUTOCODER_API_PORT_RANGE_END"
    assert settings.origin("backend") == "--backend"
    assert settings.origin("model") == "default"


def test_one_end_of_a_range_alone_moves_that_end(tmp_path: Path) -> None:
    settings = load(tmp_path, environ={"AUTOCODER_WEB_PORT_RANGE_START": "5200"})

    assert settings.ports.web == (PortRange(5200, 5273),)
    assert settings.ports.api == (PortRange(5000, 5100),)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"AUTOCODER_API_PORT_RANGE_START": "abc"}, "$AUTOCODER_API_PORT_RANGE_START"),
        ({"AUTOCODER_API_PORT_RANGE_START": "80"}, "$AUTOCODER_API_PORT_RANGE_START"),
        ({"AUTOCODER_API_PORT_RANGE_START": "5100"}, "$AUTOCODER_API_PORT_RANGE_START"),
        ({"AUTOCODER_API_PORT_RANGE_END": "70000"}, "$AUTOCODER_API_PORT_RANGE_END"),
        ({"AUTOCODER_API_PORT_RANGE_END": "-1"}, "$AUTOCODER_API_PORT_RANGE_END"),
        ({"AUTOCODER_API_PORT_RANGE_END": "5050.5"}, "$AUTOCODER_API_PORT_RANGE_END"),
        ({"AUTOCODER_API_PORT_RANGE_END": "5200"}, "overlaps"),
        ({"AUTOCODER_PORT_COOLDOWN_S": "soon"}, "$AUTOCODER_PORT_COOLDOWN_S"),
        ({"AUTOCODER_PORT_COOLDOWN_S": "nan"}, "$AUTOCODER_PORT_COOLDOWN_S"),
        ({"AUTOCODER_PARALLEL": "-1"}, "$AUTOCODER_PARALLEL"),
        ({"AUTOCODER_PARALLEL": "three"}, "$AUTOCODER_PARALLEL"),
        ({"AUTOCODER_SKIP_PORT_CHECK": "perhaps"}, "$AUTOCODER_SKIP_PORT_CHECK"),
        ({"AUTOCODER_MERGE": "later"}, "$AUTOCODER_MERGE"),
        ({"AUTOCODER_BACKEND": "nobody"}, "$AUTOCODER_BACKEND"),
        ({"AUTOCODER_LEDGER_URL": "postgres://x"}, "$AUTOCODER_LEDGER_URL"),
        ({"AUTOCODER_UI_PORT": "80"}, "$AUTOCODER_UI_PORT"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(
    tmp_path: Path, environ: dict[str, str], named: str
) -> None:
    with pytest.raises(UsageError) as refused:
        load(tmp_path, environ=environ)

    assert named in refused.value.message
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("parallel = ", "autocoder.toml"),
        ("paralel = 3", "paralel"),
        ("[ports]\nparallel = 3", "ports.parallel"),
        ("parallel = 2.5", "parallel"),
        ("parallel = true", "parallel"),
        ("backend = 3", "backend"),
        ("[ports]\napi = 5000", "ports.api"),
        ("[ports]\napi = [[5000, 5100, 5200]]", "ports.api"),
        ("[ports]\napi = []", "ports.api"),
        ("[backends.mine]\nparser = 'text'", "backends.mine"),
        ("[backends.mine]\ncommand = ['x']\nflags = 1", "flags"),
        ("backends = 3", "backends"),
    ],
)
def test_a_bad_file_is_refused_by_its_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(UsageError) as refused:
        load(tmp_path, project=text)

    assert "autocoder.toml" in refused.value.message
    assert named in refused.value.message


def test_a_misplaced_setting_is_pointed_to_its_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        load(tmp_path, project="cooldown_s = 3")

    assert refused.value.hint == "Did you mean ports.cooldown_s?"


def test_a_backend_of_ones_own_can_be_chosen(tmp_path: Path) -> None:
    settings = load(
        tmp_path, project='backend = "mine"\n[backends.mine]\ncommand = ["agent", "{prompt_file}"]'
    )

    assert settings.backends["mine"].command == ("agent", "{prompt_file}")


def test_the_ledger_goes_where_its_url_says(tmp_path: Path) -> None:
    settings = load(tmp_path, environ={"AUTOCODER_LEDGER_URL": f"sqlite:///{tmp_path}/l.db"})

    assert ledger_path(settings) == tmp_path / "l.db"


def test_every_setting_says_what_it_means() -> None:
    assert all(meaning for _, _, _, meaning in documented())
    assert ("ports.cooldown_s", "AUTOCODER_PORT_COOLDOWN_S") in [d[:2] for d in documented()]


def test_a_preset_says_only_what_nobody_else_has_said(tmp_path: Path) -> None:
    (tmp_path / "autocoder.toml").write_text('preset = "cheap"\n[limits]\nattempts = 7\n')
    settings = load_settings(tmp_path, environ={"AUTOCODER_LIMITS_ITERATIONS": "4"})
    assert settings.limits.attempts == 7
    assert settings.limits.iterations == 4
    assert settings.limits.budget_usd == 1.0
    assert settings.origin("limits.budget_usd") == "preset cheap"
    assert load_settings(tmp_path, environ={}, cli={"preset": "quality"}).verify.required
